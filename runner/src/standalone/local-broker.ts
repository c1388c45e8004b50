import { type Assignment, LIMITS, type Millis, type Problem } from "@plumule/protocol";
import { pause } from "../backoff.ts";
import type { Broker, BrokerAnswer, Lease, StandaloneCalls } from "../broker.ts";
import type { Clearance, Desk } from "./desk.ts";
import { type LocalJob, stateOf, workOf } from "./local-job.ts";

/**
 * How long work that the broker does not know waits for it, ms: the push that it came with reaches the broker by a bridge of its own, and what the broker
 * orders is not done twice. Nothing waits while the broker cannot be reached.
 */
const HEARSAY_MS = 10_000;
/** A broker that has not answered by then cannot be reached, ms. */
const ASK_MS = 5_000;

/**
 * A broker of whose polls the desk answers some, so that the runner does work that it gave itself as it does any other. Without a broker (null) the desk
 * is all there is. Runs of the desk have the epoch 0, which no lease has.
 */
export function withDesk(broker: (Broker & StandaloneCalls) | null, desk: Desk, now: () => Millis): Broker {
  const clear = async (job: LocalJob): Promise<Clearance> => {
    if (broker === null) return "begin";
    const answer = await Promise.race([broker.findWork(job.deployment, workOf(job)), pause(ASK_MS)]);
    if (answer === undefined || !answer.ok) return "begin";
    if (answer.value !== null && standsFor(answer.value)) return { elsewhere: answer.value.id };
    const laterAt = Date.parse(job.createdAt) + HEARSAY_MS;
    return laterAt > now() ? { laterAt } : "begin";
  };
  const remote = ({ epoch }: Lease): Broker | null => (epoch === 0 ? null : broker);
  return {
    // Of no pool in particular; the broker's polls ask for theirs.
    pool: async () => ok("default"),
    publish: async (recipient) => (broker === null ? ok(null) : broker.publish(recipient)),
    async poll(asked, signal) {
      const arrival = desk.arrival();
      const given = await desk.give(asked, clear);
      if (given !== null) return ok(given);
      const answer = await askBroker(broker, asked, AbortSignal.any([signal, arrival]));
      if (answer.ok && answer.value !== null) return answer;
      const came = signal.aborted ? null : await desk.give(asked, clear);
      // A poll that was broken off for the sake of the desk's work is no failure, whatever became of that work.
      return came !== null || arrival.aborted ? ok(came) : answer;
    },
    async heartbeat(lease, body, signal) {
      const other = remote(lease);
      if (other !== null) return other.heartbeat(lease, body, signal);
      if (!(await desk.beat(lease.run))) return stale(lease);
      await pause(body.waitMs ?? 0, signal);
      return ok({ leaseMs: LIMITS.leaseMs, command: null });
    },
    // Log and events of the desk's runs stay in their files, which the desk keeps.
    report: async (lease, body) => remote(lease)?.report(lease, body) ?? ok({ number: body.number }),
    appendLog: async (lease, offset, bytes) =>
      remote(lease)?.appendLog(lease, offset, bytes) ?? ok({ bytes: offset + bytes.length }),
    async result(lease, body) {
      const other = remote(lease);
      if (other !== null) return other.result(lease, body);
      const { logTail: _, ...result } = body;
      const job = await desk.end(lease.run, result);
      return ok({ accepted: job !== null, late: job === null, state: job === null ? "unknown" : stateOf(job) });
    },
  };
}

/** Whether a job of the broker has done the work, or is to do it. */
function standsFor({ state }: { state: string }): boolean {
  return state !== "cancelled" && state !== "superseded" && state !== "unknown";
}

async function askBroker(
  broker: Broker | null,
  asked: Parameters<Broker["poll"]>[0],
  signal: AbortSignal,
): Promise<BrokerAnswer<Assignment | null>> {
  if (broker === null) {
    await pause(asked.waitMs ?? 0, signal);
    return ok(null);
  }
  const pool = await broker.pool();
  return pool.ok ? broker.poll({ ...asked, pool: pool.value }, signal) : pool;
}

function ok<T>(value: T): { ok: true; value: T } {
  return { ok: true, value };
}

function stale({ run }: Lease): Extract<BrokerAnswer<never>, { ok: false }> {
  const problem: Problem = {
    type: "about:blank",
    title: "The run is over",
    status: 409,
    code: "stale-lease",
    detail: `Run ${run} is no longer that of its job.`,
    next: "Nothing: the job is begun anew.",
  };
  return { ok: false, retry: false, problem, logSize: null };
}
