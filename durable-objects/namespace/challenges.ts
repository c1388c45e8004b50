import { formatTime, LIMITS, type Millis, refuse, type Refusal } from "@plumule/protocol";
import { randomSecret } from "./credentials.ts";

/** What a key is asked to sign, until when. */
export type Challenge = { challenge: string; expiresAt: Millis };

/** Open challenges, in memory only: one that an eviction loses is asked for again. */
export type Challenges = {
  /** A challenge for a key. Nothing is kept for one that is not `known`, which is answered alike. */
  make(key: string, known: boolean, audience: string): { challenge: string; audience: string; expiresAt: string };
  /** The challenge that a key has open. */
  open(key: string): Challenge | Refusal;
  /** Uses it up: false when a copy of the same proof was faster. */
  spend(key: string, challenge: Challenge): boolean;
};

/** Makes the challenges of one kind of session. `path` is where they are asked for. */
export function createChallenges(path: string): Challenges {
  const open = new Map<string, Challenge>();
  return {
    make(key, known, audience) {
      const now = Date.now();
      const last = open.get(key);
      // Nobody has proved anything yet: a stranger who asks for a key's challenge must not take it away from its owner.
      const fresh =
        last !== undefined && last.expiresAt - now > LIMITS.challengeMs / 2
          ? last
          : { challenge: randomSecret(), expiresAt: now + LIMITS.challengeMs };
      if (known) open.set(key, fresh);
      return { challenge: fresh.challenge, audience, expiresAt: formatTime(fresh.expiresAt) };
    },
    open(key) {
      const found = open.get(key);
      if (found !== undefined && found.expiresAt > Date.now()) return found;
      return refuse("unauthenticated", "There is no challenge for this key, or its time is over.", {
        next: `Ask for a challenge: POST …/${path} without \`proof\`.`,
      });
    },
    spend: (key, challenge) => open.get(key) === challenge && open.delete(key),
  };
}
