import type { ResultBody } from "@plumule/protocol";
import type { Broker, BrokerAnswer } from "../broker.ts";

/** What is asked of a broker, as metrics name it. */
export const CALLS = ["poll", "heartbeat", "report", "log", "result"] as const;
export type CallName = (typeof CALLS)[number];

/** How calls ended: answered, refused for good, or to be tried again. */
export type CallCounts = { ok: number; refused: number; failed: number };

/** What a runner has done since it started. */
export type Counters = {
  calls: Readonly<Record<CallName, CallCounts>>;
  /** Results that the broker took, by outcome. */
  results: Record<ResultBody["outcome"], number>;
  logBytes: number;
  /** When the broker last answered, by the monotonic clock, ms; null before that. */
  contactAt: number | null;
};

/** Counters at zero. */
export function newCounters(): Counters {
  const none = (): CallCounts => ({ ok: 0, refused: 0, failed: 0 });
  return {
    calls: { poll: none(), heartbeat: none(), report: none(), log: none(), result: none() },
    results: { succeeded: 0, failed: 0, cancelled: 0, refused: 0, skipped: 0, unknown: 0 },
    logBytes: 0,
    contactAt: null,
  };
}

/** The same broker, whose answers are counted. What the runner broke off itself is no answer. */
export function countCalls<B extends Broker>(broker: B, counters: Counters): B {
  const count = async <T>(
    name: CallName,
    asked: Promise<BrokerAnswer<T>>,
    signal?: AbortSignal,
  ): Promise<BrokerAnswer<T>> => {
    const answer = await asked;
    if (answer.ok || !answer.retry) counters.contactAt = performance.now();
    if (answer.ok) counters.calls[name].ok += 1;
    else if (!answer.retry) counters.calls[name].refused += 1;
    else if (signal?.aborted !== true) counters.calls[name].failed += 1;
    return answer;
  };
  return {
    ...broker,
    poll: (body, signal) => count("poll", broker.poll(body, signal), signal),
    heartbeat: (lease, body, signal) => count("heartbeat", broker.heartbeat(lease, body, signal), signal),
    report: (lease, body) => count("report", broker.report(lease, body)),
    async appendLog(lease, offset, bytes) {
      const answer = await count("log", broker.appendLog(lease, offset, bytes));
      if (answer.ok) counters.logBytes += Math.min(bytes.length, answer.value.bytes - offset);
      return answer;
    },
    async result(lease, body) {
      const answer = await count("result", broker.result(lease, body));
      if (answer.ok) counters.results[body.outcome] += 1;
      return answer;
    },
  };
}
