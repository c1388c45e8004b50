import * as z from "zod";

/** What a client should do about a refusal, for code that cannot read prose. */
export type ClientAction = "fix" | "reauthenticate" | "retry" | "stop";

type ErrorEntry = { status: number; title: string; action: ClientAction; next: string; closeCode?: number };

/**
 * Every refusal of the wire: HTTP status, WebSocket close code where a socket ends with it, and the next step.
 * `next` is the default; a refusal may bring a better one.
 */
export const ERRORS = {
  "invalid-body": {
    status: 400,
    title: "The body is not valid",
    action: "fix",
    next: "Correct the fields named in `errors` and send again.",
  },
  "invalid-json": {
    status: 400,
    title: "The body is not JSON",
    action: "fix",
    next: "Send one JSON document in UTF-8, at most 32 levels deep, without duplicate or reserved keys.",
  },
  "invalid-parameter": {
    status: 400,
    title: "A parameter is not valid",
    action: "fix",
    next: "Correct the parameter named in `errors`.",
  },
  "invalid-cursor": {
    status: 400,
    title: "The cursor is not valid",
    action: "fix",
    next: "Use a cursor from an earlier answer, or none.",
  },
  "missing-header": {
    status: 400,
    title: "A header is missing",
    action: "fix",
    next: "Send the header named in `errors`.",
  },
  "weak-key": {
    status: 400,
    title: "The key cannot be trusted",
    action: "fix",
    next: "Make a new Ed25519 key: `plumule key new`.",
  },
  "protocol-too-old": {
    status: 400,
    title: "This version of the protocol is no longer served",
    action: "stop",
    next: "Update plumule on this machine and start it again; `GET /v1` names the versions that this broker serves.",
  },
  unauthenticated: {
    status: 401,
    title: "Not authenticated",
    action: "reauthenticate",
    next: "Send `Authorization: Bearer plm_…`; make a token with `plumule token create`.",
    closeCode: 4401,
  },
  "bad-signature": {
    status: 401,
    title: "The signature does not verify",
    action: "fix",
    next: "Sign the exact bytes of the body with a key that this namespace trusts.",
  },
  "timestamp-out-of-window": {
    status: 401,
    title: "The timestamp is out of the window",
    action: "fix",
    next: "Set the sender's clock; compare it with the `Date` header of this answer.",
  },
  forbidden: {
    status: 403,
    title: "Not allowed",
    action: "stop",
    next: "Use a token with the scope named in `detail`.",
    closeCode: 4403,
  },
  "not-found": {
    status: 404,
    title: "Not found",
    action: "stop",
    next: "Check the id; ids of other namespaces look the same as ids that do not exist.",
    closeCode: 4404,
  },
  "method-not-allowed": {
    status: 405,
    title: "Method not allowed",
    action: "fix",
    next: "See /openapi.json for the methods of this path.",
  },
  conflict: { status: 409, title: "Conflict", action: "fix", next: "Read the current state and decide again." },
  busy: {
    status: 409,
    title: "The deployment is busy",
    action: "retry",
    next: "Wait until that job has ended, or submit with mode `queue`, `replace` or `latest`.",
  },
  "already-final": {
    status: 409,
    title: "The job has ended",
    action: "stop",
    next: "Nothing to do; `rerun` makes a new job of it.",
  },
  "in-apply-phase": {
    status: 409,
    title: "The job is applying",
    action: "retry",
    next: "Wait, or cancel with `force: true` and check what was left behind.",
  },
  "wrong-state": {
    status: 409,
    title: "The job is in another state",
    action: "fix",
    next: "Read the job and choose an action that its state allows.",
  },
  "stale-lease": {
    status: 409,
    title: "The lease is no longer yours",
    action: "stop",
    next: "Stop the work and kill its processes; poll for new work.",
    closeCode: 4409,
  },
  "log-conflict": {
    status: 409,
    title: "Other bytes are already stored at this offset",
    action: "stop",
    next: "Stop uploading; the stored bytes stand.",
  },
  "idempotency-in-flight": {
    status: 409,
    title: "The same request is still being handled",
    action: "retry",
    next: "Send the same request again in a moment.",
  },
  gone: { status: 410, title: "Gone", action: "stop", next: "It was removed by retention or deleted." },
  "cursor-expired": {
    status: 410,
    title: "The cursor is older than the history kept",
    action: "fix",
    next: "Start from a snapshot: read the resource, then follow from its cursor.",
  },
  "log-expired": {
    status: 410,
    title: "The log was removed by retention",
    action: "stop",
    next: "The signed statement still carries its length and sha256.",
  },
  "revision-conflict": {
    status: 412,
    title: "The revision has changed",
    action: "fix",
    next: "Read it again, look at what changed, and send its new ETag in If-Match.",
  },
  "payload-too-large": {
    status: 413,
    title: "Too large",
    action: "fix",
    next: "Send less; the limit is in `detail`.",
    closeCode: 4413,
  },
  "unsupported-media-type": {
    status: 415,
    title: "Unsupported media type or encoding",
    action: "fix",
    next: "Send `Content-Type: application/json` without Content-Encoding.",
  },
  "log-gap": {
    status: 416,
    title: "The offset is beyond the end of the log",
    action: "fix",
    next: "Resume at the offset in `Plumule-Log-Size`.",
  },
  "invalid-configuration": {
    status: 422,
    title: "The configuration is not valid",
    action: "fix",
    next: "Correct the fields named in `errors`.",
  },
  "idempotency-mismatch": {
    status: 422,
    title: "The Idempotency-Key was used with another body",
    action: "fix",
    next: "Use a new key for a new request.",
  },
  "invalid-statement": {
    status: 422,
    title: "The statement does not match the job",
    action: "stop",
    next: "See `errors` for the check that failed.",
  },
  "upgrade-required": {
    status: 426,
    title: "WebSocket required",
    action: "fix",
    next: "Connect with the subprotocol `plumule.v1`.",
    closeCode: 4426,
  },
  "precondition-required": {
    status: 428,
    title: "If-Match is required",
    action: "fix",
    next: "Read the document and send its ETag in If-Match.",
  },
  "rate-limited": {
    status: 429,
    title: "Too many requests",
    action: "retry",
    next: "Wait for `Retry-After` seconds.",
    closeCode: 4429,
  },
  "quota-exceeded": {
    status: 429,
    title: "A limit of the namespace is reached",
    action: "retry",
    next: "Wait, or remove what is no longer needed; the numbers are in `detail`.",
  },
  internal: {
    status: 500,
    title: "A fault of the broker",
    action: "retry",
    next: "Send again; if it stays, report it with the `instance`.",
  },
  unavailable: {
    status: 503,
    title: "Not available at the moment",
    action: "retry",
    next: "Send the same request again in a moment.",
  },
} as const satisfies Record<string, ErrorEntry>;

