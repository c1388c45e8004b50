import * as z from "zod";
import { utf8 } from "./bytes.ts";
import { describeIssues } from "./dsse.ts";
import { commitSchema, sha256Schema } from "./ids.ts";
import { accepted, refused, type Result } from "./result.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** The media type of every statement inside its envelope; what it says is told by `predicateType`. */
export const STATEMENT_PAYLOAD_TYPE = "application/vnd.in-toto+json";
export const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";

/** A word, a path and a URI inside a statement. */
export const statementWord = z.string().max(TRUST_LIMITS.wordCharacters);
export const statementPath = z.string().max(TRUST_LIMITS.pathCharacters);
export const statementUri = z.string().max(TRUST_LIMITS.uriCharacters);

/**
 * An in-toto DigestSet. Only the algorithms named here are read, in their one spelling (lower-case hex); others may stand beside them
 * and are ignored.
 */
export const digestSetSchema = z.looseObject({
  sha256: sha256Schema.optional(),
  gitCommit: commitSchema.optional(),
  gitTree: commitSchema.optional(),
});
export type DigestSet = z.output<typeof digestSetSchema>;

/** An in-toto ResourceDescriptor, as far as plumule writes it. */
export const resourceSchema = z.looseObject({
  name: statementPath.optional(),
  uri: statementUri.optional(),
  mediaType: statementWord.optional(),
  digest: digestSetSchema.optional(),
  annotations: z.looseObject({}).optional(),
});
export type Resource = z.output<typeof resourceSchema>;

/** A subject: what the statement is about. It is matched by digest alone and needs one of the two that plumule reads. */
export const subjectSchema = resourceSchema.extend({
  digest: digestSetSchema.refine(
    (digest) => digest.sha256 !== undefined || digest.gitCommit !== undefined,
    "needs `sha256` or `gitCommit`",
  ),
});

/** An in-toto Statement v1 of any predicate. Unknown fields are ignored, as in-toto asks. */
export const statementSchema = z.looseObject({
  _type: z.literal(STATEMENT_TYPE),
  subject: z.array(subjectSchema).min(1).max(TRUST_LIMITS.subjects),
  predicateType: z.string().min(1).max(TRUST_LIMITS.typeCharacters),
  predicate: z.looseObject({}),
});
export type Statement = z.output<typeof statementSchema>;

/** A statement and the exact bytes to sign. */
export type StatementDraft<S> = { statement: S; bytes: Uint8Array<ArrayBuffer> };
export type StatementRefusal = "invalid-statement" | "statement-too-large";

/**
 * Checks a statement against its schema and fixes its bytes: JSON in the order of its fields, without white space, UTF-8. No canonical
 * form is needed, because DSSE signs bytes and verifiers parse those bytes.
 */
export function draftStatement<S extends z.ZodType>(
  schema: S,
  statement: z.input<S>,
): Result<StatementDraft<z.output<S>>, StatementRefusal> {
  const parsed = schema.safeParse(statement);
  if (!parsed.success) return refused("invalid-statement", describeIssues(parsed.error));
  const bytes = utf8(JSON.stringify(statement));
  if (bytes.length > TRUST_LIMITS.statementBytes)
    return refused(
      "statement-too-large",
      `the statement has ${bytes.length} bytes, the limit is ${TRUST_LIMITS.statementBytes}`,
    );
  return accepted({ statement: parsed.data, bytes });
}

/**
 * The id of a runner as a builder. SLSA makes it the sole carrier of trust, so that each isolation is a builder of its own: trusting a
 * runner's `bwrap` builds does not trust what it ran without a sandbox, nor what it ran for strangers (`untrusted`).
 */
export function builderIdOf(runner: string, isolation: string, untrusted: boolean): string {
  return `${runner}#${untrusted ? "untrusted-" : ""}${isolation}-v1`;
}

/** True for the id of a builder that worked for a stranger. */
export function isUntrustedBuilder(builderId: string): boolean {
  return builderId.includes("#untrusted-");
}
