import type { Derivation, Phase, Progress, RunnerEvent } from "@plumule/protocol";
import type { EventBatch } from "./supervisor/records.ts";

/** What a run tells while it works. */
export type Reporter = {
  phase(phase: Phase): void;
  progress(progress: Progress): void;
  plan(derivations: readonly Derivation[], edges: readonly [string, string][]): void;
  derivations(changed: readonly Derivation[]): void;
  /** Tells something that work waits for: written at once, in a batch of its own. Answers the number of that. */
  wish(event: RunnerEvent): number;
  /** Writes what was gathered, and ends it. What the disk refuses is kept, and tried again by the next call. */
  finish(): void;
};

/** How long changes are gathered before they are written, ms: people see it as live, and a fast build costs one request. */
const GATHER_MS = 250;

/**
 * Gathers events and writes them in numbered batches. A derivation or counter that changed twice while a batch was gathered is written once,
 * in its last state. A batch never changes once it is written, so that whoever sends it may send it again. One that `write` throws for waits for
 * the disk, unchanged because a part of it may be there, and work goes on: events decide no outcome. `derivationCount` bounds one batch.
 */
export function createReporter(
  write: (batch: EventBatch) => void,
  now: () => Date,
  { derivationCount, edgeCount }: { derivationCount: number; edgeCount: number },
): Reporter {
  let ordered: RunnerEvent[] = [];
  let changed = new Map<string, Derivation>();
  let progress: Progress | null = null;
  let number = 0;
  let unwritten: EventBatch | null = null;
  let timer: NodeJS.Timeout | null = null;
  let finished = false;

  const gather = (): EventBatch | null => {
    const events: RunnerEvent[] = [...ordered];
    if (changed.size > 0)
      events.push({ type: "derivations", derivations: [...changed.values()].slice(0, derivationCount) });
    if (progress !== null) events.push({ type: "progress", progress });
    if (events.length === 0) return null;
    ordered = [];
    changed = new Map();
    progress = null;
    return { number: (number += 1), events };
  };
  const flush = (): void => {
    try {
      for (unwritten ??= gather(); unwritten !== null; unwritten = gather()) write(unwritten);
    } catch {
      schedule();
    }
  };
  const schedule = (): void => {
    if (finished || timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      flush();
    }, GATHER_MS);
  };

  const order = (event: RunnerEvent): void => {
    ordered.push(event);
    schedule();
  };

  return {
    phase: (phase) => order({ type: "phase", phase, at: now().toISOString() }),
    progress(next) {
      progress = next;
      schedule();
    },
    plan(derivations, edges) {
      const [some, between] = [derivations.slice(0, derivationCount), edges.slice(0, edgeCount)];
      order({ type: "plan", derivations: some, edges: between });
    },
    derivations(next) {
      for (const one of next) changed.set(one.drv, one);
      schedule();
    },
    wish(event) {
      // Alone in its batch: nothing else can be a reason to refuse it.
      flush();
      ordered.push(event);
      flush();
      // What the disk refuses is in the batch after the one that waits for it.
      return unwritten !== null && !unwritten.events.includes(event) ? number + 1 : number;
    },
    finish() {
      if (timer !== null) clearTimeout(timer);
      finished = true;
      flush();
    },
  };
}
