import type { Command } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import {
  type Decided,
  type Disk,
  type Effect,
  EMPTY_DISK,
  type Input,
  mayLeave,
  type Memory,
  type RunRecord,
  type Supervisor,
  written,
} from "../../runner/src/core/model.ts";
import { type Found, recover } from "../../runner/src/core/recover.ts";
import { step } from "../../runner/src/core/step.ts";

const RUN = "run-1";
const SUPERVISOR: Supervisor = { version: 1, pid: 7, startedAt: "1", boot: "b" };
const cancel = (number: number, force = false): Command => ({
  number,
  kind: "cancel",
  reason: { code: "cancelled", detail: "by a person" },
  graceMs: 7_000,
  force,
});
const accepted = (command: Command | null = null): Input => ({
  type: "heartbeat accepted",
  run: RUN,
  untilMs: 45_000,
  command,
});

/** A runner whose effects are carried out up to a crash: after so many of them, by default never. */
class Bench {
  disk: Disk;
  memory: Memory;
  done: Effect[] = [];

  constructor(disk: Disk = EMPTY_DISK, found: (record: RunRecord) => Found = () => "gone") {
    this.disk = disk;
    this.memory = { intent: "work", key: null, asking: false, runs: [], spool: [] };
    this.#carry(recover(disk, found));
  }

  tell(...inputs: Input[]): this {
    for (const input of inputs) this.#carry(step(this.memory, input));
    return this;
  }

  /** What was done since the last look. */
  look(): string[] {
    return this.done.splice(0).map((effect) => effect.do);
  }

  #carry({ memory, effects }: Decided): void {
    this.memory = memory;
    for (const effect of effects) {
      this.disk = written(this.disk, effect);
      this.done.push(effect);
    }
  }
}

const ASSIGNED: Input[] = [
  { type: "work wanted", freshKey: "a" },
  { type: "poll answered", key: "a", run: RUN },
];
const READY: Input = { type: "supervisor ready", run: RUN, supervisor: SUPERVISOR };
const WORKING: Input[] = [...ASSIGNED, READY, accepted()];
const ENDED: Input = { type: "supervisor ended", run: RUN, seen: true };
const KEPT: Input = { type: "result kept", run: RUN };

describe("asking for work", () => {
  it("puts a key on the disk before it is used, and keeps it until an assignment came under it", () => {
    const bench = new Bench().tell({ type: "work wanted", freshKey: "a" });
    expect(bench.look()).toEqual(["store key", "poll"]);
    bench.tell({ type: "poll failed", key: "a", last: false }, { type: "work wanted", freshKey: "b" });
    expect(bench.done).toEqual([{ do: "poll", key: "a", busy: 0, last: false }]);
    bench.tell({ type: "poll answered", key: "a", run: null }, { type: "work wanted", freshKey: "c" });
    expect(bench.disk.key).toBe("a");
  });

  it("asks once at a time", () => {
    const bench = new Bench().tell(ASSIGNED[0]!, ASSIGNED[0]!);
    expect(bench.look()).toEqual(["store key", "poll"]);
  });

  it("has the assignment on the disk before the key is gone, and both before anything else", () => {
    const bench = new Bench().tell(...ASSIGNED);
    expect(bench.look().slice(2)).toEqual(["store run", "forget key", "prepare", "heartbeat"]);
    expect(bench.disk).toMatchObject({ key: null, runs: [{ run: RUN, state: "assigned" }] });
  });

  it("starts nothing twice when the same assignment comes again", () => {
    const bench = new Bench().tell(...ASSIGNED, { type: "work wanted", freshKey: "b" });
    bench.look();
    bench.tell({ type: "poll answered", key: "b", run: RUN });
    expect(bench.look()).toEqual(["forget key"]);
    expect(bench.memory.runs).toHaveLength(1);
  });

  it("ignores the answer to a key that it does not use", () => {
    const bench = new Bench().tell(ASSIGNED[0]!, { type: "poll answered", key: "old", run: RUN });
    expect(bench.memory.runs).toEqual([]);
  });

  it("does not poll under a key that the disk refused", () => {
    const bench = new Bench().tell(ASSIGNED[0]!, { type: "write refused", effect: { do: "store key", key: "a" } });
    expect(bench.memory).toMatchObject({ key: null, asking: false });
  });

  it("keeps the key when the disk refuses the assignment", () => {
    const bench = new Bench().tell(...ASSIGNED);
    const effect = bench.done.find((one) => one.do === "store run")!;
    bench.tell({ type: "write refused", effect });
    expect(bench.memory).toMatchObject({ key: "a", runs: [] });
  });

  it("takes the answer to the question that it asked while the disk refused the assignment, and asks on", () => {
    const bench = new Bench().tell(...ASSIGNED);
    const effect = bench.done.find((one) => one.do === "store run")!;
    bench.tell({ type: "work wanted", freshKey: "b" }, { type: "write refused", effect });
    bench.tell({ type: "poll answered", key: "b", run: null });
    expect(bench.memory.asking).toBe(false);
  });
});

