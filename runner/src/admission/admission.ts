import type { Assignment } from "@plumule/protocol";
import { fits } from "./decide.ts";
import type { History } from "./history.ts";

/** Which run, and what it is like others of. */
export type AdmittedRun = Pick<Assignment, "run" | "deployment" | "taskSha256">;

/** What the memory of a machine looks like to its runner, bytes; `waiting` runs would not fit beside the others. */
export type MemoryStatus = {
  availableBytes: number;
  runs: { run: string; usedBytes: number; peakBytes: number; predictedBytes: number | null }[];
  waiting: { run: string; predictedBytes: number | null }[];
  rememberedTaskCount: number;
};

/** Lets runs begin as memory allows, and learns from what they take. */
export type Admission = {
  /** Resolves when the run may begin: when it fits, or when `hurry` is aborted. First come, first served. */
  admit(run: AdmittedRun, hurry: AbortSignal): Promise<void>;
  /** A run is at work in this process and its descendants. */
  begun(run: AdmittedRun, pid: number): void;
  /** It is over. One that was not seen to the end teaches nothing. */
  ended(run: string, seen: boolean): void;
  status(): MemoryStatus;
};

/** How often memory is looked at while anything runs, ms. */
const LOOK_MS = 2_000;

type Working = AdmittedRun & { pid: number; since: number; usedBytes: number; peakBytes: number };
type Waiting = { run: AdmittedRun; begin: () => void };

/** Makes an admission. `measure` tells the memory of process trees by their first process, `available` what is free, `say` is for people. */
export function createAdmission({
  history,
  measure,
  available,
  say,
}: {
  history: History;
  measure: (roots: readonly number[]) => ReadonlyMap<number, number>;
  available: () => number;
  say: (line: string) => void;
}): Admission {
  const working = new Map<string, Working>();
  // Admitted, but not yet seen to work: it counts with all that it may take.
  const coming = new Map<string, AdmittedRun>();
  const waiting: Waiting[] = [];
  let timer: NodeJS.Timeout | undefined;
  const keyOf = ({ deployment, taskSha256 }: AdmittedRun): string => `${deployment} ${taskSha256}`;
  const predicted = (run: AdmittedRun): number | null => history.predict(keyOf(run))?.peakBytes ?? null;
  const mayBegin = (run: AdmittedRun): boolean => {
    const others = [
      ...Array.from(working.values(), (one) => ({ usedBytes: one.usedBytes, predictedBytes: predicted(one) })),
      ...Array.from(coming.values(), (one) => ({ usedBytes: 0, predictedBytes: predicted(one) })),
    ];
    return fits(predicted(run), others, available());
  };
  const serve = (): void => {
    for (let next = waiting[0]; next !== undefined && mayBegin(next.run); next = waiting[0]) next.begin();
  };
  const look = (): void => {
    const used = measure(Array.from(working.values(), ({ pid }) => pid));
    for (const one of working.values()) {
      one.usedBytes = used.get(one.pid) ?? 0;
      one.peakBytes = Math.max(one.peakBytes, one.usedBytes);
    }
    serve();
    if (working.size + waiting.length > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
  const keepLooking = (): void => {
    timer ??= setInterval(look, LOOK_MS).unref();
  };
  return {
    admit(run, hurry) {
      if (hurry.aborted) return Promise.resolve();
      if (waiting.length === 0 && mayBegin(run)) {
        coming.set(run.run, run);
        return Promise.resolve();
      }
      say(`run ${run.run}: waits until there is memory for it beside the others`);
      keepLooking();
      return new Promise((resolve) => {
        const entry: Waiting = {
          run,
          begin() {
            if (!waiting.includes(entry)) return;
            waiting.splice(waiting.indexOf(entry), 1);
            coming.set(run.run, run);
            resolve();
          },
        };
        waiting.push(entry);
        hurry.addEventListener("abort", entry.begin, { once: true });
      });
    },
    begun(run, pid) {
      coming.delete(run.run);
      working.set(run.run, { ...run, pid, since: performance.now(), usedBytes: 0, peakBytes: 0 });
      keepLooking();
    },
    ended(run, seen) {
      coming.delete(run);
      const done = working.get(run);
      working.delete(run);
      if (done !== undefined && seen && done.peakBytes > 0)
        void history.record(keyOf(done), {
          peakBytes: done.peakBytes,
          durationMs: Math.round(performance.now() - done.since),
        });
      serve();
    },
    status: () => ({
      availableBytes: available(),
      runs: Array.from(working.values(), (one) => ({
        run: one.run,
        usedBytes: one.usedBytes,
        peakBytes: one.peakBytes,
        predictedBytes: predicted(one),
      })),
      waiting: waiting.map(({ run }) => ({ run: run.run, predictedBytes: predicted(run) })),
      rememberedTaskCount: history.size,
    }),
  };
}
