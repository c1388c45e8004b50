import {
  type DeliveryView,
  isRefusal,
  LIMITS,
  type Millis,
  parseJson,
  type Push,
  refuse,
  type Refusal,
  sha256Hex,
  type SubmitBody,
  utf8,
} from "@plumule/protocol";
import { deploymentObject } from "../shared/names.ts";
import { bounded } from "./bounded.ts";
import type { Page, RawHook } from "./calls.ts";
import type { NamespaceContext } from "./context.ts";
import { formatPosition, parsePosition } from "./core/positions.ts";
import { type HookEvent, readHookBody } from "./core/push.ts";
import { isTransient } from "./core/retry.ts";
import { planJobs, type Plan } from "./core/triggers.ts";
import { type DeliveryKeys, keysOf } from "./delivery-keys.ts";
import { type VerifiedHook, verifyHook } from "./hook-verify.ts";
import type { Courier } from "./outbox.ts";
import {
  type Delivery,
  type DeliveryResult,
  deliveryView,
  findDelivery,
  findSamePush,
  insertDelivery,
  readDeliveries,
  updateDelivery,
} from "./store/deliveries.ts";
import { fillSecrets } from "./secrets.ts";
import { insertOutbox } from "./store/outbox.ts";
import { readTriggers } from "./store/settings.ts";

/** Webhooks in, and what became of them. */
export type Hooks = {
  receive(call: RawHook): Promise<{ status: 200 | 202; delivery: DeliveryView } | Refusal>;
  listDeliveries(call: { cursor: string | null; limit: number }): Page<DeliveryView> | Refusal;
  redeliver(call: { actor: string; id: string }): DeliveryView | Refusal;
};

/** A job on its way to its deployment. The idempotency key makes it one job, however often it is handed over. */
type Submission = {
  delivery: string;
  round: number;
  trigger: string;
  hook: string;
  deployment: string;
  body: SubmitBody;
};