/** The name of a refusal. */
export type ErrorCode = keyof typeof ERRORS;

/** Where a body or parameter is wrong: RFC 6901 pointer into the body, or the name of a parameter or header. */
export const fieldErrorSchema = z.object({ pointer: z.string(), detail: z.string() });
export type FieldError = z.output<typeof fieldErrorSchema>;

/** An expected refusal, as a value: cores return it, the edge turns it into a problem document. */
export type Refusal = {
  refused: ErrorCode;
  detail: string;
  errors?: readonly FieldError[];
  next?: string;
  headers?: Readonly<Record<string, string>>;
};

/** Makes a refusal. */
export function refuse(code: ErrorCode, detail: string, more: Omit<Refusal, "refused" | "detail"> = {}): Refusal {
  return { refused: code, detail, ...more };
}

/** True for a refusal, false for any other answer. */
export function isRefusal(answer: unknown): answer is Refusal {
  return typeof answer === "object" && answer !== null && "refused" in answer;
}

/** RFC 9457 problem document with plumule's extensions `code`, `errors` and `next`. */
export const problemSchema = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string(),
    instance: z.string().optional(),
    errors: z.array(fieldErrorSchema).optional(),
    next: z.string(),
  })
  .meta({ id: "Problem" });
export type Problem = z.output<typeof problemSchema>;

/** The problem document of a refusal. `instance` identifies the request in the broker's log. */
export function problemOf(refusal: Refusal, instance?: string): Problem {
  const entry: ErrorEntry = ERRORS[refusal.refused];
  return {
    type: `https://plumule.dev/problems/${refusal.refused}`,
    title: entry.title,
    status: entry.status,
    detail: refusal.detail,
    code: refusal.refused,
    ...(instance === undefined ? {} : { instance }),
    ...(refusal.errors === undefined ? {} : { errors: [...refusal.errors] }),
    next: refusal.next ?? entry.next,
  };
}

/** The field errors of a failed zod parse, as pointers. */
export function fieldErrors(error: z.ZodError): FieldError[] {
  return error.issues.slice(0, 20).map((issue) => {
    const at = issue.path.map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
    if (issue.code === "unrecognized_keys")
      return {
        pointer: `${at}/${issue.keys[0] ?? ""}`,
        detail: `unknown field${issue.keys.length > 1 ? "s" : ""}: ${issue.keys.join(", ")}`,
      };
    if (issue.code === "invalid_type" && issue.message.endsWith("received undefined"))
      return { pointer: at, detail: `missing: expected ${issue.expected}` };
    // Of a key of a record, the reason is one level down.
    if (issue.code === "invalid_key") return { pointer: at, detail: issue.issues[0]?.message ?? issue.message };
    return { pointer: at, detail: issue.message };
  });
}
