import {
  type Derivation,
  LIMITS,
  type Phase,
  type Progress,
  type RunnerEvent,
  type RunnerEventsBody,
} from "@plumule/protocol";
import type { BrokerAnswer } from "./broker.ts";

/** A batch of what happened in a run; the broker applies each number once. */
export type EventBatch = Omit<RunnerEventsBody, "epoch">;

/** What a run tells the broker while it works. */
export type Reporter = {
  phase(phase: Phase): void;
  progress(progress: Progress): void;
  plan(derivations: readonly Derivation[], edges: readonly [string, string][]): void;
  derivations(changed: readonly Derivation[]): void;
  /** Stops sending and hands over what was not sent yet, to ride on the result. Waits for a request under way. */
  finish(): Promise<EventBatch | undefined>;
};

/** How long changes are gathered before a request, ms: people see it as live, and a fast build costs one request. */
const GATHER_MS = 250;

/**
 * Gathers events and sends them in numbered batches, one request at a time. A derivation or counter that changed twice while a batch was
 * gathered is sent once, in its last state. A batch that could not be sent is sent again under its number, which makes a repeat harmless.
 */
export function createReporter(send: (batch: EventBatch) => Promise<BrokerAnswer<unknown>>, now: () => Date): Reporter {
  let ordered: RunnerEvent[] = [];
  let changed = new Map<string, Derivation>();
  let progress: Progress | null = null;
  let unsent: EventBatch | null = null;
  let number = 0;
  let timer: NodeJS.Timeout | null = null;
  let flushing: Promise<void> = Promise.resolve();
  let finished = false;

  const gather = (): EventBatch | null => {
    if (unsent !== null) return unsent;
    const events: RunnerEvent[] = [...ordered];
    if (changed.size > 0)
      events.push({ type: "derivations", derivations: [...changed.values()].slice(0, LIMITS.derivations) });
    if (progress !== null) events.push({ type: "progress", progress });
    if (events.length === 0) return null;
    ordered = [];
    changed = new Map();
    progress = null;
    number += 1;
    return (unsent = { number, events });
  };
  const flush = async (): Promise<void> => {
    const batch = gather();
    if (batch === null) return;
    const answer = await send(batch);
    // A refusal for good (stale lease, too large) is not repeated: the heartbeat tells the run to stop when it must.
    if (answer.ok || !answer.retry) unsent = null;
    if (!finished && (unsent !== null || ordered.length > 0 || changed.size > 0 || progress !== null))
      schedule(unsent === null ? GATHER_MS : 2_000);
  };
  const schedule = (delayMs: number = GATHER_MS): void => {
    if (finished || timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      flushing = flushing.then(flush);
    }, delayMs);
  };

  return {
    phase(phase) {
      ordered.push({ type: "phase", phase, at: now().toISOString() });
      schedule();
    },
    progress(next) {
      progress = next;
      schedule();
    },
    plan(derivations, edges) {
      ordered.push({
        type: "plan",
        derivations: derivations.slice(0, LIMITS.derivations),
        edges: edges.slice(0, LIMITS.derivationEdges),
      });
      schedule();
    },
    derivations(next) {
      for (const one of next) changed.set(one.drv, one);
      schedule();
    },
    async finish() {
      finished = true;
      if (timer !== null) clearTimeout(timer);
      await flushing;
      const batch = gather();
      return batch ?? undefined;
    },
  };
}
