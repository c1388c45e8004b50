import {
  type DrainBody,
  formatTime,
  formatTimeOrNull,
  LIMITS,
  type Millis,
  type PoolName,
  refuse,
  type Refusal,
  type RegistrationToken,
  type RunnerId,
  type RunnerView,
  verifyRegistration,
  type WireEnvelope,
} from "@plumule/protocol";
import { poolObject } from "../shared/names.ts";
import { unauthenticated } from "./access.ts";
import { bounded } from "./bounded.ts";
import type { Page } from "./calls.ts";
import type { DrainOrder, Presence } from "../pool/calls.ts";
import type { NamespaceContext } from "./context.ts";
import { formatPosition, parsePosition } from "./core/positions.ts";
import { credentialId, hashCredential, mintCredential, sameHash } from "./credentials.ts";
import { dismissRunner } from "./dismissal.ts";
import type { Courier } from "./outbox.ts";
import { insertOutbox } from "./store/outbox.ts";
import { findRecipient } from "./store/secrets.ts";
import {
  countRegistrations,
  countRunners,
  deleteRegistration,
  deleteSessions,
  findRegistration,
  findRunner,
  insertRegistration,
  isActive,
  readRunners,
  type Runner,
  saveRunner,
} from "./store/runners.ts";

/** A runner that was not heard of for so long is shown as offline, ms: two polls and some. */
const OFFLINE_MS = 60_000;
/** Pools that one page of the fleet asks. */
const POOLS_ASKED = 16;

/** The runners of a namespace. */
export type Fleet = {
  createRegistration(call: {
    requestId?: string | undefined;
    actor: string;
    pool: PoolName;
  }): Promise<RegistrationToken | Refusal>;
  registerRunner(call: {
    requestId?: string | undefined;
    token: string;
    name: string;
    proof: WireEnvelope;
    audience: string;
  }): Promise<RunnerView | Refusal>;
  listRunners(call: { cursor: string | null; limit: number }): Promise<Page<RunnerView> | Refusal>;
  /** The pools learn of both from the outbox (`runnerCourier`). */
  drainRunner(call: {
    requestId?: string | undefined;
    actor: string;
    runner: RunnerId;
    drained: boolean;
    how?: DrainBody;
  }): RunnerView | Refusal;
  revokeRunner(call: { requestId?: string | undefined; actor: string; runner: RunnerId }): RunnerView | Refusal;
};

/** Makes the fleet. */
export function createFleet(context: NamespaceContext): Fleet {
  return { ...registrations(context), ...management(context) };
}

function registrations(context: NamespaceContext): Pick<Fleet, "createRegistration" | "registerRunner"> {
  const { sql } = context;
  return {
    async createRegistration({ requestId, actor, pool }) {
      const { id, text, hash } = await mintCredential("plr");
      const now = Date.now();
      if (countRegistrations(sql) >= LIMITS.tokens)
        return refuse("quota-exceeded", `${LIMITS.tokens} registration tokens wait to be used.`);
      const expiresAt = now + LIMITS.registrationMs;
      context.commit(actor, now, (_, note) => {
        insertRegistration(sql, { id, hash, pool, expiresAt });
        note({ action: "registration.created", target: `registrations/${id}`, requestId, detail: `pool ${pool}` });
      });
      return { token: text, pool, expiresAt: formatTime(expiresAt) };
    },

    async registerRunner({ requestId, token, name, proof, audience }) {
      const id = credentialId("plr", token);
      const hash = await hashCredential(token);
      const now = Date.now();
      if (id === null || !isUsable(context, id, hash, now)) return unauthenticated();
      const proven = await verifyRegistration(proof, { audience, tokenSha256: hash, nowMs: now });
      if (!proven.ok) {
        context.refused.count("runners");
        return refuse(
          proven.code === "weak-key" ? "weak-key" : "bad-signature",
          `The registration is refused: ${proven.detail}.`,
        );
      }
      // The token is looked at again: while the signature was checked, another registration may have used it.
      const registration = findRegistration(sql, id);
      if (registration === null) return unauthenticated();
      const known = findRunner(sql, proven.value.runner);
      if (known !== null && known.revokedAt !== null)
        return refuse("forbidden", "This key was revoked.", { next: "Make a new key: `plumule key new`." });
      if (known === null && countRunners(sql) >= LIMITS.runners)
        return refuse("quota-exceeded", `There are ${LIMITS.runners} runners, which is the limit.`);
      const runner: Runner = {
        id: proven.value.runner,
        name,
        pool: registration.pool,
        drained: known?.drained ?? false,
        order: known?.order ?? null,
        registeredAt: known?.registeredAt ?? now,
        revokedAt: null,
      };
      context.commit(runner.id, now, (emit, note) => {
        deleteRegistration(sql, id);
        saveRunner(sql, runner);
        const detail = `with the registration ${id}, in the pool ${runner.pool}`;
        note({ action: "runner.registered", target: `runners/${runner.id}`, requestId, detail });
        if (known !== null && known.pool !== runner.pool)
          for (const pool of [known.pool, runner.pool]) tellPool(context, runner.id, pool, now);
        emit({
          type: "runner.registered",
          subject: `runners/${runner.id}`,
          data: { runner: runnerView(runner, null, now) },
        });
      });
      return runnerView(runner, null, now);
    },
  };
}

/** A registration token that was made here, is not used and not over. */
function isUsable({ sql }: NamespaceContext, id: string, hash: string, now: Millis): boolean {
  const registration = findRegistration(sql, id);
  return registration !== null && sameHash(registration.hash, hash) && registration.expiresAt > now;
}