describe("beginning a run", () => {
  it.each([
    ["the supervisor is ready first", [READY, accepted()]],
    ["the heartbeat is accepted first", [accepted(), READY]],
  ])("needs a supervisor and an accepted heartbeat: %s", (_, inputs) => {
    const bench = new Bench().tell(...ASSIGNED, inputs[0]!);
    expect(bench.look()).not.toContain("begin");
    bench.tell(inputs[1]!);
    expect(bench.look()).toContain("begin");
    expect(bench.disk.runs).toEqual([{ run: RUN, requestKey: "a", state: "running", supervisor: SUPERVISOR }]);
  });

  it("writes the lease and the supervisor to the disk first", () => {
    const bench = new Bench().tell(...ASSIGNED, READY);
    bench.look();
    bench.tell(accepted());
    expect(bench.look()).toEqual(["renew", "store run", "begin", "heartbeat"]);
  });

  it.each(["renew", "begin"] as const)("gives a run back when the disk refuses to %s it", (refused) => {
    const bench = new Bench().tell(...ASSIGNED, READY, accepted());
    const effect = bench.done.find((one) => one.do === refused)!;
    bench.tell({ type: "write refused", effect });
    expect(bench.look().slice(-2)).toEqual(["kill", "spool"]);
    bench.tell(KEPT);
    expect(bench.memory.runs).toEqual([]);
  });

  it.each([
    ["the broker refuses the lease", { type: "heartbeat refused", run: RUN, detail: "stale" } as const],
    ["the time to acknowledge is over", { type: "lease ended", run: RUN } as const],
  ])("never happens when %s", (_, input) => {
    const bench = new Bench().tell(...ASSIGNED, READY);
    bench.look();
    bench.tell(input, accepted());
    expect(bench.look()).toEqual(["kill", "forget run", "discard"]);
    expect(bench.disk).toEqual(EMPTY_DISK);
  });

  it("tries the first heartbeat again while the broker is away", () => {
    const bench = new Bench().tell(...ASSIGNED, { type: "heartbeat failed", run: RUN });
    expect(bench.done.at(-1)).toEqual({ do: "heartbeat", run: RUN, first: true, seenCommand: 0 });
  });

  it.each([
    ["before its supervisor is ready", [accepted(), accepted(cancel(1)), READY]],
    ["with the first heartbeat", [READY, accepted(cancel(1))]],
  ])("never happens when the run is told to stop %s", (_, inputs) => {
    const bench = new Bench().tell(...ASSIGNED, ...inputs);
    expect(bench.look()).not.toContain("begin");
    expect(bench.memory.runs).toMatchObject([{ stage: "ended" }]);
    expect(bench.disk.spool).toEqual([RUN]);
  });

  it("gives the run back when its supervisor ends before it", () => {
    const bench = new Bench().tell(...ASSIGNED, READY, { type: "supervisor ended", run: RUN, seen: false });
    expect(bench.done.at(-1)).toEqual({ do: "spool", run: RUN, end: "not-begun" });
  });
});

