import {
  call,
  type CallAnswer,
  type ClientDeps,
  type DeliveryView,
  LIMITS,
  type Problem,
  receiveNamedHook,
  type Signer,
  signWebhook,
  utf8,
} from "@plumule/protocol";
import type { QueuedDelivery } from "./queue.ts";

/** What delivering needs of the world. `pause` waits the given time, ms; tests pass shorter ones. */
export type DeliverDeps = {
  fetch: ClientDeps["fetch"];
  signer: Signer;
  now: () => Date;
  pause: (ms: number) => Promise<void>;
  /** How long to go on trying, ms: somebody waits for the push to return. What is not delivered by then stays in the queue. */
  budgetMs: number;
  /** Keep, too, what a person can still mend at the broker: a key that is not believed yet, a hook or namespace that is not there yet. */
  patient?: boolean;
};

/** What became of a delivery. `kept` stays in the queue; all others are over. */
export type DeliveryEnd =
  | { end: "delivered"; delivery: DeliveryView }
  | { end: "refused"; detail: string }
  | { end: "expired"; detail: string }
  | { end: "kept"; detail: string };

/** Standard Webhooks asks receivers to answer within 15 to 30 s. */
const ATTEMPT_MS = 15_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5_000;
/** A broker forgets an id after four days; an older delivery could make its job a second time. */
const EXPIRY_MS = LIMITS.deliveryDedupeMs - 3600_000;

/**
 * Sends one queued delivery until it is answered for good or the budget is spent. Its id is the same for every attempt, so that a lost
 * answer makes no second job; time and signature are new each time. A 2xx answer comes before the jobs are made: the same webhook is then
 * sent again, which changes nothing and answers what became of it.
 */
export async function deliver(queued: QueuedDelivery, deps: DeliverDeps): Promise<DeliveryEnd> {
  const startedAt = deps.now().getTime();
  const leftMs = (): number => startedAt + deps.budgetMs - deps.now().getTime();
  if (startedAt - Date.parse(queued.createdAt) > EXPIRY_MS)
    return { end: "expired", detail: `it has waited since ${queued.createdAt}, longer than the broker remembers ids` };
  const mayMend = (status: number): boolean => deps.patient === true && (status === 401 || status === 404);
  let answered: DeliveryView | null = null;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const answer = await sendOnce(queued, deps, Math.min(ATTEMPT_MS, Math.max(leftMs(), 1_000)));
    if (answer.ok) answered = answer.answer.body;
    else if (answered === null && !mayPass(answer.status, answer.problem)) {
      const over = refusal(answer.problem, answer.status);
      return mayMend(answer.status) ? { end: "kept", detail: over.detail } : over;
    }
    if (answered !== null && answered.state !== "accepted") return { end: "delivered", delivery: answered };
    const jitteredMs = pauseMs * (0.5 + Math.random() / 2);
    if (jitteredMs >= leftMs()) {
      if (answered !== null) return { end: "delivered", delivery: answered };
      return { end: "kept", detail: answer.ok ? "" : answer.problem.detail };
    }
    await deps.pause(jitteredMs);
  }
}

type Answer = CallAnswer<typeof receiveNamedHook>;

async function sendOnce({ id, target, body }: QueuedDelivery, deps: DeliverDeps, timeoutMs: number): Promise<Answer> {
  const bytes = utf8(body);
  const timestampSeconds = Math.floor(deps.now().getTime() / 1000);
  const headers = await signWebhook({ id, timestampSeconds, body: bytes, signer: deps.signer });
  try {
    return await call(
      // A redirect would carry the push to a place that nobody named.
      { fetch: (url, init) => deps.fetch(url, { ...init, redirect: "error" }), baseUrl: target.url },
      receiveNamedHook,
      {
        params: { ns: target.namespace, hook: target.hook },
        body: bytes,
        headers: { ...headers, "content-type": "application/json" },
        signal: AbortSignal.timeout(timeoutMs),
      },
    );
  } catch (error) {
    return { ok: false, status: 0, problem: unreachable(target.url, error), headers: new Headers() };
  }
}

/** Whether the same delivery can succeed later: the broker is away or busy, or a clock is wrong. */
function mayPass(status: number, { code }: Problem): boolean {
  return (
    status === 0 ||
    status === 408 ||
    status === 425 ||
    status === 429 ||
    status >= 500 ||
    code === "timestamp-out-of-window"
  );
}

function refusal(problem: Problem, status: number): Extract<DeliveryEnd, { end: "refused" }> {
  const detail = `${problem.detail} ${problem.next}`.trim();
  return { end: "refused", detail: status === 410 ? `this hook is switched off at the broker: ${detail}` : detail };
}

function unreachable(url: string, error: unknown): Problem {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
  return {
    type: "about:blank",
    title: "The broker cannot be reached",
    status: 0,
    code: "unavailable",
    detail: `${url} cannot be reached (${cause})`,
    next: "Check that the broker runs.",
  };
}

/** What a person reads of the end of a delivery: a line per job, or one line that says why there is none. `kept` says when it is tried again. */
export function describeEnd(label: string, result: DeliveryEnd, { target }: QueuedDelivery, kept: string): string[] {
  switch (result.end) {
    case "delivered":
      return describeDelivery(label, result.delivery, target.url);
    case "refused":
      return [`${label}: refused by ${target.url}: ${result.detail}`];
    case "expired":
      return [`${label}: given up: ${result.detail}`];
    case "kept":
      return [`${label}: ${kept}: ${result.detail}`];
  }
}

function describeDelivery(label: string, { results, state }: DeliveryView, url: string): string[] {
  const made = results.filter(({ deployment }) => deployment !== null);
  if (made.length === 0) return [`${label} → no job: ${results.map(({ detail }) => detail).join("; ") || state}`];
  return made.map(({ deployment, job, detail }) =>
    job === null ? `${label} → ${deployment}: ${detail}` : `${label} → job ${job} queued: ${url}/j/${job}`,
  );
}
