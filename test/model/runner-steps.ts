import type { Outcome } from "@plumule/protocol";
import { isPlanOpen } from "#durable-objects/deployment/core/model.ts";
import { mayLeave } from "../../runner/src/core/model.ts";
import { arriving, beat, misreport, report, takeResult } from "./calls.ts";
import type { Core } from "./core.ts";
import { append } from "./log.ts";
import { crash, type Fault, hearsEnd, Machine, runnerOf, supervisorOf, withProcess, withRunner } from "./machine.ts";
import { PoolStep } from "./pool.ts";
import type { Scope } from "./scopes.ts";
import { jobNamed, named, type Step, withPool } from "./step.ts";
import type { Going, Late, Lease, Process, RunnerModel, World } from "./world.ts";

/** Everything that runners and the network may do next. */
export function runnerSteps(core: Core, scope: Scope, world: World): Step[] {
  return [
    ...world.runners.flatMap((runner) => new RunnerSteps(core, scope, world, runner).all()),
    ...world.late.flatMap((late) => arriving(core, world, late)),
  ];
}

/** What one runner, its supervisors and the messages between them and the broker may do next. */
class RunnerSteps {
  readonly #core: Core;
  readonly #scope: Scope;
  readonly #world: World;
  readonly #runner: RunnerModel;
  readonly #name: string;
  readonly #faults: readonly Fault["kind"][];
  readonly #steps: Step[] = [];