describe("a run at work", () => {
  it("renews its lease with every accepted heartbeat, and asks again", () => {
    const bench = new Bench().tell(...WORKING);
    bench.look();
    bench.tell(accepted());
    expect(bench.look()).toEqual(["renew", "heartbeat"]);
  });

  it("obeys each command once, and a forced one without a grace", () => {
    const bench = new Bench().tell(...WORKING);
    bench.look();
    bench.tell(accepted(cancel(1)), accepted(cancel(1)), accepted(cancel(2, true)));
    const orders = bench.done.flatMap((effect) => (effect.do === "stop" ? [effect.order.graceMs] : []));
    expect(orders).toEqual([7_000, 0]);
    expect(bench.done.at(-1)).toMatchObject({ do: "heartbeat", seenCommand: 2 });
  });

  it("goes on while the broker is away", () => {
    const bench = new Bench().tell(...WORKING);
    bench.look();
    bench.tell({ type: "heartbeat failed", run: RUN });
    expect(bench.look()).toEqual(["heartbeat"]);
  });

  it.each([
    ["the broker refuses it", { type: "heartbeat refused", run: RUN, detail: "another runner has it" } as const],
    ["it ends by the clock", { type: "lease ended", run: RUN } as const],
  ])("is killed without a grace when its lease is lost: %s", (_, input) => {
    const bench = new Bench().tell(...WORKING);
    bench.look();
    bench.tell(input, accepted(), { type: "heartbeat failed", run: RUN });
    expect(bench.done).toEqual([
      { do: "stop", run: RUN, order: expect.objectContaining({ graceMs: 0, leaseLost: true }) },
    ]);
  });

  it("has its result in the spool before the journal forgets it", () => {
    const bench = new Bench().tell(...WORKING);
    bench.look();
    bench.tell(ENDED, KEPT);
    expect(bench.look()).toEqual(["spool", "forget run", "discard", "deliver"]);
    bench.tell({ type: "result answered", run: RUN, final: false });
    expect(bench.look()).toEqual(["deliver"]);
    bench.tell({ type: "result answered", run: RUN, final: true });
    expect(bench.disk).toEqual(EMPTY_DISK);
  });

  it("is proved to be over before a result says that its supervisor was killed", () => {
    const bench = new Bench().tell(...WORKING);
    bench.look();
    bench.tell({ type: "supervisor ended", run: RUN, seen: false });
    expect(bench.done).toEqual([
      { do: "kill", run: RUN, supervisor: SUPERVISOR },
      { do: "spool", run: RUN, end: "lost" },
    ]);
  });

  it("is killed and reported as lost when it goes on long after its grace", () => {
    const bench = new Bench().tell(...WORKING, accepted(cancel(1)));
    bench.look();
    bench.tell({ type: "stop overdue", run: RUN });
    expect(bench.look()).toEqual(["kill", "spool"]);
  });

  it("keeps its place until the disk has taken its result", () => {
    const bench = new Bench().tell(...WORKING, ENDED);
    const effect = bench.done.at(-1)!;
    bench.look();
    bench.tell({ type: "write refused", effect });
    expect(bench.done).toEqual([effect]);
    expect(bench.memory.runs).toHaveLength(1);
  });
});

describe("leaving", () => {
  const STOP: Input = { type: "told to stop" };

  it("waits for the runs, takes nothing new, and gives back what was on its way", () => {
    const bench = new Bench().tell(...WORKING, { type: "work wanted", freshKey: "b" });
    bench.look();
    bench.tell(STOP);
    expect(bench.done).toEqual([{ do: "poll", key: "b", busy: 1, last: true }]);
    bench.look();
    bench.tell({ type: "poll answered", key: "b", run: "run-2" });
    expect(bench.look()).toEqual(["store run", "forget key", "kill", "spool"]);
    bench.tell({ type: "result kept", run: "run-2" }, { type: "work wanted", freshKey: "c" });
    expect(mayLeave(bench.memory)).toBe(false);
    bench.tell(ENDED, KEPT);
    expect(mayLeave(bench.memory)).toBe(true);
  });

  it("waits for the last question, not for the poll that it broke off", () => {
    const bench = new Bench().tell(ASSIGNED[0]!, STOP, { type: "poll failed", key: "a", last: false });
    expect(mayLeave(bench.memory)).toBe(false);
    bench.tell({ type: "poll failed", key: "a", last: true });
    expect(mayLeave(bench.memory)).toBe(true);
    expect(bench.disk.key).toBe("a");
  });

  it("ends its runs when told twice, and gives back those that had not begun", () => {
    const bench = new Bench().tell(...WORKING, STOP);
    bench.look();
    bench.tell(STOP);
    expect(bench.done).toEqual([
      { do: "stop", run: RUN, order: { reason: expect.anything(), graceMs: null, leaseLost: false } },
    ]);
    const waiting = new Bench().tell(...ASSIGNED, STOP, STOP, accepted());
    expect(waiting.done.at(-1)).toEqual({ do: "spool", run: RUN, end: "given-back" });
  });

  it("kills its runs when told three times", () => {
    const bench = new Bench().tell(...WORKING, STOP, STOP);
    bench.look();
    bench.tell(STOP);
    expect(bench.look()).toEqual(["kill"]);
    expect(mayLeave(bench.memory)).toBe(true);
  });

  it("touches nothing when it leaves the runs to the next process", () => {
    const bench = new Bench().tell(...WORKING);
    const { disk } = bench;
    bench.look();
    bench.tell({ type: "told to leave the runs" }, ENDED, accepted());
    expect(bench.look()).toEqual([]);
    expect(bench.disk).toEqual(disk);
    expect(mayLeave(bench.memory)).toBe(true);
  });
});

