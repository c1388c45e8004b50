import { refuse, type Millis, type Refusal } from "@plumule/protocol";
import type { Actor, Guard } from "./calls.ts";
import type { Store } from "./store.ts";

/** A request that may have been made before. `operation` names what is asked of what, so that a key is good for one request only. */
export type Request = { actor: Actor; guard: Guard; operation: string };

/** Answers to idempotency keys (P8): a key belongs to its actor, and is kept with the answer in the transaction that made it. */
export type Requests = {
  /** The answer that this request got before, `idempotency-mismatch` when its key asked for something else, or null when it is new. */
  recall<Answer>(request: Request, now: Millis): Answer | Refusal | null;
  /** Call it inside the transaction. Refusals are not kept: they changed nothing, and may be answered otherwise next time. */
  remember(request: Request, answer: unknown, now: Millis): void;
};

/** Opens the answers of a deployment. */
export function createRequests(store: Store): Requests {
  const fingerprint = ({ operation, guard }: Request): string => `${operation} ${guard.bodySha256}`;
  return {
    recall<Answer>(request: Request, now: Millis) {
      const { idempotencyKey } = request.guard;
      const known = idempotencyKey === null ? null : store.request(`${request.actor} ${idempotencyKey}`, now);
      if (known === null) return null;
      if (known.fingerprint !== fingerprint(request))
        return refuse("idempotency-mismatch", `The Idempotency-Key "${idempotencyKey}" was used for another request.`);
      return JSON.parse(known.answer) as Answer;
    },
    remember(request, answer, now) {
      const { idempotencyKey } = request.guard;
      if (idempotencyKey === null) return;
      store.putRequest(
        `${request.actor} ${idempotencyKey}`,
        { fingerprint: fingerprint(request), answer: JSON.stringify(answer) },
        now,
      );
    },
  };
}