/** Makes the hooks. Jobs are handed over by the outbox (`submitCourier`), after the delivery is stored. */
export function createHooks(context: NamespaceContext): Hooks {
  const { sql } = context;
  return {
    async receive(call) {
      const now = Date.now();
      const verified = await verifyHook(readTriggers(sql).hooks, call, now);
      if (isRefusal(verified)) return verified;
      const json = parseJson(call.body);
      if (isRefusal(json)) return json;
      const eventType = call.headers["x-radicle-event-type"] ?? call.headers["x-github-event"] ?? null;
      const event = readHookBody(json.value, { eventType, audience: call.audience, signedByKey: verified.signedByKey });
      if (isRefusal(event)) return event;
      const keys = await keysOf(verified, event, call.body);
      return store(context, verified, event, keys, now);
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
        const again = plan(context, { ...delivery, round: delivery.round + 1 }, push, now);
        updateDelivery(sql, again);
        emit({ type: "delivery.received", subject: `deliveries/${id}`, data: { delivery: deliveryView(again) } });
        return deliveryView(again);
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
  const delivery: Delivery = {
    id: keys.id,
    hook: verified.hook,
    signer: verified.signer,
    webhookId: keys.webhookId,
    bodySha256: keys.bodySha256,
    receivedAt: now,
    type: event.kind === "push" ? event.push.type : event.type.slice(0, LIMITS.nameCharacters),
    push: event.kind === "push" ? event.push : null,
    pushKey: keys.push,
    state: "ignored",
    round: 0,
    results: event.kind === "push" ? [] : [ignored("*", event.detail)],
  };
  return context.commit(`hook:${verified.hook}`, now, (emit) => {
    const handled = event.kind === "push" ? handle(context, delivery, event.push, keys, now) : delivery;
    insertDelivery(sql, handled);
    emit({ type: "delivery.received", subject: `deliveries/${handled.id}`, data: { delivery: deliveryView(handled) } });
    return { status: 202, delivery: deliveryView(handled) };
  });
}

function handle(context: NamespaceContext, delivery: Delivery, push: Push, keys: DeliveryKeys, now: Millis): Delivery {
  const first =
    keys.push === null ? null : findSamePush(context.sql, keys.push, keys.before, now - LIMITS.deliveryDedupeMs);
  return first === null
    ? plan(context, delivery, push, now)
    : { ...delivery, state: "duplicate", results: [ignored("*", `the same push came as delivery ${first}`)] };
}

/** Runs the rules of now over a push; what they ask for goes into the outbox. */
function plan({ sql }: NamespaceContext, delivery: Delivery, push: Push, now: Millis): Delivery {
  const { triggers, secrets } = readTriggers(sql);
  if (triggers.length === 0)
    return { ...delivery, state: "ignored", results: [ignored("*", "the namespace has no trigger rules")] };
  const plans = planJobs(push, triggers, secrets);
  for (const one of plans) {
    if (one.deployment === null) continue;
    const { trigger, deployment, body } = one;
    const submission: Submission = {
      delivery: delivery.id,
      round: delivery.round,
      trigger,
      hook: delivery.hook,
      deployment,
      body,
    };
    insertOutbox(sql, "submit", submission, now);
  }
  return settle(delivery, plans.map(resultOf));
}

function resultOf(one: Plan): DeliveryResult {
  return one.deployment === null
    ? ignored(one.trigger, one.detail)
    : {
        trigger: one.trigger,
        deployment: one.deployment,
        job: null,
        detail: "on its way to the deployment",
        pending: true,
      };
}

function ignored(trigger: string, detail: string): DeliveryResult {
  return { trigger, deployment: null, job: null, detail, pending: false };
}

/** A delivery with these results, in the state that follows from them: `failed` when any job that a rule asked for was refused. */
function settle(delivery: Delivery, results: readonly DeliveryResult[]): Delivery {
  const asked = results.filter(({ deployment }) => deployment !== null);
  const state =
    asked.length === 0
      ? "ignored"
      : asked.some(({ pending }) => pending)
        ? "accepted"
        : asked.some(({ job }) => job === null)
          ? "failed"
          : "submitted";
  return { ...delivery, state, results };
}

/** Hands a job over to its deployment and records what became of it. */
export function submitCourier({ sql, env, namespace }: NamespaceContext): Courier {
  const record = (submission: Submission, result: Partial<DeliveryResult>): void => {
    const delivery = findDelivery(sql, submission.delivery);
    if (delivery === null) return;
    updateDelivery(
      sql,
      settle(
        delivery,
        delivery.results.map((one) => (one.trigger === submission.trigger ? { ...one, ...result } : one)),
      ),
    );
  };
  return {
    async deliver(payload) {
      const submission = JSON.parse(payload) as Submission;
      const { delivery, round, trigger, hook, deployment } = submission;
      const { secrets: named, ...plain } = submission.body;
      const secrets = named === undefined ? undefined : fillSecrets(sql, named);
      if (isRefusal(secrets))
        return () => record(submission, { detail: `refused (${secrets.refused}): ${secrets.detail}`, pending: false });
      const answer = await bounded(
        deploymentObject(env, namespace, deployment).submit({
          actor: `hook:${hook}`,
          body: secrets === undefined ? plain : { ...plain, secrets },
          guard: {
            idempotencyKey: `${delivery}.${round}.${trigger}`,
            // Of the names: a secret that is replaced between two tries is still the same request.
            bodySha256: await sha256Hex(utf8(JSON.stringify(submission.body))),
            ifMatch: null,
          },
          dryRun: false,
        }),
      );
      if (!isRefusal(answer))
        return () =>
          record(submission, {
            job: answer.job.id,
            detail: answer.joined ? "joined a job that is there" : "submitted",
            pending: false,
          });
      if (isTransient(answer)) throw new Error(answer.detail);
      return () => record(submission, { detail: `refused (${answer.refused}): ${answer.detail}`, pending: false });
    },
    park: (payload, reason) =>
      record(JSON.parse(payload) as Submission, { detail: `not handed over yet, will be tried again: ${reason}` }),
  };
}