describe("coming back", () => {
  const record: RunRecord = { run: RUN, requestKey: "a", state: "running", supervisor: SUPERVISOR };

  it("asks again for a run that had not begun", () => {
    const bench = new Bench({ key: "b", runs: [{ ...record, state: "assigned", supervisor: null }], spool: [] });
    expect(bench.look()).toEqual(["prepare", "heartbeat"]);
    expect(bench.memory.key).toBe("b");
  });

  it("forgets a key under which a run came already", () => {
    const bench = new Bench({ key: "a", runs: [{ ...record, state: "assigned", supervisor: null }], spool: [] });
    expect(bench.look()).toEqual(["forget key", "prepare", "heartbeat"]);
    expect(bench.memory.key).toBeNull();
  });

  it("follows a supervisor that works, and begins nothing", () => {
    const bench = new Bench({ key: null, runs: [record], spool: [] }, () => "alive");
    expect(bench.look()).toEqual(["attach", "heartbeat"]);
    bench.tell(accepted(cancel(1)));
    expect(bench.look()).toEqual(["renew", "stop", "heartbeat"]);
    bench.tell(ENDED, KEPT);
    expect(bench.look()).toEqual(["spool", "forget run", "discard", "deliver"]);
  });

  it("takes the end that a supervisor wrote", () => {
    const bench = new Bench({ key: null, runs: [record], spool: [] }, () => "ended");
    expect(bench.done).toEqual([{ do: "spool", run: RUN, end: "seen" }]);
  });

  it.each([
    ["is gone", record],
    ["was never named, as by an older runner", { ...record, supervisor: null }],
  ])("reports a run as lost whose supervisor %s", (_, one) => {
    const bench = new Bench({ key: null, runs: [one], spool: [] }, () => "gone");
    expect(bench.done.at(-1)).toEqual({ do: "spool", run: RUN, end: "lost" });
  });

  it("believes the spool when the crash came before the journal forgot the run", () => {
    const bench = new Bench({ key: null, runs: [record], spool: [RUN] });
    expect(bench.look()).toEqual(["forget run", "discard", "deliver"]);
  });

  it("delivers what waits in the spool", () => {
    expect(new Bench({ key: null, runs: [], spool: ["x", "y"] }).done).toEqual([
      { do: "deliver", run: "x" },
      { do: "deliver", run: "y" },
    ]);
  });

  it("comes to the same end after a crash at any write of a run's life", () => {
    const life: Input[] = [...WORKING, ENDED, KEPT, { type: "result answered", run: RUN, final: true }];
    const ends = new Set<string>();
    for (let crashAfter = 0; crashAfter < 9; crashAfter += 1) {
      let disk = EMPTY_DISK;
      let memory: Memory = { intent: "work", key: null, asking: false, runs: [], spool: [] };
      let left = crashAfter;
      for (const input of life) {
        const decided = step(memory, input);
        memory = decided.memory;
        for (const effect of decided.effects) {
          if (left === 0) continue;
          const next = written(disk, effect);
          if (next !== disk) left -= 1;
          disk = next;
        }
      }
      const bench = new Bench(disk, () => "ended");
      bench.tell({ type: "work wanted", freshKey: "z" }, { type: "poll answered", key: bench.memory.key!, run: RUN });
      bench.tell(READY, accepted(), ENDED, KEPT, { type: "result answered", run: RUN, final: true });
      const spooled = bench.done.filter((effect) => effect.do === "spool").length;
      ends.add(
        JSON.stringify({
          runs: bench.disk.runs,
          spool: bench.disk.spool,
          live: bench.memory.runs,
          spooled: spooled <= 1,
        }),
      );
    }
    expect([...ends]).toEqual([JSON.stringify({ runs: [], spool: [], live: [], spooled: true })]);
  });
});
