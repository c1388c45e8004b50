import { type Refusal, LIMITS, type Millis } from "@plumule/protocol";

/** First wait and longest wait between two attempts, ms. */
const FIRST_MS = 1_000;
const LONGEST_MS = 10 * 60_000;

/** When to try again after so many attempts that failed: doubled each time. */
export function retryAt(attempts: number, now: Millis): Millis {
  return now + Math.min(FIRST_MS * 2 ** (attempts - 1), LONGEST_MS);
}

/** True when a refusal is about the moment, not about what was asked. */
export function isTransient({ refused }: Refusal): boolean {
  return (
    refused === "unavailable" ||
    refused === "internal" ||
    refused === "rate-limited" ||
    refused === "idempotency-in-flight"
  );
}

/** True when these attempts were the last ones before the row waits for the object's next life. */
export function isParked(attempts: number): boolean {
  return attempts >= LIMITS.outboxAttempts;
}
