/** A value, or the reason why there is none: `code` for programs, `detail` as a sentence for people. */
export type Result<T, Code extends string = string> = Accepted<T> | Refused<Code>;
export type Accepted<T> = { ok: true; value: T };
export type Refused<Code extends string> = { ok: false; code: Code; detail: string };

/** Wraps a value that passed. */
export function accepted<T>(value: T): Accepted<T> {
  return { ok: true, value };
}

/** Wraps the reason of an expected refusal; exceptions are for faults of the program. */
export function refused<Code extends string>(code: Code, detail: string): Refused<Code> {
  return { ok: false, code, detail };
}
