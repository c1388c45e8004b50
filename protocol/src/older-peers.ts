import type { SubmitBody, Task } from "./submit.ts";

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
  { field: "limits", since: 2 },
  { field: "keepFailedMs", since: 2 },
];
/** The same of the fields of an effect, whose schema is as strict. */
const LATER_EFFECT_FIELDS: readonly { field: string; since: number }[] = [
  { field: "script", since: 2 },
  { field: "plan", since: 2 },
  { field: "moveState", since: 2 },
];

/** The same of the fields of a repository task. */
const LATER_REPOSITORY_FIELDS: readonly { field: string; since: number }[] = [
  { field: "effects", since: 2 },
  { field: "schedule", since: 2 },
  { field: "step", since: 2 },
];

/** The least version of the wire in which a submit body can be said. */
export function protocolOf(body: SubmitBody): number {
  const later = [
    ...LATER_FIELDS.filter(({ field }) => field in body),
    ...laterTaskFields(body.task).filter(({ field }) => field in body.task),
  ];
  return Math.max(UNNAMED_PROTOCOL, ...later.map(({ since }) => since));
}

/**
 * A submit body as a reader of a version can read it. For showing alone: what is left out was asked for all the same, so a runner is
 * never given less than the whole body.
 */
export function readableIn(version: number, body: SubmitBody): SubmitBody {
  if (protocolOf(body) <= version) return body;
  const readable = without(body, LATER_FIELDS, version);
  return { ...readable, task: without(body.task, laterTaskFields(body.task), version) };
}

function laterTaskFields({ kind }: Task): readonly { field: string; since: number }[] {
  if (kind === "effect") return LATER_EFFECT_FIELDS;
  return kind === "repository" ? LATER_REPOSITORY_FIELDS : [];
}

function without<T extends object>(value: T, later: readonly { field: string; since: number }[], version: number): T {
  const unknown = new Set(later.filter(({ since }) => since > version).map(({ field }) => field));
  return Object.fromEntries(Object.entries(value).filter(([field]) => !unknown.has(field))) as T;
}