function management(context: NamespaceContext): Pick<Fleet, "listRunners" | "drainRunner" | "revokeRunner"> {
  const { sql } = context;
  return {
    async listRunners({ cursor, limit }) {
      const position = parsePosition("runners", cursor);
      if ("refused" in position) return position;
      const found = readRunners(sql, position.key, limit + 1);
      const runners = found.slice(0, limit);
      const presence = await readPresence(context, runners);
      const now = Date.now();
      const last = found.length > limit ? runners.at(-1) : undefined;
      return {
        items: runners.map((runner) => {
          const recipient = findRecipient(sql, runner.id);
          const view = runnerView(runner, presence.get(runner.id) ?? null, now);
          return recipient === null ? view : { ...view, recipient };
        }),
        nextCursor: last === undefined ? null : formatPosition("runners", last.id),
      };
    },

    drainRunner({ requestId, actor, runner: id, drained, how = {} }) {
      const runner = findRunner(sql, id);
      if (runner === null) return refuse("not-found", `There is no runner ${id}.`);
      if (runner.revokedAt !== null) return refuse("wrong-state", "The runner was revoked.");
      const now = Date.now();
      const order = orderOf(runner, drained ? how : null, now);
      const changed = { ...runner, drained, order };
      if (runner.drained !== drained || order !== runner.order)
        context.commit(actor, now, (emit, note) => {
          saveRunner(sql, changed);
          note({ action: drained ? "runner.drained" : "runner.undrained", target: `runners/${id}`, requestId });
          tellPool(context, id, runner.pool, now);
          emit({
            type: drained ? "runner.drained" : "runner.undrained",
            subject: `runners/${id}`,
            data: { runner: runnerView(changed, null, now) },
          });
        });
      return runnerView(changed, null, now);
    },

    revokeRunner({ requestId, actor, runner: id }) {
      const runner = findRunner(sql, id);
      if (runner === null) return refuse("not-found", `There is no runner ${id}.`);
      const now = Date.now();
      const revoked = { ...runner, revokedAt: runner.revokedAt ?? now };
      if (runner.revokedAt === null)
        context.commit(actor, now, (emit, note) => {
          saveRunner(sql, revoked);
          note({ action: "runner.revoked", target: `runners/${id}`, requestId });
          deleteSessions(sql, id);
          dismissRunner(context, actor, id, now);
          tellPool(context, id, runner.pool, now);
          emit({ type: "runner.revoked", subject: `runners/${id}`, data: { runner: runnerView(revoked, null, now) } });
        });
      return runnerView(revoked, null, now);
    },
  };
}

function tellPool({ sql }: NamespaceContext, runner: RunnerId, pool: PoolName, now: Millis): void {
  insertOutbox(sql, "runner", { runner, pool }, now);
}

/** Tells a pool what holds for a runner at this moment, so that an old row cannot undo a newer change. */
export function runnerCourier({ sql, env, namespace }: NamespaceContext): Courier {
  return {
    async deliver(payload) {
      const { runner: id, pool } = JSON.parse(payload) as { runner: RunnerId; pool: PoolName };
      const runner = findRunner(sql, id);
      const object = poolObject(env, namespace, pool);
      if (isActive(runner) && runner.pool === pool)
        await bounded(object.setDrained({ runner: id, drained: runner.drained, order: runner.order }));
      else await bounded(object.forget({ runner: id }));
      return () => undefined;
    },
    park: () => undefined,
  };
}

/** What the pools of these runners see now. A pool that fails leaves its runners offline; the list is answered all the same. */
async function readPresence(
  { env, namespace }: NamespaceContext,
  runners: readonly Runner[],
): Promise<Map<RunnerId, Presence>> {
  const pools = [...new Set(runners.map(({ pool }) => pool))].slice(0, POOLS_ASKED);
  const answers = await Promise.allSettled(pools.map((pool) => bounded(poolObject(env, namespace, pool).presence())));
  const seen = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
  return new Map(seen.map((presence) => [presence.runner, presence]));
}

function runnerView(runner: Runner, presence: Presence | null, now: Millis): RunnerView {
  const online =
    runner.revokedAt === null && presence !== null && (presence.parked || now - presence.seenAt <= OFFLINE_MS);
  return {
    id: runner.id,
    name: runner.name,
    pool: runner.pool,
    state: online ? "online" : "offline",
    drained: runner.drained,
    drain: runner.drained ? drainView(runner.order?.drain ?? null) : null,
    revoked: runner.revokedAt !== null,
    offer: presence?.offer ?? null,
    protocol: presence?.protocol ?? null,
    busy: presence?.busy ?? 0,
    registeredAt: formatTime(runner.registeredAt),
    seenAt: formatTimeOrNull(presence?.seenAt ?? null),
  };
}

/**
 * The order that a runner is to have: its own when nothing changes, else a new one, numbered by the clock so that a runner never sees a smaller
 * number than one that it has heard of. `how` null: it may work again.
 */
function orderOf({ order }: Runner, how: DrainBody | null, now: Millis): DrainOrder | null {
  const drain =
    how === null
      ? null
      : {
          note: how.note ?? null,
          deadlineAt: how.deadlineMs === undefined ? null : now + how.deadlineMs,
          end: how.end ?? "wait",
        };
  if (JSON.stringify(order?.drain ?? null) === JSON.stringify(drain)) return order;
  return { number: Math.max(now, (order?.number ?? 0) + 1), drain };
}

function drainView(drain: DrainOrder["drain"]): RunnerView["drain"] {
  return drain === null ? null : { ...drain, deadlineAt: formatTimeOrNull(drain.deadlineAt) };
}
