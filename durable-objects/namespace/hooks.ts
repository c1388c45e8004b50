import {
  type DeliveryView,
  isRefusal,
  LIMITS,
  type Millis,
  parseJson,
  type Push,
  refuse,
  type Refusal,
  type TriggersTest,
  refKeyOf,
  planJobs,
} from "@plumule/protocol";
import type { Page, RawHook } from "./calls.ts";
import type { NamespaceContext } from "./context.ts";
import { withPolicySigners } from "./core/hooks.ts";
import { type Move, type Place, placePush, withBelievedPaths } from "./core/order.ts";
import { formatPosition, parsePosition } from "./core/positions.ts";
import { type HookEvent, readHookBody } from "./core/push.ts";
import { ignored, NO_RULES, plan, testedPlan } from "./delivery-jobs.ts";
import { type DeliveryKeys, keysOf } from "./delivery-keys.ts";
import { type VerifiedHook, verifyHook } from "./hook-verify.ts";
import { tellOfDelivery } from "./statuses.ts";
import {
  type Delivery,
  deliveryView,
  findDelivery,
  insertDelivery,
  moveOf,
  readDeliveries,
  readMoves,
  updateDelivery,
} from "./store/deliveries.ts";
import { readTriggers, readTrust } from "./store/settings.ts";

/** Webhooks in, and what became of them. */
export type Hooks = {
  receive(call: RawHook): Promise<{ status: 200 | 202; delivery: DeliveryView } | Refusal>;
  /** What the rules would make of a webhook's body, by the steps of `receive` behind its signature. Changes nothing. */
  test(call: { event: Record<string, unknown>; audience: string }): TriggersTest | Refusal;
  listDeliveries(call: { cursor: string | null; limit: number }): Page<DeliveryView> | Refusal;
  redeliver(call: { actor: string; id: string }): DeliveryView | Refusal;
};

/** Makes the hooks. Jobs are handed over by the outbox (`delivery-jobs.ts`), after the delivery is stored. */
export function createHooks(context: NamespaceContext): Hooks {
  const { sql } = context;
  return {
    async receive(call) {
      const now = Date.now();
      const verified = await verifyHook(withPolicySigners(readTriggers(sql).hooks, readTrust(sql)), call, now);
      if (isRefusal(verified)) {
        if (verified.refused === "bad-signature") context.refused.count("hooks");
        return verified;
      }
      const json = parseJson(call.body);
      if (isRefusal(json)) return json;
      const eventType = call.headers["x-radicle-event-type"] ?? call.headers["x-github-event"] ?? null;
      const event = readHookBody(json.value, {
        eventType,
        audience: call.audience,
        signedByKey: verified.secret === null,
      });
      if (isRefusal(event)) return event;
      const keys = await keysOf(verified, event, call.body);
      return store(context, verified, event, keys, now);
    },

    test({ event, audience }) {
      const read = readHookBody({ audience, ...event }, { eventType: null, audience, signedByKey: false });
      if (isRefusal(read)) return read;
      const { version, triggers, hooks: _, ...beside } = readTriggers(sql);
      if (read.kind === "other") return { version, push: null, detail: read.detail, results: [] };
      const earlier = earlierMoves(context, read.push, Date.now());
      // Whoever makes up a push to see what its paths do need not know where the ref is.
      const push = read.push.before == null ? read.push : withBelievedPaths(read.push, earlier);
      // Numbers compare with those of the same sender, and nobody has sent this one.
      const placed = placePush(moveOf({ id: "", signer: "", state: "accepted" }, push), earlier);
      const detail = placed.place === "newest" ? (triggers.length === 0 ? NO_RULES : null) : whyNotNew(placed);
      return { version, push, detail, results: planJobs(push, triggers, beside).map(testedPlan) };
    },

    listDeliveries({ cursor, limit }) {
      const position = parsePosition("deliveries", cursor);
      if (isRefusal(position)) return position;
      const before = position.key === null ? null : Number(position.key);
      if (before !== null && !Number.isSafeInteger(before))
        return refuse("invalid-cursor", "This is not a cursor of the list of deliveries.");
      const found = readDeliveries(sql, before, limit + 1);
      const page = found.slice(0, limit);
      const last = found.length > limit ? page.at(-1) : undefined;
      return {
        items: page.map(({ delivery }) => deliveryView(delivery)),
        nextCursor: last === undefined ? null : formatPosition("deliveries", String(last.number)),
      };
    },

    redeliver({ actor, id }) {
      const delivery = findDelivery(sql, id);
      if (delivery === null) return refuse("not-found", `There is no delivery ${id}.`);
      if (delivery.push === null)
        return refuse("wrong-state", `The delivery was of the type ${delivery.type}, which starts no job.`);
      if (delivery.state === "accepted")
        return refuse("wrong-state", "Jobs of the delivery are still on their way.", {
          next: "Look at the delivery again in a moment.",
        });
      const { push } = delivery;
      const now = Date.now();
      return context.commit(actor, now, (emit) => {
        const status = delivery.status === null ? null : { ...delivery.status, as: null, state: null };
        updateDelivery(sql, plan(context, { ...delivery, status, round: delivery.round + 1 }, push, now));
        tellOfDelivery(context, id, now);
        const again = deliveryView(findDelivery(sql, id) ?? delivery);
        emit({ type: "delivery.received", subject: `deliveries/${id}`, data: { delivery: again } });
        return again;
      });
    },
  };
}

