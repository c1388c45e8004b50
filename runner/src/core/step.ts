import type { Command, RunId } from "@plumule/protocol";
import type { Decided, Effect, End, Input, LiveRun, Memory, StopOrder } from "./model.ts";

const RUNNER_STOPPED: StopOrder = {
  reason: { code: "runner-stopped", detail: "The runner was stopped." },
  graceMs: null,
  leaseLost: false,
};

/** Decides what an input changes and what is to be done about it. Reads no clock; an input that comes too late changes nothing. */
export function step(memory: Memory, input: Input): Decided {
  // A runner that leaves now is as good as killed: the next process decides from the disk.
  if (memory.intent === "leave") return { memory, effects: [] };
  switch (input.type) {
    case "work wanted":
      return ask(memory, input.freshKey);
    case "poll answered":
      return input.key === memory.key ? take({ ...memory, asking: false }, input.key, input.run) : unchanged(memory);
    case "poll failed":
      // A poll that was broken off by leaving says nothing; the last one is on its way.
      if (input.key !== memory.key || (memory.intent !== "work" && !input.last)) return unchanged(memory);
      return unchanged({ ...memory, asking: false });
    case "result answered":
      return answered(memory, input.run, input.final);
    case "write refused":
      return refused(memory, input.effect);
    case "told to stop":
      return stop(memory);
    case "told to end the runs":
      return endRuns(memory);
    case "told to leave the runs":
      return unchanged({ ...memory, intent: "leave" });
    default: {
      const run = memory.runs.find((one) => one.run === input.run);
      return run === undefined ? unchanged(memory) : stepRun(memory, run, input);
    }
  }
}

function unchanged(memory: Memory): Decided {
  return { memory, effects: [] };
}

function ask(memory: Memory, freshKey: string): Decided {
  if (memory.intent !== "work" || memory.asking) return unchanged(memory);
  const key = memory.key ?? freshKey;
  const poll: Effect = { do: "poll", key, busy: memory.runs.length, last: false };
  // A key that the disk does not have could bring an assignment that a crash would lose.
  const effects: Effect[] = memory.key === null ? [{ do: "store key", key }, poll] : [poll];
  return { memory: { ...memory, key, asking: true }, effects };
}

/** The answer to a poll. The assignment is on the disk before its key is gone, and its key is gone before anything else happens. */
function take(memory: Memory, key: string, run: RunId | null): Decided {
  const keyless = { ...memory, key: null };
  if (run === null) {
    if (memory.intent === "work") return unchanged(memory);
    return { memory: keyless, effects: [{ do: "forget key" }] };
  }
  if (memory.spool.includes(run) || memory.runs.some((one) => one.run === run))
    return { memory: keyless, effects: [{ do: "forget key" }] };
  const begun: LiveRun = {
    run,
    requestKey: key,
    lease: "asked",
    stage: "waiting",
    supervisor: null,
    seenCommand: 0,
  };
  const record = { run, requestKey: key, state: "assigned" as const, supervisor: null };
  const kept: Effect[] = [{ do: "store run", record }, { do: "forget key" }];
  const taken = { ...keyless, runs: [...memory.runs, begun] };
  if (memory.intent === "work") return { memory: taken, effects: [...kept, ...start(begun)] };
  const given = conclude(taken, begun, "given-back");
  return { ...given, effects: [...kept, ...given.effects] };
}

/** A supervisor is started while the broker is asked for the lease. */
export function start({ run }: LiveRun): Effect[] {
  return [
    { do: "prepare", run },
    { do: "heartbeat", run, first: true, seenCommand: 0 },
  ];
}

type RunInput = Extract<Input, { run: RunId }>;

