import type { RunId } from "@plumule/protocol";
import type { Decided, Disk, Effect, LiveRun, Memory, RunRecord } from "./model.ts";
import { conclude, settled, start } from "./step.ts";

/**
 * What was found of a run's supervisor. `alive`: the very process that the journal names; `ended`: it wrote how the run ended; `gone`: neither.
 */
export type Found = "alive" | "ended" | "gone";

/**
 * Begins from what an earlier process of this runner left. `found` answers for every run that the journal says is running. A run that had not
 * begun is asked for again; one that works is followed; one that has ended gets its result.
 */
export function recover(disk: Disk, found: (record: RunRecord) => Found): Decided {
  const effects: Effect[] = [];
  const isSpent = disk.runs.some(({ requestKey }) => requestKey === disk.key);
  // Asked again under a spent key, the broker gives the same assignment again, and its job would run twice at once.
  if (isSpent) effects.push({ do: "forget key" });
  let memory: Memory = {
    intent: "work",
    key: isSpent ? null : disk.key,
    asking: false,
    runs: [],
    spool: disk.spool,
  };
  for (const record of disk.runs) {
    // The crash came between spool and journal: the run has its result.
    if (disk.spool.includes(record.run)) {
      effects.push(...settled(record.run));
      continue;
    }
    const run = liveRun(record);
    memory = { ...memory, runs: [...memory.runs, run] };
    if (record.state === "assigned") {
      effects.push(...start(run));
      continue;
    }
    const state = record.supervisor === null ? "gone" : found(record);
    if (state === "alive" && record.supervisor !== null) {
      effects.push({ do: "attach", run: run.run, supervisor: record.supervisor });
      effects.push({ do: "heartbeat", run: run.run, first: false, seenCommand: 0 });
      continue;
    }
    const concluded = conclude(memory, run, state === "ended" ? "seen" : "lost");
    memory = concluded.memory;
    effects.push(...concluded.effects);
  }
  const waiting = disk.spool.filter((run) => !disk.runs.some((record) => record.run === run));
  effects.push(...waiting.map((run: RunId): Effect => ({ do: "deliver", run })));
  return { memory, effects };
}

function liveRun({ run, requestKey, state, supervisor }: RunRecord): LiveRun {
  const begun = state === "running";
  return {
    run,
    requestKey,
    lease: begun ? "held" : "asked",
    stage: begun ? "working" : "waiting",
    supervisor,
    seenCommand: 0,
  };
}
