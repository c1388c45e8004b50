import {
  allowsScope,
  coversDeployment,
  type DeploymentId,
  formatTime,
  LIMITS,
  type Millis,
  type Principal,
  refuse,
  type Refusal,
  ROLES,
  type Scope,
  type TokenBody,
  type TokenCreated,
  type TokenView,
  type WsTicket,
} from "@plumule/protocol";
import type { Authorizer } from "./authorizer.ts";
import type { NamespaceContext } from "./context.ts";
import { credentialId, hashCredential, mintCredential, randomSecret, sameHash, sessionKey } from "./credentials.ts";
import { readLogins, readMembers } from "./store/logins.ts";
import { findRunner, isActive, readSessions } from "./store/runners.ts";
import { countTokens, deleteToken, findToken, insertToken, readTokens, type Token, tokenView } from "./store/tokens.ts";
import { noteWatching } from "./store/watching.ts";
import { endWatching } from "./watching.ts";

/** A caller that was found out, and until when (ms) that may be believed. */
export type Authenticated = { principal: Principal; until: Millis };

/** What a watcher shows: a bearer, or a ticket with the origin of the page that it is used in. */
export type AdmitCall = {
  show: { credential: string } | { ticket: string; origin: string | null };
  /** Where the socket is to be opened; null for the namespace's own stream. */
  deployment: DeploymentId | null;
};

/** Tokens, tickets and the question who is calling. */
export type Access = {
  authenticate(call: { credential: string }): Promise<Authenticated | Refusal>;
  /** Admits a watcher, and remembers where, so that its sockets end with its right. `until`: when it has to be admitted anew. */
  admit(call: AdmitCall): Promise<Authenticated | Refusal>;
  createTicket(call: {
    actor: string;
    scopes: readonly Scope[];
    deployments?: readonly string[] | undefined;
    origin: string | null;
  }): WsTicket | Refusal;
  createToken(call: {
    requestId?: string | undefined;
    actor: string;
    body: TokenBody;
  }): Promise<TokenCreated | Refusal>;
  listTokens(): TokenView[];
  revokeToken(call: { requestId?: string | undefined; actor: string; id: string }): true | Refusal;
};

/** What the actor of somebody whom the panel named begins with. */
const PANEL = "panel:";

/** One answer for every credential that opens nothing: unknown, malformed, expired and revoked look the same. */
export function unauthenticated(): Refusal {
  return refuse("unauthenticated", "This credential is not known here, has expired or was revoked.");
}

/** A caller, and when the right ends by itself (ms epoch). */
type Known = { principal: Principal; endsAt: Millis };

/** Access to a namespace. */
export function createAccess(context: NamespaceContext, authorizer: Authorizer): Access {
  const { sql } = context;
  const callers = createCallers(context, authorizer);
  const tickets = createTickets(context);
  return {
    ...tokens(context),
    createTicket: tickets.create,

    async authenticate({ credential }) {
      const known = await callers.find(credential);
      if (known === null) return unauthenticated();
      return { principal: known.principal, until: Math.min(Date.now() + LIMITS.credentialCacheMs, known.endsAt) };
    },

    async admit({ show, deployment }) {
      const known = "ticket" in show ? tickets.redeem(show) : await callers.find(show.credential);
      const now = Date.now();
      const endsAt = known === null ? null : callers.standing(known.principal.actor, now);
      if (known === null || endsAt === null) return unauthenticated();
      const { principal } = known;
      // A panel's answer is believed for seconds; its sockets are asked about again every few minutes, not with every event.
      const until = principal.actor.startsWith(PANEL)
        ? endsAt
        : Math.min(endsAt, known.endsAt, now + LIMITS.admissionMs);
      const isAdmitted =
        allowsScope(principal.scopes, "read") &&
        (principal.deployments === undefined ||
          (deployment !== null && coversDeployment(principal.deployments, deployment)));
      if (isAdmitted && principal.actor !== "admin")
        context.commit(principal.actor, now, () => noteWatching(sql, principal.actor, deployment ?? "", until));
      return { principal, until };
    },
  };
}

