import { type FSWatcher, watch } from "node:fs";
import type { Assignment, Reason } from "@plumule/protocol";
import type { StopOrder } from "../core/model.ts";
import { bootId, monotonicMs } from "../process-identity.ts";
import { readLease, readOrder, readTaken } from "./files.ts";

/** What can stop a run, joined. */
export type StopSwitch = {
  /** Aborted when the run must stop, with a {@link StopOrder} as reason; `kill` when its grace is over. */
  signal: AbortSignal;
  kill: AbortSignal;
  order(next: StopOrder): void;
  /** The log grew. */
  touch(): void;
  /** Ends all of it; the run is over. */
  clear(): void;
};

/** How often the folder is looked at where its changes are not told, ms. */
const LOOK_MS = 500;
/** A lease that was just being written is read again after this, ms, and so often. */
const REREAD_MS = 20;
const REREAD_COUNT = 50;

/**
 * Stops a run for its runner's orders, at the end of its lease, and for its own time-outs. The end of the lease needs nobody who is alive: it
 * is the machine's monotonic clock against the time that the runner wrote last, and everything is killed then, because from then on another
 * runner may have the job.
 */
export function openStopSwitch({ limits }: Pick<Assignment, "limits">, control: string): StopSwitch {
  const stop = new AbortController();
  const kill = new AbortController();
  const timers = new Set<NodeJS.Timeout>();
  const later = (work: () => void, ms: number): NodeJS.Timeout => {
    const timer = setTimeout(work, Math.max(0, ms));
    timers.add(timer);
    return timer;
  };
  const order = (next: StopOrder): void => {
    if (!stop.signal.aborted) stop.abort(next);
    const graceMs = next.graceMs ?? limits.graceMs;
    if (graceMs === 0) kill.abort();
    else later(() => kill.abort(), graceMs);
  };
  const own = (code: Reason["code"], detail: string): void =>
    order({ reason: { code, detail }, graceMs: null, leaseLost: false });

  later(() => own("run-timeout", `The run took longer than ${limits.runMs} ms.`), limits.runMs);
  const silence = later(
    () => own("silence-timeout", `The log was silent for ${limits.silenceMs} ms.`),
    limits.silenceMs,
  );
  const boot = bootId();
  const keepTime = (triesLeft: number): void => {
    const lease = readLease(control);
    if (lease === null && triesLeft > 0) return void later(() => keepTime(triesLeft - 1), REREAD_MS);
    const leftMs = lease?.boot === boot ? lease.untilMs - monotonicMs() : 0;
    if (leftMs > 0) return void later(() => keepTime(REREAD_COUNT), leftMs);
    const detail = "the lease ended, and no runner kept it";
    order({ reason: { code: "runner-lost", detail }, graceMs: 0, leaseLost: true });
  };
  keepTime(REREAD_COUNT);
  const unwatch = watchOrders(control, order);
  return {
    signal: stop.signal,
    kill: kill.signal,
    order,
    touch: () => void silence.refresh(),
    clear() {
      for (const timer of timers) clearTimeout(timer);
      unwatch();
    },
  };
}

/** Hands on each order once. */
function watchOrders(control: string, onOrder: (order: StopOrder) => void): () => void {
  let seen = 0;
  return watchControl(control, () => {
    const found = readOrder(control);
    if (found === null || found.number <= seen) return;
    seen = found.number;
    onOrder({ reason: found.reason as Reason, graceMs: found.graceMs, leaseLost: found.leaseLost });
  });
}

/** Waits until the broker has taken the events up to a number. False when the run has to stop first. */
export async function whenTaken(control: string, number: number, stop: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const stopped = (): void => resolve(false);
  stop.addEventListener("abort", stopped);
  if (stop.aborted) stopped();
  const unwatch = watchControl(control, () => {
    if (readTaken(control) >= number) resolve(!stop.aborted);
  });
  try {
    return await promise;
  } finally {
    unwatch();
    stop.removeEventListener("abort", stopped);
  }
}

/** Looks at the folder of a run's control now, whenever it changes, and now and then. */
function watchControl(control: string, look: () => void): () => void {
  let watcher: FSWatcher | null = null;
  try {
    watcher = watch(control, look).on("error", () => {});
  } catch {
    // No more watches on this machine: the timer sees it, half a second later.
  }
  const timer = setInterval(look, LOOK_MS);
  look();
  return () => {
    clearInterval(timer);
    watcher?.close();
  };
}
