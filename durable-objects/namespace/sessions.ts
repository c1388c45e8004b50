import {
  formatTime,
  isRefusal,
  LIMITS,
  type PoolName,
  type ProofRefusal,
  refuse,
  type Refusal,
  type RunnerId,
  verifySession,
  type WireEnvelope,
} from "@plumule/protocol";
import { unauthenticated } from "./access.ts";
import type { NamespaceContext } from "./context.ts";
import { createChallenges } from "./challenges.ts";
import { mintSession } from "./credentials.ts";
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

/** Makes the sessions. There is a challenge for registered runners alone. */
export function createSessions(context: NamespaceContext): Sessions {
  const { sql } = context;
  const challenges = createChallenges("runners/session");
  return {
    createChallenge: ({ runner, audience }) => challenges.make(runner, isActive(findRunner(sql, runner)), audience),

    async createSession({ runner, proof, audience }) {
      const open = challenges.open(runner);
      if (isRefusal(open)) return open;
      const proven = await verifySession(proof, { runner, audience, challenge: open.challenge });
      if (!proven.ok) {
        context.refused.count("runners/session");
        return refuseProof(proven);
      }
      const { text, hash } = await mintSession("pls", runner);
      const found = findRunner(sql, runner);
      if (!isActive(found) || !challenges.spend(runner, open)) return unauthenticated();
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

/** Why a proof makes no session. */
export function refuseProof({ code, detail }: { code: ProofRefusal; detail: string }): Refusal {
  return refuse(code === "weak-key" ? "weak-key" : "bad-signature", `The session is refused: ${detail}.`);
}