  constructor(core: Core, scope: Scope, world: World, runner: RunnerModel) {
    this.#core = core;
    this.#scope = scope;
    this.#world = world;
    this.#runner = runner;
    this.#name = named(runner.id);
    this.#faults = [
      ...(scope.crashes ? (["killed before", "killed after"] as const) : []),
      ...(scope.isDiskFull ? (["refused"] as const) : []),
    ];
  }

  all(): Step[] {
    const { memory, going, processes } = this.#runner;
    if (memory === null) this.#ways("starts again", 2, (machine) => machine.restart(this.#world));
    else this.#asks();
    for (const { run, lease } of memory?.runs ?? [])
      if (lease === "asked" && this.#scope.isSlow)
        this.#ways("'s time to acknowledge is over", 1, (machine) =>
          machine.tell(this.#world, { type: "lease ended", run }),
        );
    for (const one of going) this.#hears(one);
    if (this.#scope.logs) this.#logs();
    for (const process of processes) if (process.state === "working") this.#works(process);
    this.#dies();
    if (memory !== null && this.#scope.people.includes("stop a runner")) this.#leaves();
    return this.#steps;
  }

  #add(label: string, take: () => World): void {
    this.#steps.push({ label: `${this.#name}${label.startsWith("'") ? "" : " "}${label}`, take });
  }

  /** A decision as it is carried out whole, and with each fault that `writeCount` writes give a place to. */
  #ways(label: string, writeCount: number, take: (machine: Machine) => World): void {
    const way = (fault: Fault | null) => (): World => {
      const machine = new Machine(this.#core, this.#scope, this.#runner.id, fault);
      const after = take(machine);
      return machine.isSpared ? this.#world : after;
    };
    this.#add(label, way(null));
    for (let at = 1; at <= writeCount; at += 1)
      for (const kind of this.#faults) this.#add(`${label}, ${kind} write ${at}`, way({ kind, at }));
  }

  #late(label: string, message: Late): void {
    if (this.#world.late.length < this.#scope.lateCount)
      this.#add(`${label} is delayed`, () => ({ ...this.#world, late: [...this.#world.late, message] }));
  }

  #lease(run: string): Lease {
    const lease = this.#runner.leases.find((one) => one.run === run);
    if (lease === undefined) throw new Error(`${this.#name} has no lease of ${run}`);
    return lease;
  }

  /** The long poll: asked when there is room, asked again when no answer can come any more. */
  #asks(): void {
    const { id, memory, going, reply, nameCount } = this.#runner;
    const poll = going.find((one) => one.do === "poll");
    const isParked = this.#world.pool.polls.some((one) => one.runner === id && one.key === poll?.key);
    if (memory === null || memory.intent === "leave" || memory.runs.length > 0) return;
    const wanted = { type: "work wanted" as const, freshKey: `${id}/${nameCount + 1}` };
    if (poll === undefined && memory.intent === "work")
      this.#ways("polls", 1, (machine) =>
        machine.tell(withRunner(this.#world, id, { nameCount: nameCount + 1 }), wanted),
      );
    if (poll === undefined || poll.last || (reply === null && isParked)) return;
    const failed = withRunner(this.#world, id, { reply: null, going: going.filter((one) => one !== poll) });
    this.#add(reply === null ? "polls again" : "loses the answer and polls again", () => {
      const machine = new Machine(this.#core, this.#scope, id);
      return machine.tell(machine.tell(failed, { type: "poll failed", key: poll.key, last: false }), wanted);
    });
  }

  #hears(one: Going): void {
    const { id, going } = this.#runner;
    const done = withRunner(this.#world, id, { going: going.filter((other) => other !== one) });
    switch (one.do) {
      case "poll":
        return this.#hearsPoll(one, done);
      case "heartbeat":
        return this.#hearsHeartbeat(one, done);
      case "deliver":
        return this.#delivers(one, done);
      case "prepare": {
        const { run } = one;
        const process = this.#runner.processes.find((other) => other.run === run && other.state === "waiting");
        if (process !== undefined)
          this.#ways("has a supervisor that waits", 1, (machine) =>
            machine.tell(done, { type: "supervisor ready", run, supervisor: supervisorOf(process) }),
          );
        const none = withProcess(done, id, run, () => null);
        this.#ways("cannot start a supervisor", 2, (machine) =>
          machine.tell(none, { type: "supervisor ended", run, seen: false }),
        );
      }
    }
  }

  #hearsPoll(poll: Extract<Going, { do: "poll" }>, done: World): void {
    const { id, reply, leases } = this.#runner;
    if (reply !== null) {
      const given = withRunner(done, id, {
        reply: null,
        leases: [...leases.filter(({ run }) => run !== reply.run), reply],
      });
      this.#ways(`takes the assignment of ${jobNamed(reply.job)}`, poll.last ? 4 : 2, (machine) =>
        machine.tell(given, { type: "poll answered", key: poll.key, run: reply.run }),
      );
    } else if (poll.last)
      this.#ways("gets nothing before it leaves", 1, (machine) => {
        const pool = new PoolStep(done.pool);
        pool.end({ runner: id, key: poll.key });
        return machine.tell(withPool(done, pool), { type: "poll answered", key: poll.key, run: null });
      });
  }

  #hearsHeartbeat({ run, first, seenCommand }: Extract<Going, { do: "heartbeat" }>, done: World): void {
    const lease = this.#lease(run);
    const isWaiting = this.#runner.memory?.runs.some((one) => one.run === run && one.stage === "waiting") === true;
    this.#ways("sends a heartbeat", isWaiting ? 1 : 0, (machine) => {
      const { world, answer } = beat(this.#core, done, lease);
      if (answer === null) {
        this.#scope.seen.add(first ? "a first heartbeat refused" : "a heartbeat of a lost lease");
        return machine.tell(world, { type: "heartbeat refused", run, detail: "stale" });
      }
      const command = answer.command !== null && answer.command.number > seenCommand ? answer.command : null;
      return machine.tell(world, { type: "heartbeat accepted", run, untilMs: 0, command });
    });
    this.#add("sends a heartbeat, the answer is lost", () => {
      const machine = new Machine(this.#core, this.#scope, this.#runner.id);
      return machine.tell(beat(this.#core, done, lease).world, { type: "heartbeat failed", run });
    });
    if (this.#scope.isWrong) this.#misreports(lease);
    this.#late("'s heartbeat", { kind: "heartbeat", lease });
  }

  /** A runner that says what it may not: nothing changes. */
  #misreports(lease: Lease): void {
    for (const [label, proof] of [
      ["reports a phase of the broker", lease],
      ["reports with another token", { ...lease, leaseSha256: "another" }],
    ] as const)
      this.#add(label, () => misreport(this.#core, this.#scope, this.#world, proof));
  }

  /** What happens under a supervisor. A run begins to apply only after the broker has taken its word for it. */
  #works({ run, applying, ordered, logBytes, batch }: Process): void {
    const { id, memory } = this.#runner;
    const isHeld = memory?.runs.some((one) => one.run === run && one.lease === "held") === true;
    const { pending, takenCount } = batch;
    const canApply = isHeld && !applying && !ordered && this.#scope.applies;
    if (pending !== null ? isHeld : canApply) this.#reports(run, pending ?? "applying", takenCount + 1);
    if (isHeld && pending === null && this.#scope.reports && takenCount < 2)
      this.#reports(run, "progress", takenCount + 1);
    if (this.#scope.logs && logBytes < 2)
      this.#add("'s run writes a byte", () =>
        withProcess(this.#world, id, run, (one) => ({ ...one, logBytes: logBytes + 1 })),
      );
    const outcomes: readonly Outcome[] = ordered ? ["cancelled", "succeeded"] : this.#outcomes(run);
    for (const outcome of outcomes)
      this.#ends(`'s run ends: ${outcome}`, run, (one) => ({ ...one, state: "ended", outcome }));
    const { liar } = this.#world;
    if (this.#scope.lies && outcomes.includes("succeeded") && (liar === null || liar === id))
      this.#ends(
        "'s run ends: succeeded, with something else",
        run,
        (one) => ({ ...one, state: "ended", outcome: "succeeded", content: "false" }),
        { ...this.#world, liar: id },
      );
    if (this.#scope.crashes || this.#scope.isKilled)
      this.#ends("'s supervisor is killed", run, (one) => ({ ...one, state: "killed" }));
    if (memory !== null && ordered && this.#scope.isSlow)
      this.#ways("'s run goes on long after its grace", 2, (machine) =>
        machine.tell(this.#world, { type: "stop overdue", run }),
      );
    if (isHeld && this.#scope.isSlow)
      this.#ways("'s lease ends by its own clock", 0, (machine) =>
        machine.tell(this.#world, { type: "lease ended", run }),
      );
  }

  /** How a run may end by itself: one that has to make a plan has applied nothing. */
  #outcomes(run: string): readonly Outcome[] {
    const job = this.#world.state.jobs.find(({ runs }) => runs.some(({ id }) => id === run));
    if (job?.brief.planned !== true) return this.#scope.outcomes;
    return this.#scope.outcomes.filter((outcome) => (outcome === "succeeded") !== isPlanOpen(job));
  }

  /** A batch is sent until it was answered; only then the next one. */
  #reports(run: string, event: "applying" | "progress", number: number): void {
    const { id } = this.#runner;
    const sent = { lease: this.#lease(run), number, event };
    const label = event === "applying" ? "begins to apply" : "reports its progress";
    this.#add(label, () => {
      const { world, taken } = report(this.#core, this.#world, sent);
      if (!taken) return world;
      return withProcess(world, id, run, (one) => ({
        ...one,
        applying: one.applying || event === "applying",
        batch: { takenCount: number, pending: null },
      }));
    });
    if (this.#scope.reports)
      this.#add(`${label}, the answer is lost`, () =>
        withProcess(report(this.#core, this.#world, sent).world, id, run, (one) => ({
          ...one,
          batch: { takenCount: number - 1, pending: event },
        })),
      );
    this.#late("'s report", { kind: "report", ...sent });
  }

  /** The log goes up from where the broker is known to stand, while the run goes on and before its result. */
  #logs(): void {
    const { id, memory, leases, processes, results, sentBytes } = this.#runner;
    const [lease] = leases;
    if (memory === null || lease === undefined) return;
    const logBytes =
      results.find((one) => one.lease.run === lease.run)?.logBytes ??
      processes.find(({ run }) => run === lease.run)?.logBytes ??
      0;
    if (this.#scope.isWrong) this.#mislogs(lease);
    if (sentBytes >= logBytes) return;
    const chunk = { lease, offset: sentBytes, length: logBytes - sentBytes };
    this.#add("sends its log", () => {
      const { world, bytes } = append(this.#world, chunk);
      // A refused log is given up: the result says how long it was.
      return withRunner(world, id, { sentBytes: bytes ?? logBytes });
    });
    this.#add("sends its log, the answer is lost", () => append(this.#world, chunk).world);
    this.#late("'s log", { kind: "log", ...chunk });
  }

  /** A runner that sends a log that is none: nothing changes. */
  #mislogs(lease: Lease): void {
    for (const [label, offset, isOther] of [
      ["sends a log with a hole", 3, false],
      ["sends another log", 0, true],
    ] as const)
      this.#add(label, () => {
        const { world, refused } = append(this.#world, { lease, offset, length: 1, isOther });
        if (refused !== null) this.#scope.seen.add(`refused ${refused}`);
        return world;
      });
  }

  #ends(label: string, run: string, change: (one: Process) => Process, world = this.#world): void {
    const { id, memory } = this.#runner;
    const ended = withProcess(world, id, run, (one) => (one.state === "working" ? change(one) : one));
    if (memory === null) this.#add(label, () => ended);
    else this.#ways(label, 2, (machine) => hearsEnd(machine, ended, id, run));
  }

  /** The process is killed where it matters: while something of it is on the disk that nobody else knows. */
  #dies(): void {
    const { id, disk, memory, reply, processes } = this.#runner;
    if (!this.#scope.crashes && !this.#scope.isDiskFull) return;
    const matters = disk.runs.length > 0 || disk.spool.length > 0 || reply !== null;
    if (memory !== null && matters) this.#add("is killed", () => crash(this.#core, this.#world, id));
    if (processes.some(({ state }) => state === "working"))
      this.#add("'s machine is restarted", () => {
        const down = crash(this.#core, this.#world, id);
        const left = runnerOf(down, id).processes.map((one) =>
          one.state === "working" ? { ...one, state: "killed" as const } : one,
        );
        return withRunner(down, id, { processes: left });
      });
  }

  #leaves(): void {
    const { id, memory } = this.#runner;
    if (memory === null) return;
    const told = { ...this.#world, peopleCount: this.#world.peopleCount + 1 };
    if (told.peopleCount <= this.#scope.peopleCount)
      this.#ways("is told to stop", memory.intent === "drain" ? 2 : 0, (machine) =>
        machine.tell(told, { type: "told to stop" }),
      );
    if (mayLeave(memory)) this.#add("leaves", () => crash(this.#core, this.#world, id));
  }

  /** The first result of the spool goes out; it leaves the spool when the answer comes. */
  #delivers({ run }: Extract<Going, { do: "deliver" }>, done: World): void {
    const result = this.#runner.results.find(({ lease }) => lease.run === run);
    if (result === undefined || this.#runner.disk.spool[0] !== run) return;
    // The rest of the log goes before the result.
    if (this.#scope.logs && this.#runner.sentBytes < result.logBytes) return;
    const label = `delivers its result: ${result.outcome}`;
    const answered = (machine: Machine, world: World): World =>
      machine.tell(world, { type: "result answered", run, final: true });
    const take = (world: World): World => takeResult(this.#core, this.#scope, world, result);
    this.#ways(label, 0, (machine) => answered(machine, take(done)));
    this.#add(`${label}, the answer is lost`, () => {
      const machine = new Machine(this.#core, this.#scope, this.#runner.id);
      return machine.tell(take(done), { type: "result answered", run, final: false });
    });
    if (this.#world.late.length < this.#scope.lateCount)
      this.#ways(`${label}, with a late copy`, 0, (machine) => {
        const world = answered(machine, take(done));
        return { ...world, late: [...world.late, { kind: "result", result }] };
      });
  }
}
