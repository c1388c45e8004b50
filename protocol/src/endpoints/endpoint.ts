import type * as z from "zod";
import type { ErrorCode } from "../errors.ts";
import type { Scope } from "../access.ts";

/**
 * Who may call an endpoint: nobody needs to be known (`none`), the installation's admin token (`installation`), a token of the namespace
 * with a scope, a runner's session (`runner`), or the lease token of the run in the path (`lease`). `signed` endpoints bring their proof in
 * the request itself (webhooks, registration, sessions).
 */
export type Access = "none" | "installation" | Scope | "runner" | "lease" | "signed";

/** How a body or answer travels: JSON by schema, bytes (`octets`), JSON lines, an event stream or a WebSocket. */
export type Medium = "json" | "octets" | "jsonl" | "stream" | "none";

/**
 * One HTTP endpoint as data: the edge implements it, clients call it, OpenAPI is generated from it.
 * Paths use `:name` for parameters; each is checked by `params`.
 */
export type Endpoint = {
  readonly name: string;
  readonly method: "get" | "post" | "put" | "delete";
  readonly path: string;
  readonly summary: string;
  readonly access: Access;
  readonly params: z.ZodObject;
  readonly query: z.ZodObject | null;
  readonly body: z.ZodType | null;
  readonly bodyMedium: Medium;
  readonly bodyLimitBytes: number;
  /** The Content-Encoding that a body may come in; null: none. Its handler unpacks it, within a limit of its own. */
  readonly bodyEncoding: "zstd" | null;
  readonly answerMedium: Medium;
  /** Schemas of the 2xx answers by status; null where there is no JSON body. */
  readonly answers: Readonly<Record<number, z.ZodType | null>>;
  /** Refusals that are particular to this endpoint, beside authentication, validation and limits. */
  readonly refusals: readonly ErrorCode[];
  /** Takes `Idempotency-Key`: the same key and body get the same answer for 24 h. */
  readonly idempotent: boolean;
};

type Defaults =
  | "query"
  | "body"
  | "bodyMedium"
  | "bodyLimitBytes"
  | "bodyEncoding"
  | "answerMedium"
  | "refusals"
  | "idempotent";

/** Fills in what most endpoints share. */
export function endpoint<const E extends Omit<Endpoint, Defaults> & Partial<Pick<Endpoint, Defaults>>>(
  definition: E,
): E & { [K in Exclude<Defaults, keyof E>]: (typeof DEFAULTS)[K] } {
  return { ...DEFAULTS, ...definition };
}

const DEFAULTS = {
  query: null,
  body: null,
  bodyMedium: "json",
  bodyLimitBytes: 32 * 1024,
  bodyEncoding: null,
  answerMedium: "json",
  refusals: [],
  idempotent: false,
} as const;

/** The parsed answer of an endpoint, by status. */
export type AnswerOf<E extends Endpoint> = {
  [S in keyof E["answers"]]: { status: S; body: E["answers"][S] extends z.ZodType ? z.output<E["answers"][S]> : null };
}[keyof E["answers"]];

/** What a handler receives, parsed. */
export type InputOf<E extends Endpoint> = {
  params: z.output<E["params"]>;
  query: E["query"] extends z.ZodObject ? z.output<E["query"]> : Record<string, never>;
  body: E["body"] extends z.ZodType ? z.output<E["body"]> : null;
};
