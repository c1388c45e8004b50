import { sha256 } from "@noble/hashes/sha2.js";
import * as z from "zod";
import { toHex, utf8 } from "./bytes.ts";
import { describeIssues, type Envelope, envelopeSchema, openEnvelope } from "./dsse.ts";
import { namespaceIdSchema, sha256Schema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";
import { parseStrictJson } from "./strict-json.ts";

/** What the first row of an audit log follows. */
export const AUDIT_START = "0".repeat(64);

/** What a broker signs of an audit log: its newest row, by number and digest. The signed bytes start with the type, so that a head is nothing else. */
export const AUDIT_HEAD_PAYLOAD_TYPE = "application/vnd.plumule.audit-head+json";

/**
 * A row of the audit log of a namespace: who did what to what, and the SHA-256 of the text of the row before. `before` and `after` are digests of
 * what was changed, null where there was or is nothing: a setting can be compared with them, a secret cannot be read out of them. Rows are
 * kept and handed out as the text that was hashed, so nobody has to agree on how JSON is spelled. A persisted contract: fields may be added.
 */
export const auditEntrySchema = z.looseObject({
  sequence: z.int().min(1),
  at: timeSchema,
  /** `token:<id>`, a did:key, `hook:<id>`, `admin`, `broker`, or `nobody` for those who proved nothing. */
  actor: z.string(),
  action: z.string(),
  target: z.string(),
  requestId: z.string().optional(),
  before: sha256Schema.nullable(),
  after: sha256Schema.nullable(),
  count: z.int().optional(),
  detail: z.string().optional(),
  previousSha256: sha256Schema,
});
export type AuditEntry = z.output<typeof auditEntrySchema>;

/** What is signed: the row of this number has this digest, and through the chain every row before it has its own. */
export const auditHeadSchema = z.strictObject({
  namespace: namespaceIdSchema,
  sequence: z.int().min(1),
  sha256: sha256Schema,
  at: timeSchema,
});
export type AuditHead = z.output<typeof auditHeadSchema>;

/** One line of an audit log: the text of a row, or a signed head behind the row that it is about. */
export const auditItemSchema = z.union([
  z.object({ entry: z.string().max(LIMITS.auditEntryCharacters) }),
  z.object({ head: envelopeSchema }),
]);
export type AuditItem = z.output<typeof auditItemSchema>;

/** The SHA-256 of a row's text. Not through WebCrypto, because a row is numbered, linked and stored in one transaction, which waits for nothing. */
export function auditDigest(entry: string): string {
  return toHex(sha256(utf8(entry)));
}

/** The text of a row behind another one (null: the first). Fields stand in a fixed order, for the eye alone. */
export function linkAuditEntry(
  {
    at,
    actor,
    action,
    target,
    requestId,
    before,
    after,
    count,
    detail,
  }: Omit<AuditEntry, "sequence" | "previousSha256">,
  previous: { sequence: number; entry: string } | null,
): string {
  return JSON.stringify({
    sequence: (previous?.sequence ?? 0) + 1,
    at,
    actor,
    action,
    target,
    requestId,
    before,
    after,
    count,
    detail,
    previousSha256: previous === null ? AUDIT_START : auditDigest(previous.entry),
  });
}

/** Where an audit log does not fit: the line (from 1) and, where it can be read, the number of the row. */
export type AuditFault = { line: number; sequence: number | null; detail: string };

/**
 * What can be said of an audit log. `first` and `last` are numbers of rows, 0 when there are none. `begins`: with the very first row, behind one that
 * a head vouches for (what was before it was let go), or behind one that nobody vouches for. `signedThrough`: the last row that a head under the
 * reader's keys covers, 0 when none does; what is behind it may still be changed by whoever holds the log.
 */
export type AuditVerdict = {
  first: number;
  last: number;
  begins: "start" | "checkpoint" | "unknown";
  signedThrough: number;
  fault: AuditFault | null;
};

/**
 * Verifies the lines of an audit log, each an `AuditItem` as JSON, under keys that the reader pinned, without asking anybody. The first line that
 * does not fit is the fault: a row that was changed, taken out, put in or moved breaks the chain behind it; rows that were cut
 * off at the end are missed by a head that was signed over them.
 */
export async function verifyAudit(
  lines: readonly string[],
  { keys, namespace }: { keys: readonly Uint8Array[]; namespace: string | null },
): Promise<AuditVerdict> {
  const chain = createChain();
  const heads: { line: number; head: AuditHead }[] = [];
  let fault: AuditFault | null = null;
  for (const [at, text] of lines.entries()) {
    const line = at + 1;
    const item = readItem(text);
    const wrong =
      typeof item === "string"
        ? { sequence: null, detail: item }
        : "entry" in item
          ? chain.add(item.entry)
          : await readHead(item.head, keys, namespace, (head) => heads.push({ line, head }));
    if (wrong !== null) {
      fault = { line, ...wrong };
      break;
    }
  }
  const compared = compareHeads(chain, heads, fault === null);
  return { ...chain.extent(), ...compared, fault: fault ?? compared.fault };
}

type Wrong = { sequence: number | null; detail: string };

function readItem(text: string): AuditItem | string {
  const json = parseStrictJson(utf8(text));
  if (!json.ok) return `this line is ${json.detail}`;
  const parsed = auditItemSchema.safeParse(json.value);
  return parsed.success ? parsed.data : "this line holds neither a row nor a head";
}

type Chain = {
  /** Adds a row, or says why it does not follow. */
  add(entry: string): Wrong | null;
  digestOf(sequence: number): string | undefined;
  extent(): { first: number; last: number };
};

function createChain(): Chain {
  const digests = new Map<number, string>();
  let first = 0;
  let last = 0;
  return {
    add(text) {
      const json = parseStrictJson(utf8(text));
      const parsed = auditEntrySchema.safeParse(json.ok ? json.value : null);
      if (!parsed.success) return { sequence: null, detail: `the row cannot be read: ${describeIssues(parsed.error)}` };
      const { sequence, previousSha256 } = parsed.data;
      if (first === 0) {
        digests.set(sequence - 1, previousSha256);
        if (sequence === 1 && previousSha256 !== AUDIT_START)
          return { sequence, detail: "the first row says that another one was before it" };
        first = sequence;
      } else if (sequence !== last + 1) return { sequence, detail: `row ${last + 1} is missing or out of place` };
      else if (previousSha256 !== digests.get(last))
        return {
          sequence,
          detail: `it follows another row ${last} than the one before it: that row was changed, or this one`,
        };
      digests.set(sequence, auditDigest(text));
      last = sequence;
      return null;
    },
    digestOf: (sequence) => digests.get(sequence),
    extent: () => ({ first, last }),
  };
}

async function readHead(
  envelope: Envelope,
  keys: readonly Uint8Array[],
  namespace: string | null,
  take: (head: AuditHead) => void,
): Promise<Wrong | null> {
  const opened = await openEnvelope(envelope, { keys, payloadTypes: [AUDIT_HEAD_PAYLOAD_TYPE] });
  if (!opened.ok) return { sequence: null, detail: `the head is not believed: ${opened.detail}` };
  const parsed = auditHeadSchema.safeParse(opened.value.value);
  if (!parsed.success) return { sequence: null, detail: `the head cannot be read: ${describeIssues(parsed.error)}` };
  const head = parsed.data;
  if (namespace !== null && head.namespace !== namespace)
    return { sequence: head.sequence, detail: `the head is of the namespace ${head.namespace}, not of ${namespace}` };
  take(head);
  return null;
}

function compareHeads(
  chain: Chain,
  heads: readonly { line: number; head: AuditHead }[],
  isWhole: boolean,
): Pick<AuditVerdict, "begins" | "signedThrough" | "fault"> {
  const { first, last } = chain.extent();
  let signedThrough = 0;
  let begins: AuditVerdict["begins"] = first === 1 ? "start" : "unknown";
  for (const { line, head } of heads) {
    const { sequence } = head;
    const digest = chain.digestOf(sequence);
    const fault = (detail: string): ReturnType<typeof compareHeads> => ({
      begins,
      signedThrough,
      fault: { line, sequence, detail },
    });
    // What a fault cut short cannot be compared with what was signed behind it.
    if (sequence > last && isWhole) return fault(`rows ${last + 1} to ${sequence} were signed and are missing`);
    if (digest !== undefined && digest !== head.sha256) return fault(`row ${sequence} is another one than was signed`);
    if (digest === undefined) continue;
    if (sequence === first - 1) begins = "checkpoint";
    if (sequence > first - 1) signedThrough = Math.max(signedThrough, sequence);
  }
  return { begins, signedThrough, fault: null };
}