/** From here on nothing is awaited: of many copies at once the first is stored and the others find it. */
function store(
  context: NamespaceContext,
  verified: VerifiedHook,
  event: HookEvent,
  keys: DeliveryKeys,
  now: Millis,
): { status: 200 | 202; delivery: DeliveryView } | Refusal {
  const { sql } = context;
  const known = findDelivery(sql, keys.id);
  if (known !== null)
    return known.bodySha256 === keys.bodySha256
      ? { status: 200, delivery: deliveryView(known) }
      : refuse("idempotency-mismatch", `The webhook id ${keys.webhookId} came before with another body.`, {
          next: "Give every webhook an id of its own; repeat one with the same bytes only.",
        });
  const { hook, signer } = verified;
  const { id, webhookId, bodySha256 } = keys;
  const fresh = { id, hook, signer, webhookId, bodySha256, receivedAt: now, round: 0, state: "ignored" as const };
  return context.commit(`hook:${hook}`, now, (emit) => {
    const delivery: Delivery =
      event.kind === "push"
        ? handle(context, { ...fresh, ...pushParts(event, verified), results: [] }, event.push, now)
        : {
            ...fresh,
            type: event.type.slice(0, LIMITS.nameCharacters),
            push: null,
            refKey: null,
            results: [ignored("*", event.detail)],
            status: null,
          };
    insertDelivery(sql, delivery);
    tellOfDelivery(context, delivery.status?.as ?? id, now);
    // What is told of the commit, if anything, stands in the row by now.
    const stored = deliveryView(findDelivery(sql, id) ?? delivery);
    emit({ type: "delivery.received", subject: `deliveries/${id}`, data: { delivery: stored } });
    return { status: 202, delivery: stored };
  });
}

function pushParts(
  { push, status }: Extract<HookEvent, { kind: "push" }>,
  { secret }: VerifiedHook,
): Pick<Delivery, "type" | "push" | "refKey" | "status"> {
  return {
    type: push.type,
    push,
    refKey: refKeyOf(push),
    status:
      status === null || secret === null
        ? null
        : { target: status, secret, as: null, state: null, detail: "not told yet" },
  };
}

/** A copy of a push, and one that is older than what the ref has seen, start nothing. */
function handle(context: NamespaceContext, fresh: Delivery, sent: Push, now: Millis): Delivery {
  const earlier = earlierMoves(context, sent, now);
  const push = withBelievedPaths(sent, earlier);
  // As it is stored it is read again, by whoever redelivers it when the ref has moved on.
  const delivery = { ...fresh, push };
  const placed = placePush(moveOf(delivery, push), earlier);
  switch (placed.place) {
    case "newest":
      return plan(context, delivery, push, now);
    case "same":
      return {
        ...delivery,
        state: "duplicate",
        results: [ignored("*", whyNotNew(placed))],
        status: delivery.status === null ? null : { ...delivery.status, as: placed.as },
      };
    case "late":
      return {
        ...delivery,
        results: [ignored("*", whyNotNew(placed))],
      };
  }
}

function earlierMoves({ sql }: NamespaceContext, push: Push, now: Millis): Move[] {
  return readMoves(sql, refKeyOf(push), now - LIMITS.deliveryDedupeMs);
}

function whyNotNew({ place, as }: Exclude<Place, { place: "newest" }>): string {
  return place === "same"
    ? `the same push came as delivery ${as}`
    : `the ref has moved on: delivery ${as} is a newer push of it; redeliver to run this one`;
}
