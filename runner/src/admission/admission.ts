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

/** How often memory is looked at while anything runs, ms. */
const LOOK_MS = 2_000;

type Working = AdmittedRun & { pid: number; since: number; usedBytes: number; peakBytes: number };
type Waiting = { run: AdmittedRun; begin: () => void };

/** `measure` tells the memory of process trees by their first process, `available` what is free, `say` is for people. */
export type AdmissionDeps = {
  history: History;
  measure: (roots: readonly number[]) => ReadonlyMap<number, number>;
  available: () => number;
  say: (line: string) => void;
};

/** Lets runs begin as memory allows, first come, first served, and learns from what they take. */
export class Admission {
  readonly #deps: AdmissionDeps;
  readonly #working = new Map<string, Working>();
  /** Admitted, but not yet seen to work: each counts with all that it may take. */
  readonly #coming = new Map<string, AdmittedRun>();
  readonly #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: AdmissionDeps) {
    this.#deps = deps;
  }

  /** Resolves when the run may begin: when it fits, or when `hurry` is aborted. `onWait` is called at once when it does not fit now. */
  admit(run: AdmittedRun, hurry: AbortSignal, onWait: () => void = () => {}): Promise<void> {
    if (hurry.aborted) return Promise.resolve();
    if (this.#waiting.length === 0 && this.#mayBegin(run)) {
      this.#coming.set(run.run, run);
      return Promise.resolve();
    }
    this.#deps.say(`run ${run.run}: waits until there is memory for it beside the others`);
    onWait();
    this.#keepLooking();
    return new Promise((resolve) => {
      const begin = (): void => {
        const index = this.#waiting.findIndex((one) => one.begin === begin);
        if (index < 0) return;
        this.#waiting.splice(index, 1);
        this.#coming.set(run.run, run);
        resolve();
      };
      this.#waiting.push({ run, begin });
      hurry.addEventListener("abort", begin, { once: true });
    });
  }

  /** A run is at work in this process and its descendants. */
  begun(run: AdmittedRun, pid: number): void {
    this.#coming.delete(run.run);
    const { deployment, taskSha256 } = run;
    const since = performance.now();
    this.#working.set(run.run, { run: run.run, deployment, taskSha256, pid, since, usedBytes: 0, peakBytes: 0 });
    this.#keepLooking();
  }

  /** It is over. One that was not seen to the end teaches nothing. */
  ended(run: string, seen: boolean): void {
    this.#coming.delete(run);
    const done = this.#working.get(run);
    this.#working.delete(run);
    if (done !== undefined && seen && done.peakBytes > 0) {
      const durationMs = Math.round(performance.now() - done.since);
      void this.#deps.history.record(keyOf(done), { peakBytes: done.peakBytes, durationMs });
    }
    this.#serve();
  }

  /** What there is, what the runs use, and who waits. */
  status(): MemoryStatus {
    return {
      availableBytes: this.#deps.available(),
      runs: Array.from(this.#working.values(), (one) => {
        const { run, usedBytes, peakBytes } = one;
        return { run, usedBytes, peakBytes, predictedBytes: this.#predicted(one) };
      }),
      waiting: this.#waiting.map(({ run }) => ({ run: run.run, predictedBytes: this.#predicted(run) })),
      rememberedTaskCount: this.#deps.history.size,
    };
  }

  #predicted(run: AdmittedRun): number | null {
    return this.#deps.history.predict(keyOf(run))?.peakBytes ?? null;
  }

  #mayBegin(run: AdmittedRun): boolean {
    const others = [
      ...Array.from(this.#working.values(), (one) => ({
        usedBytes: one.usedBytes,
        predictedBytes: this.#predicted(one),
      })),
      ...Array.from(this.#coming.values(), (one) => ({ usedBytes: 0, predictedBytes: this.#predicted(one) })),
    ];
    return fits(this.#predicted(run), others, this.#deps.available());
  }

  #serve(): void {
    for (let next = this.#waiting[0]; next !== undefined && this.#mayBegin(next.run); next = this.#waiting[0])
      next.begin();
  }

  #keepLooking(): void {
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref();
  }

  #look(): void {
    const used = this.#deps.measure(Array.from(this.#working.values(), ({ pid }) => pid));
    for (const one of this.#working.values()) {
      one.usedBytes = used.get(one.pid) ?? 0;
      one.peakBytes = Math.max(one.peakBytes, one.usedBytes);
    }
    this.#serve();
    if (this.#working.size + this.#waiting.length > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

function keyOf({ deployment, taskSha256 }: AdmittedRun): string {
  return `${deployment} ${taskSha256}`;
}