function stepRun(
  memory: Memory,
  run: LiveRun,
  input: Exclude<RunInput, { type: "poll answered" | "result answered" }>,
): Decided {
  switch (input.type) {
    case "supervisor ready": {
      if (run.stage !== "waiting" || run.supervisor !== null) return unchanged(memory);
      const ready = { ...run, supervisor: input.supervisor };
      return run.lease === "held" ? begin(memory, ready) : unchanged(put(memory, ready));
    }
    case "heartbeat accepted":
      return run.stage === "ended" || run.lease === "lost" ? unchanged(memory) : hold(memory, run, input);
    case "heartbeat refused":
      return run.lease === "lost" ? unchanged(memory) : lose(memory, run, input.detail);
    case "heartbeat failed":
      if (run.stage === "ended" || run.lease === "lost") return unchanged(memory);
      return { memory, effects: [beat(run)] };
    case "lease ended":
      return run.lease === "lost"
        ? unchanged(memory)
        : lose(memory, run, "the lease ended without a heartbeat reaching the broker");
    case "supervisor ended":
      if (run.stage === "ended") return unchanged(memory);
      if (run.stage === "waiting") return conclude(memory, run, "not-begun");
      return conclude(memory, run, input.seen ? "seen" : "lost");
    case "stop overdue":
      return run.stage === "working" ? conclude(memory, run, "lost") : unchanged(memory);
    case "result kept":
      return {
        memory: { ...without(memory, run), spool: [...memory.spool.filter((one) => one !== run.run), run.run] },
        effects: settled(run.run),
      };
  }
}

/** After a result is in the spool. A crash before the journal forgets the run finds both, and believes the spool. */
export function settled(run: RunId): Effect[] {
  return [
    { do: "forget run", run },
    { do: "discard", run },
    { do: "deliver", run },
  ];
}

function beat({ run, lease, seenCommand }: LiveRun): Effect {
  return { do: "heartbeat", run, first: lease === "asked", seenCommand };
}

/** The broker holds the lease for this runner. Work begins with the first such word, and never without it. */
function hold(
  memory: Memory,
  run: LiveRun,
  { untilMs, command }: { untilMs: number; command: Command | null },
): Decided {
  const isNew = command !== null && command.number > run.seenCommand;
  const held: LiveRun = { ...run, lease: "held", seenCommand: isNew ? command.number : run.seenCommand };
  // There is nobody to tell yet, and whoever comes would not hear of it: the broker says it once.
  if (isNew && held.stage === "waiting") return conclude(memory, held, "given-back");
  const renew: Effect = { do: "renew", run: run.run, untilMs };
  const graceMs = command === null || command.force ? 0 : command.graceMs;
  const order: Effect[] = isNew
    ? [{ do: "stop", run: run.run, order: { reason: command.reason, graceMs, leaseLost: false } }]
    : [];
  const next: Decided =
    held.stage === "waiting" && held.supervisor !== null ? begin(memory, held) : unchanged(put(memory, held));
  return { memory: next.memory, effects: [renew, ...next.effects, ...order, beat(held)] };
}

/** A supervisor is on the disk before it begins, so that whoever comes after a crash finds it. */
function begin(memory: Memory, run: LiveRun): Decided {
  const { requestKey, supervisor } = run;
  const record = { run: run.run, requestKey, state: "running" as const, supervisor };
  return {
    memory: put(memory, { ...run, stage: "working" }),
    effects: [
      { do: "store run", record },
      { do: "begin", run: run.run },
    ],
  };
}

/** The lease is another's, or nobody's. What works is killed at once; what has not begun never was. */
function lose(memory: Memory, run: LiveRun, detail: string): Decided {
  switch (run.stage) {
    case "waiting":
      return {
        memory: without(memory, run),
        effects: [
          { do: "kill", run: run.run, supervisor: run.supervisor },
          { do: "forget run", run: run.run },
          { do: "discard", run: run.run },
        ],
      };
    case "working": {
      const order: StopOrder = { reason: { code: "runner-lost", detail }, graceMs: 0, leaseLost: true };
      return { memory: put(memory, { ...run, lease: "lost" }), effects: [{ do: "stop", run: run.run, order }] };
    }
    case "ended":
      return unchanged(put(memory, { ...run, lease: "lost" }));
  }
}

