import {
  formatTime,
  LIMITS,
  type Millis,
  type PoolName,
  refuse,
  type Refusal,
  type RunnerId,
  verifySession,
  type WireEnvelope,
} from "@plumule/protocol";
import { unauthenticated } from "./access.ts";
import type { NamespaceContext } from "./context.ts";
import { mintSession, randomSecret } from "./credentials.ts";
import { deleteSession, findRunner, insertSession, isActive, readSessions } from "./store/runners.ts";

/** Sessions of one runner at a time: a restart or two within the life of a session, not a store of bearers. */
const SESSIONS_PER_RUNNER = 4;

/** The sessions of runners: a bearer for 15 minutes, for a signed challenge. */
export type Sessions = {
  createChallenge(call: { runner: RunnerId; audience: string }): {
    challenge: string;
    audience: string;
    expiresAt: string;
  };
  createSession(call: {
    runner: RunnerId;
    proof: WireEnvelope;
    audience: string;
  }): Promise<{ token: string; pool: PoolName; expiresAt: string } | Refusal>;
};

/** Makes the sessions. Challenges are in memory only, one per registered runner: one that an eviction loses is asked for again. */
export function createSessions(context: NamespaceContext): Sessions {
  const { sql } = context;
  const challenges = new Map<RunnerId, { challenge: string; expiresAt: Millis }>();
  return {
    createChallenge({ runner, audience }) {
      const now = Date.now();
      const open = challenges.get(runner);
      // Nobody has proved anything yet: a stranger who asks for a runner's challenge must not take it away from the runner.
      const fresh =
        open !== undefined && open.expiresAt - now > LIMITS.challengeMs / 2
          ? open
          : { challenge: randomSecret(), expiresAt: now + LIMITS.challengeMs };
      // An unknown runner is answered alike, but nothing is kept for it.
      if (isActive(findRunner(sql, runner))) challenges.set(runner, fresh);
      return { challenge: fresh.challenge, audience, expiresAt: formatTime(fresh.expiresAt) };
    },

    async createSession({ runner, proof, audience }) {
      const open = challenges.get(runner);
      if (open === undefined || open.expiresAt <= Date.now()) return noChallenge();
      const proven = await verifySession(proof, { runner, audience, challenge: open.challenge });
      if (!proven.ok)
        return refuse(
          proven.code === "weak-key" ? "weak-key" : "bad-signature",
          `The session is refused: ${proven.detail}.`,
        );
      const { text, hash } = await mintSession(runner);
      const found = findRunner(sql, runner);
      if (!isActive(found)) return unauthenticated();
      // Deleting it is what makes it serve once: a copy of the proof that was checked meanwhile finds none.
      if (challenges.get(runner) !== open) return noChallenge();
      challenges.delete(runner);
      const now = Date.now();
      const expiresAt = now + LIMITS.sessionMs;
      context.commit(runner, now, () => {
        const live = readSessions(sql, runner);
        const over = live.filter((session, at) => session.expiresAt <= now || at <= live.length - SESSIONS_PER_RUNNER);
        for (const session of over) deleteSession(sql, runner, session.hash);
        insertSession(sql, { runner, hash, expiresAt });
      });
      return { token: text, pool: found.pool, expiresAt: formatTime(expiresAt) };
    },
  };
}

function noChallenge(): Refusal {
  return refuse("unauthenticated", "There is no challenge for this runner, or its time is over.", {
    next: "Ask for a challenge: POST …/runners/session without `proof`.",
  });
}
