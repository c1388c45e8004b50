import {
  admitDidKey,
  formatTime,
  isRefusal,
  LIMITS,
  type Login,
  LOGIN_PAYLOAD_TYPE,
  type Member,
  type MembersBody,
  type MembersView,
  refuse,
  type Refusal,
  ROLES,
  verifySession,
  type WireEnvelope,
} from "@plumule/protocol";
import { unauthenticated } from "./access.ts";
import { createChallenges } from "./challenges.ts";
import type { NamespaceContext } from "./context.ts";
import { checkIfMatch } from "./core/settings.ts";
import { hashCredential, mintSession, sessionKey } from "./credentials.ts";
import { refuseProof } from "./sessions.ts";
import { deleteLogin, deleteLogins, insertLogin, readLogins, readMembers, saveMembers } from "./store/logins.ts";
import { endWatching } from "./watching.ts";

/** People who log in with a Radicle key: who they are, and their bearers. */
export type Logins = {
  getMembers(): MembersView;
  putMembers(call: {
    requestId?: string | undefined;
    actor: string;
    body: MembersBody;
    ifMatch: string | null;
  }): MembersView | Refusal;
  createLoginChallenge(call: { key: string; audience: string }): {
    challenge: string;
    audience: string;
    expiresAt: string;
  };
  createLogin(call: {
    requestId?: string | undefined;
    key: string;
    proof: WireEnvelope;
    audience: string;
  }): Promise<Login | Refusal>;
  endLogin(call: { requestId?: string | undefined; credential: string }): Promise<true | Refusal>;
};

/** Makes the logins of a namespace. Their bearers are stored as hashes, and a key that is no member any more has none. */
export function createLogins(context: NamespaceContext): Logins {
  const { sql } = context;
  const challenges = createChallenges("logins");
  const memberOf = (key: string): Member | undefined => readMembers(sql).members.find((member) => member.key === key);

  return {
    getMembers: () => readMembers(sql),

    putMembers({ requestId, actor, body, ifMatch }) {
      const current = readMembers(sql);
      const refused = checkIfMatch(ifMatch, current.version) ?? refuseMembers(body);
      if (refused !== null) return refused;
      const view = { version: current.version + 1, members: body.members };
      const kept = new Set(body.members.map((member) => JSON.stringify(member)));
      context.commit(actor, Date.now(), (emit, note) => {
        saveMembers(sql, view.version, body);
        note({ action: "members.changed", target: "members", requestId, before: current, after: view });
        for (const gone of current.members.filter((member) => !kept.has(JSON.stringify(member)))) {
          deleteLogins(sql, gone.key);
          endWatching(sql, gone.key);
        }
        emit({ type: "members.changed", subject: "members", data: { members: view } });
      });
      return view;
    },

    createLoginChallenge: ({ key, audience }) => challenges.make(key, memberOf(key) !== undefined, audience),

    async createLogin({ requestId, key, proof, audience }) {
      const open = challenges.open(key);
      if (isRefusal(open)) return open;
      const expected = { runner: key, audience, challenge: open.challenge };
      const proven = await verifySession(proof, expected, LOGIN_PAYLOAD_TYPE);
      if (!proven.ok) {
        context.refused.count("logins");
        return refuseProof(proven);
      }
      const { text, hash } = await mintSession("plu", key);
      const member = memberOf(key);
      if (member === undefined || !challenges.spend(key, open)) return unauthenticated();
      const now = Date.now();
      const expiresAt = now + LIMITS.loginMs;
      context.commit(key, now, (_, note) => {
        note({ action: "login.created", target: `members/${key}`, requestId });
        const live = readLogins(sql, key);
        const over = live.filter((login, at) => login.expiresAt <= now || at <= live.length - LIMITS.loginsPerMember);
        for (const login of over) deleteLogin(sql, key, login.hash);
        insertLogin(sql, { member: key, hash, expiresAt });
      });
      const { role, deployments } = member;
      const confined = deployments === undefined ? {} : { deployments };
      return { token: text, role, scopes: [ROLES[role]], ...confined, expiresAt: formatTime(expiresAt) };
    },

    async endLogin({ requestId, credential }) {
      const key = sessionKey("plu", credential);
      const hash = await hashCredential(credential);
      const ended =
        key !== null &&
        context.commit(key, Date.now(), (_, note) => {
          const found = deleteLogin(sql, key, hash);
          if (found) endWatching(sql, key);
          if (found) note({ action: "login.ended", target: `members/${key}`, requestId });
          return found;
        });
      return ended || refuse("wrong-state", "This credential is no login; a token is revoked by its id.");
    },
  };
}

/** Keys are admitted where they enter, and each is one member. */
function refuseMembers({ members }: MembersBody): Refusal | null {
  const seen = new Set<string>();
  for (const [at, { key }] of members.entries()) {
    const pointer = `/members/${at}/key`;
    const admitted = admitDidKey(key);
    if (!admitted.ok)
      return refuse("weak-key", `${key} cannot log in.`, { errors: [{ pointer, detail: admitted.detail }] });
    if (seen.has(key))
      return refuse("invalid-body", "A key is one member.", { errors: [{ pointer, detail: "is named twice" }] });
    seen.add(key);
  }
  return null;
}
