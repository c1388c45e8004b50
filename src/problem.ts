import { ERRORS, type ErrorCode, problemOf, refuse, type Refusal } from "@plumule/protocol";
import { STORAGE_AHEAD } from "../durable-objects/shared/ahead.ts";
import { logLine } from "./log.ts";

/** The HTTP answer of a refusal: RFC 9457 problem document. `instance` is the request's id in the log. */
export function problemResponse(refusal: Refusal, instance: string): Response {
  const entry = ERRORS[refusal.refused];
  const headers = new Headers(refusal.headers);
  headers.set("content-type", "application/problem+json");
  if (refusal.refused === "unauthenticated") headers.set("www-authenticate", 'Bearer realm="plumule"');
  if ((entry.status === 503 || entry.status === 429) && !headers.has("retry-after")) headers.set("retry-after", "1");
  return new Response(JSON.stringify(problemOf(refusal, instance)), { status: entry.status, headers });
}

/**
 * What a thrown error becomes. Expected refusals are values and never come here: this is a fault of the platform (which says whether another try may help) or a
 * bug. Its text stays in the log, because it may quote input of another caller.
 */
export function faultResponse(error: unknown, instance: string, path: string): Response {
  if (error instanceof Error && error.name === STORAGE_AHEAD) return aheadResponse(error, instance, path);
  const platform = error as { retryable?: boolean; overloaded?: boolean } | null;
  const passing = platform?.retryable === true || platform?.overloaded === true;
  logLine(passing ? "warn" : "error", "request failed", {
    instance,
    path,
    error: String(error),
    stack: error instanceof Error ? error.stack : undefined,
  });
  const code: ErrorCode = passing ? "unavailable" : "internal";
  return problemResponse(
    refuse(
      code,
      passing
        ? "The object that holds this is restarting or overloaded."
        : "The broker failed while it handled this request; nothing of it was kept.",
    ),
    instance,
  );
}

/** The deploy was rolled back below what this object has stored. It comes back by itself with the newer version, so callers are asked to wait. */
function aheadResponse(error: Error, instance: string, path: string): Response {
  logLine("error", "storage is ahead of the code", { instance, path, error: error.message });
  const detail =
    "This broker runs an older version than the one that stored this; nothing was changed, and nothing is lost.";
  const next = "Send the same request again in a minute. Whoever runs the broker: deploy the newer version again.";
  return problemResponse(refuse("unavailable", detail, { next, headers: { "retry-after": "60" } }), instance);
}
