import {
  formatTime,
  LIMITS,
  type Millis,
  type Principal,
  refuse,
  type Refusal,
  type Scope,
  type TokenBody,
  type TokenCreated,
  type TokenView,
  type WsTicket,
} from "@plumule/protocol";
import type { NamespaceContext } from "./context.ts";
import { credentialId, hashCredential, mintCredential, randomSecret, sameHash, sessionRunner } from "./credentials.ts";
import { findRunner, readSessions } from "./store/runners.ts";
import { countTokens, deleteToken, findToken, insertToken, readTokens, type Token, tokenView } from "./store/tokens.ts";

/** A caller that was found out, and until when (ms) that may be believed. */
export type Authenticated = { principal: Principal; until: Millis };

/** Tokens, tickets and the question who is calling. */
export type Access = {
  authenticate(call: { credential: string }): Promise<Authenticated | Refusal>;
  createTicket(call: { actor: string; scopes: readonly Scope[]; origin: string | null }): WsTicket | Refusal;
  redeemTicket(call: { ticket: string; origin: string | null }): Principal | Refusal;
  createToken(call: { actor: string; body: TokenBody }): Promise<TokenCreated | Refusal>;
  listTokens(): TokenView[];
  revokeToken(call: { actor: string; id: string }): true | Refusal;
};

/** One answer for every credential that opens nothing: unknown, malformed, expired and revoked look the same. */
export function unauthenticated(): Refusal {
  return refuse("unauthenticated", "This credential is not known here, has expired or was revoked.");
}

type Ticket = { principal: Principal; origin: string | null; expiresAt: Millis };

/** Access to a namespace. Tickets are in memory only: one that an eviction loses is asked for again. */
export function createAccess(context: NamespaceContext): Access {
  return { ...authentication(context), ...tickets(context), ...tokens(context) };
}

function authentication({ sql, namespace }: NamespaceContext): Pick<Access, "authenticate"> {
  const byToken = async (credential: string, id: string, now: Millis): Promise<Authenticated | Refusal> => {
    const hash = await hashCredential(credential);
    const token = findToken(sql, id);
    if (token === null || !sameHash(token.hash, hash) || isOver(token, now)) return unauthenticated();
    const until = Math.min(now + LIMITS.credentialCacheMs, token.expiresAt ?? Number.POSITIVE_INFINITY);
    return { principal: { kind: "token", actor: `token:${id}`, namespace, scopes: token.scopes }, until };
  };

  const bySession = async (credential: string, id: string, now: Millis): Promise<Authenticated | Refusal> => {
    const hash = await hashCredential(credential);
    const session = readSessions(sql, id).find((one) => sameHash(one.hash, hash));
    const runner = findRunner(sql, id);
    if (session === undefined || session.expiresAt <= now || runner === null || runner.revokedAt !== null)
      return unauthenticated();
    const until = Math.min(now + LIMITS.credentialCacheMs, session.expiresAt);
    return { principal: { kind: "runner", actor: id, runner: id, pool: runner.pool, namespace, scopes: [] }, until };
  };

  return {
    async authenticate({ credential }) {
      const now = Date.now();
      const token = credentialId("plm", credential);
      if (token !== null) return byToken(credential, token, now);
      const runner = sessionRunner(credential);
      return runner === null ? unauthenticated() : bySession(credential, runner, now);
    },
  };
}

function tickets({ namespace }: NamespaceContext): Pick<Access, "createTicket" | "redeemTicket"> {
  const open = new Map<string, Ticket>();
  return {
    createTicket({ actor, scopes, origin }) {
      const now = Date.now();
      // Oldest first, as a Map keeps them: the first that is not over ends the search.
      for (const [text, { expiresAt }] of open) {
        if (expiresAt > now) break;
        open.delete(text);
      }
      if (open.size >= LIMITS.sockets)
        return refuse("rate-limited", `${LIMITS.sockets} tickets wait to be used.`, {
          headers: { "Retry-After": "30" },
        });
      const ticket = randomSecret();
      const expiresAt = now + LIMITS.ticketMs;
      open.set(ticket, { principal: { kind: "token", actor, namespace, scopes }, origin, expiresAt });
      return { ticket, expiresAt: formatTime(expiresAt) };
    },

    redeemTicket({ ticket, origin }) {
      const found = open.get(ticket);
      open.delete(ticket);
      if (found === undefined || found.expiresAt <= Date.now() || found.origin !== origin) return unauthenticated();
      return found.principal;
    },
  };
}

function tokens(context: NamespaceContext): Pick<Access, "createToken" | "listTokens" | "revokeToken"> {
  const { sql } = context;
  return {
    async createToken({ actor, body }) {
      const now = Date.now();
      const expiresAt = body.expiresAt === undefined ? null : Date.parse(body.expiresAt);
      if (expiresAt !== null && expiresAt <= now)
        return refuse("invalid-body", "The token would have expired already.", {
          errors: [{ pointer: "/expiresAt", detail: `is not after ${formatTime(now)}` }],
        });
      const { id, text, hash } = await mintCredential("plm");
      if (countTokens(sql) >= LIMITS.tokens)
        return refuse("quota-exceeded", `There are ${LIMITS.tokens} tokens, which is the limit.`);
      const token: Token = {
        id,
        hash,
        name: body.name,
        scopes: [...new Set(body.scopes)],
        createdAt: now,
        createdBy: actor,
        expiresAt,
      };
      context.commit(actor, now, (emit) => {
        insertToken(sql, token);
        emit({ type: "token.created", subject: `tokens/${id}`, data: { token: tokenView(token) } });
      });
      return { ...tokenView(token), token: text };
    },

    listTokens: () => readTokens(sql).map(tokenView),

    revokeToken({ actor, id }) {
      const token = findToken(sql, id);
      if (token === null) return refuse("not-found", `There is no token ${id}.`);
      context.commit(actor, Date.now(), (emit) => {
        deleteToken(sql, id);
        emit({ type: "token.revoked", subject: `tokens/${id}`, data: { token: tokenView(token) } });
      });
      return true;
    },
  };
}

function isOver({ expiresAt }: Token, now: Millis): boolean {
  return expiresAt !== null && expiresAt <= now;
}
