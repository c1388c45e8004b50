import {
  isRefusal,
  type Millis,
  type Push,
  sha256Hex,
  type SubmitBody,
  type TriggersTest,
  utf8,
  planJobs,
  type Plan,
  type Stranger,
} from "@plumule/protocol";
import { deploymentObject } from "../shared/names.ts";
import { bounded } from "./bounded.ts";
import type { NamespaceContext } from "./context.ts";
import { isTransient } from "./core/retry.ts";
import type { Courier } from "./outbox.ts";
import { fillSecrets } from "./secrets.ts";
import { tellOfDelivery } from "./statuses.ts";
import { type Delivery, type DeliveryResult, findDelivery, updateDelivery } from "./store/deliveries.ts";
import { insertOutbox } from "./store/outbox.ts";
import { readTriggers } from "./store/settings.ts";

/** A job on its way to its deployment. The idempotency key makes it one job, however often it is handed over. */
type Submission = {
  delivery: string;
  round: number;
  trigger: string;
  hook: string;
  deployment: string;
  body: SubmitBody;
  stranger: Stranger | null;
  /** What was not known of the push and counted as a match. Handed over by an earlier version: undefined. */
  note?: string | null;
};

/** Why nothing comes of any push. */
export const NO_RULES = "the namespace has no trigger rules";

/** Runs the rules of now over a push; what they ask for goes into the outbox, for each deployment in the order of its deliveries. */
export function plan({ sql }: NamespaceContext, delivery: Delivery, push: Push, now: Millis): Delivery {
  const { triggers, hooks: _, ...beside } = readTriggers(sql);
  if (triggers.length === 0) return { ...delivery, state: "ignored", results: [ignored("*", NO_RULES)] };
  const plans = planJobs(push, triggers, beside);
  for (const one of plans) {
    if (one.deployment === null) continue;
    const { trigger, deployment, body, stranger, note } = one;
    const { id, round, hook } = delivery;
    const submission: Submission = { delivery: id, round, trigger, hook, deployment, body, stranger, note };
    insertOutbox(sql, "submit", submission, now, `submit ${deployment}`);
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

/** A plan as it is shown to whoever tries the rules. */
export function testedPlan(one: Plan): TriggersTest["results"][number] {
  const { trigger, checks } = one;
  if (one.deployment === null) return { trigger, deployment: null, detail: one.detail, checks };
  const { deployment, body, stranger } = one;
  const outcome =
    stranger === null ? (body.hold === true ? "held: the rule holds its jobs" : "a job") : heldFor(stranger);
  const detail = noted(outcome, one.note);
  return {
    trigger,
    deployment,
    detail,
    ...(stranger === null ? {} : { approvers: [...stranger.approvers] }),
    ...(body.limits === undefined ? {} : { limits: body.limits }),
    checks,
  };
}

function heldFor({ why }: Stranger): string {
  return `held: ${why}`;
}

function noted(outcome: string, note: string | null | undefined): string {
  return note == null ? outcome : `${outcome}; ${note}`;
}

/** What a rule, or `*` for all of them, did not do, and why. */
export function ignored(trigger: string, detail: string): DeliveryResult {
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
export function submitCourier(context: NamespaceContext): Courier {
  const { sql, env, namespace } = context;
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
    tellOfDelivery(context, delivery.id, Date.now());
  };
  return {
    async deliver(payload) {
      const submission = JSON.parse(payload) as Submission;
      const { delivery, round, trigger, hook, deployment, stranger, note } = submission;
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
          ...(stranger == null ? {} : { stranger }),
        }),
      );
      if (!isRefusal(answer))
        return () =>
          record(submission, {
            job: answer.job.id,
            detail: noted(
              answer.joined ? "joined a job that is there" : stranger == null ? "submitted" : heldFor(stranger),
              note,
            ),
            pending: false,
          });
      if (isTransient(answer)) throw new Error(answer.detail);
      return () => record(submission, { detail: `refused (${answer.refused}): ${answer.detail}`, pending: false });
    },
    park: (payload, reason) =>
      record(JSON.parse(payload) as Submission, { detail: `not handed over yet, will be tried again: ${reason}` }),
  };
}
