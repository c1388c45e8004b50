import type { SubmitBody } from "./submit.ts";

/** The version that a peer speaks which does not say which: its records and requests are older than that question. */
export const UNNAMED_PROTOCOL = 1;

/**
 * Fields of a submit body that came after version 1, with the version that brought them. A reader of an older version refuses a body with a field
 * that it does not know, and rightly: it would leave out what was asked for. A test compares this list with the schema of each released version.
 */
const LATER_FIELDS: readonly { field: keyof SubmitBody; since: number }[] = [
  { field: "quorum", since: 2 },
  { field: "secrets", since: 2 },
  { field: "locks", since: 2 },
  { field: "skipUnchanged", since: 2 },
];

/** The least version of the wire in which a submit body can be said. */
export function protocolOf(body: SubmitBody): number {
  return LATER_FIELDS.reduce(
    (least, { field, since }) => (field in body ? Math.max(least, since) : least),
    UNNAMED_PROTOCOL,
  );
}

/**
 * A submit body as a reader of a version can read it. For showing alone: what is left out was asked for all the same, so a runner is
 * never given less than the whole body.
 */
export function readableIn(version: number, body: SubmitBody): SubmitBody {
  if (protocolOf(body) <= version) return body;
  const unknown = new Set<string>(LATER_FIELDS.filter(({ since }) => since > version).map(({ field }) => field));
  return Object.fromEntries(Object.entries(body).filter(([field]) => !unknown.has(field))) as SubmitBody;
}