/** Who holds a credential, and whether whoever acted as `actor` still may. */
function createCallers(
  { sql, namespace }: NamespaceContext,
  authorizer: Authorizer,
): {
  find(credential: string): Promise<Known | null>;
  /** When the right of an actor ends; null when it has ended. */
  standing(actor: string, now: Millis): Millis | null;
} {
  const byToken = async (credential: string, id: string, now: Millis): Promise<Known | null> => {
    const hash = await hashCredential(credential);
    const token = findToken(sql, id);
    if (token === null || !sameHash(token.hash, hash) || isOver(token, now)) return null;
    const { scopes, deployments } = token;
    const principal: Principal = { kind: "token", actor: `token:${id}`, namespace, scopes, ...confined(deployments) };
    return { principal, endsAt: token.expiresAt ?? Number.POSITIVE_INFINITY };
  };

  const bySession = async (credential: string, id: string, now: Millis): Promise<Known | null> => {
    const hash = await hashCredential(credential);
    const session = readSessions(sql, id).find((one) => sameHash(one.hash, hash));
    const runner = findRunner(sql, id);
    if (session === undefined || session.expiresAt <= now || !isActive(runner)) return null;
    const principal: Principal = { kind: "runner", actor: id, runner: id, pool: runner.pool, namespace, scopes: [] };
    return { principal, endsAt: session.expiresAt };
  };

  const byLogin = async (credential: string, key: string, now: Millis): Promise<Known | null> => {
    const hash = await hashCredential(credential);
    const login = readLogins(sql, key).find((one) => sameHash(one.hash, hash));
    const member = readMembers(sql).members.find((one) => one.key === key);
    if (login === undefined || login.expiresAt <= now || member === undefined) return null;
    const { role, deployments } = member;
    const scopes = [ROLES[role]];
    return {
      principal: { kind: "token", actor: key, namespace, scopes, ...confined(deployments) },
      endsAt: login.expiresAt,
    };
  };

  /** A credential of another make is the panel's, if there is one. What has the form of one of ours never leaves the broker. */
  const byPanel = async (credential: string): Promise<Known | null> => {
    const found = /^pl[a-z]_/.test(credential) ? null : await authorizer.identify(credential);
    if (found === null) return null;
    const { actor, scopes = [], role, deployments, ask = false, until } = found;
    const may = role === undefined ? scopes : [ROLES[role]];
    const principal: Principal = {
      kind: "token",
      actor: `${PANEL}${actor}`,
      namespace,
      scopes: may,
      ...confined(deployments),
      ...(ask ? { ask } : {}),
    };
    return { principal, endsAt: until };
  };

  return {
    async find(credential) {
      const now = Date.now();
      const token = credentialId("plm", credential);
      const runner = sessionKey("pls", credential);
      const member = sessionKey("plu", credential);
      if (token !== null) return byToken(credential, token, now);
      if (runner !== null) return bySession(credential, runner, now);
      return member === null ? byPanel(credential) : byLogin(credential, member, now);
    },

    standing: (actor, now) => standing(sql, actor, now),
  };
}

/** When the right of whoever acted as `actor` ends; null when it has ended. */
function standing(sql: SqlStorage, actor: string, now: Millis): Millis | null {
  if (actor === "admin") return Number.POSITIVE_INFINITY;
  if (actor.startsWith(PANEL)) return now + LIMITS.authorizerCacheMs;
  const id = /^token:(.*)$/.exec(actor)?.[1];
  const token = id === undefined ? null : findToken(sql, id);
  if (id !== undefined) return token === null || isOver(token, now) ? null : (token.expiresAt ?? Infinity);
  const last = readLogins(sql, actor).at(-1);
  return last === undefined || last.expiresAt <= now ? null : last.expiresAt;
}

/** A principal's confinement, left out where there is none. */
function confined(deployments: readonly string[] | null | undefined): { deployments?: readonly string[] } {
  return deployments == null ? {} : { deployments };
}

type Ticket = Known & { origin: string | null };

/** Tickets are in memory only: one that an eviction loses is asked for again. */
function createTickets({ namespace }: NamespaceContext): {
  create: Access["createTicket"];
  redeem(call: { ticket: string; origin: string | null }): Known | null;
} {
  const open = new Map<string, Ticket>();
  return {
    create({ actor, scopes, deployments, origin }) {
      const now = Date.now();
      // Oldest first, as a Map keeps them: the first that is not over ends the search.
      for (const [text, { endsAt }] of open) {
        if (endsAt > now) break;
        open.delete(text);
      }
      if (open.size >= LIMITS.sockets)
        return refuse("rate-limited", `${LIMITS.sockets} tickets wait to be used.`, {
          headers: { "Retry-After": "30" },
        });
      const ticket = randomSecret();
      const endsAt = now + LIMITS.ticketMs;
      const principal: Principal = { kind: "token", actor, namespace, scopes, ...confined(deployments) };
      open.set(ticket, { principal, origin, endsAt });
      return { ticket, expiresAt: formatTime(endsAt) };
    },

    redeem({ ticket, origin }) {
      const found = open.get(ticket);
      open.delete(ticket);
      if (found === undefined || found.endsAt <= Date.now() || found.origin !== origin) return null;
      return { principal: found.principal, endsAt: Number.POSITIVE_INFINITY };
    },
  };
}

function tokens(context: NamespaceContext): Pick<Access, "createToken" | "listTokens" | "revokeToken"> {
  const { sql } = context;
  return {
    async createToken({ requestId, actor, body }) {
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
        scopes: body.role === undefined ? [...new Set(body.scopes)] : [ROLES[body.role]],
        role: body.role ?? null,
        deployments: body.deployments ?? null,
        createdAt: now,
        createdBy: actor,
        expiresAt,
      };
      context.commit(actor, now, (emit, note) => {
        insertToken(sql, token);
        note({ action: "token.created", target: `tokens/${id}`, requestId, after: tokenView(token) });
        emit({ type: "token.created", subject: `tokens/${id}`, data: { token: tokenView(token) } });
      });
      return { ...tokenView(token), token: text };
    },

    listTokens: () => readTokens(sql).map(tokenView),

    revokeToken({ requestId, actor, id }) {
      const token = findToken(sql, id);
      if (token === null) return refuse("not-found", `There is no token ${id}.`);
      context.commit(actor, Date.now(), (emit, note) => {
        deleteToken(sql, id);
        note({ action: "token.revoked", target: `tokens/${id}`, requestId, before: tokenView(token) });
        endWatching(sql, `token:${id}`);
        emit({ type: "token.revoked", subject: `tokens/${id}`, data: { token: tokenView(token) } });
      });
      return true;
    },
  };
}

function isOver({ expiresAt }: Token, now: Millis): boolean {
  return expiresAt !== null && expiresAt <= now;
}
