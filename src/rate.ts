import { type Endpoint, LIMITS, type Principal, refuse, type Refusal } from "@plumule/protocol";
import type { Env } from "../durable-objects/env.ts";

/** What one caller may do in a minute, by kind of request. The counters are the platform's: near the caller, in memory, and not exact. */
const RATES = {
  RATE_READS: { what: "reads", limit: LIMITS.readsPerMinute },
  RATE_WRITES: { what: "writes", limit: LIMITS.writesPerMinute },
  RATE_STRANGERS: { what: "requests without a credential that is known", limit: LIMITS.strangersPerMinute },
} as const;
type Counter = keyof typeof RATES;

/** The length of all windows, s. */
const WINDOW_SECONDS = 60;

/**
 * Counts a request of a caller that is known, as a read or a write. A runner's own paths are not counted: its poll is held, and what a lease may
 * write has limits of its own.
 */
export async function countCaller(
  env: Env,
  endpoint: Endpoint,
  { actor, namespace }: Principal,
): Promise<Refusal | null> {
  if (endpoint.access === "runner") return null;
  return count(env, endpoint.method === "get" ? "RATE_READS" : "RATE_WRITES", `${namespace ?? ""} ${actor}`, actor);
}

/** Counts a request whose sender is not known, or not yet: by address, so that nobody can use up another one's share. */
export async function countStranger(env: Env, request: Request): Promise<Refusal | null> {
  const address = request.headers.get("cf-connecting-ip") ?? "local";
  return count(env, "RATE_STRANGERS", address, address);
}

/** Counts webhooks and proofs, whose senders show who they are in the body: each namespace and address has a share. */
export async function countSigned(env: Env, namespace: string, request: Request): Promise<Refusal | null> {
  const address = request.headers.get("cf-connecting-ip") ?? "local";
  return count(env, "RATE_WRITES", `${namespace} from ${address}`, address);
}

async function count(env: Env, counter: Counter, key: string, who: string): Promise<Refusal | null> {
  // A broker on somebody's own machine has no counters and needs none.
  const outcome = await env[counter]?.limit({ key });
  if (outcome === undefined || outcome.success) return null;
  const { what, limit } = RATES[counter];
  return refuse("rate-limited", `${who} has sent more than ${limit} ${what} in ${WINDOW_SECONDS} s.`, {
    headers: {
      "retry-after": String(WINDOW_SECONDS),
      // draft-ietf-httpapi-ratelimit-headers
      "ratelimit-policy": `"${what.split(" ")[0]}";q=${limit};w=${WINDOW_SECONDS}`,
      ratelimit: `"${what.split(" ")[0]}";r=0;t=${WINDOW_SECONDS}`,
    },
  });
}