/** The run is over for this runner. Where nobody proved that its processes are gone they are killed before a result says so. */
export function conclude(memory: Memory, run: LiveRun, end: End): Decided {
  const kill: Effect[] = end === "seen" ? [] : [{ do: "kill", run: run.run, supervisor: run.supervisor }];
  return {
    memory: put(memory, { ...run, stage: "ended" }),
    effects: [...kill, { do: "spool", run: run.run, end }],
  };
}

function answered(memory: Memory, run: RunId, final: boolean): Decided {
  if (!memory.spool.includes(run)) return unchanged(memory);
  if (!final) return { memory, effects: [{ do: "deliver", run }] };
  return { memory: { ...memory, spool: memory.spool.filter((one) => one !== run) }, effects: [{ do: "unspool", run }] };
}

/** The disk refused a write. What was to follow it was left out. */
function refused(memory: Memory, effect: Effect): Decided {
  switch (effect.do) {
    case "store key":
      return unchanged({ ...memory, key: memory.key === effect.key ? null : memory.key, asking: false });
    case "store run": {
      const run = memory.runs.find((one) => one.run === effect.record.run);
      if (run === undefined) return unchanged(memory);
      // Nothing of it is on the disk but its key, which brings it again, unless work was asked for under another one meanwhile: an answer to a
      // key that is not known any more would be waited for for ever. Then the broker's deadline for the acknowledgement sends the job elsewhere.
      if (effect.record.state === "assigned")
        return unchanged({ ...without(memory, run), key: memory.key ?? run.requestKey });
      return conclude(memory, run, "given-back");
    }
    // The heartbeats that were to follow were left out with it: without an end here the run would keep its place and never be heard of again.
    case "renew":
    case "begin": {
      const run = memory.runs.find((one) => one.run === effect.run);
      if (run === undefined || run.stage === "ended") return unchanged(memory);
      return conclude(memory, run, run.stage === "waiting" ? "given-back" : "lost");
    }
    // The result is the work: it is tried until the disk has room, and its run keeps its place until then.
    case "spool":
      return { memory, effects: [effect] };
    // A record that outlives its use costs a repeated delivery, which the broker knows.
    default:
      return unchanged(memory);
  }
}

function stop(memory: Memory): Decided {
  switch (memory.intent) {
    case "work":
      return drain({ ...memory, intent: "drain" });
    case "drain":
      return endRuns({ ...memory, intent: "end" });
    case "end": {
      const begun = memory.runs.filter(({ stage }) => stage === "working");
      const effects = begun.map(({ run, supervisor }): Effect => ({ do: "kill", run, supervisor }));
      return { memory: { ...memory, intent: "leave" }, effects };
    }
    case "leave":
      return unchanged(memory);
  }
}

/** An answer may be on its way to a poll that is broken off. Asked once more under its key, it comes again and is given back at once. */
function drain(memory: Memory): Decided {
  if (memory.key === null) return unchanged(memory);
  const last: Effect = { do: "poll", key: memory.key, busy: memory.runs.length, last: true };
  return { memory: { ...memory, asking: true }, effects: [last] };
}

function endRuns(memory: Memory): Decided {
  const effects: Effect[] = [];
  let next = memory;
  for (const run of memory.runs) {
    if (run.stage === "working") effects.push({ do: "stop", run: run.run, order: RUNNER_STOPPED });
    if (run.stage !== "waiting") continue;
    const given = conclude(next, run, "given-back");
    next = given.memory;
    effects.push(...given.effects);
  }
  return { memory: next, effects };
}

function put(memory: Memory, run: LiveRun): Memory {
  return { ...memory, runs: memory.runs.map((one) => (one.run === run.run ? run : one)) };
}

function without(memory: Memory, run: LiveRun): Memory {
  return { ...memory, runs: memory.runs.filter((one) => one.run !== run.run) };
}
