import { JOB_STATES, OUTCOMES } from "@plumule/protocol";
import { type Job, lossCount, type Run } from "#durable-objects/deployment/core/model.ts";
import {
  jobIndex,
  type Call,
  type Going,
  type Late,
  type Lease,
  type PollModel,
  type RunnerModel,
  type World,
} from "./world.ts";

/** 64 bits that stand for a state: among ten million states two differ with equal bits once in three hundred thousand searches. */
export type Digest = { high: number; low: number };

/** The first `length` numbers mixed down (cyrb53, with all of its bits). */
export function mix(numbers: ArrayLike<number>, length: number): Digest {
  let [one, two] = [0xdeadbeef ^ length, 0x41c6ce57];
  for (let index = 0; index < length; index += 1) {
    const number = numbers[index] ?? 0;
    one = Math.imul(one ^ number, 2654435761);
    one = (one << 13) | (one >>> 19);
    two = Math.imul(two ^ number, 1597334677);
    two = (two << 17) | (two >>> 15);
  }
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(two ^ (two >>> 13), 3266489909);
  two = Math.imul(two ^ (two >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return { high: two >>> 0, low: one >>> 0 };
}

/** Numbers for texts of which there are few. */
const CODES = new Map<string, number>();

function codeOf(text: string): number {
  const known = CODES.get(text) ?? CODES.size;
  CODES.set(text, known);
  return known;
}

const INTENTS = ["work", "drain", "end", "leave"];
const LEASES = ["asked", "held", "lost"];
const STAGES = ["waiting", "working", "ended"];
const DOINGS = ["waiting", "working", "ended", "killed"];
const PENDING = ["nothing", "applying", "progress"];
const ENDINGS = ["cancelled", "superseded", "failed"];
const GOING = ["poll", "heartbeat", "prepare", "deliver"];
const LATE = ["heartbeat", "report", "result", "put", "drop", "log"];

/**
 * A state as numbers under one order of the runners: everything that a later step can depend on is in it, and nothing else. Names and numbers
 * that were made up count only by what is equal to what, and epochs by their rank: which one is older, not how many there were.
 */
class Encoder {
  readonly #numbers = new Int32Array(4_096);
  #length = 0;
  #keys: string[] = [];
  #world!: World;
  #ranks: readonly number[] = [];
  readonly #places = new Map<string, number>();

  encode(world: World, order: readonly number[], ranks: readonly number[]): void {
    this.#world = world;
    this.#ranks = ranks;
    this.#length = 0;
    this.#keys = [];
    this.#places.clear();
    order.forEach((from, to) => this.#places.set(world.runners[from]?.id ?? "", to));
    const { lane, jobs } = world.state;
    this.#push(this.#rank(lane.epoch), this.#rank(world.grantedEpoch));
    this.#push(Number(lane.removing) + 2 * Number(lane.removedAt !== null), world.submittedCount, world.peopleCount);
    for (const index of order) {
      const runner = world.runners[index];
      if (runner !== undefined) this.#runner(runner);
    }
    for (const drop of lane.drops) this.#push(jobIndex(drop.job), this.#rank(drop.number));
    this.#push(-1);
    for (const job of jobs) this.#job(job);
    this.#pool();
    this.#some(
      world.said.map(
        (one) => this.#who(one.lease.runner) * 64 + OUTCOMES.indexOf(one.outcome) * 2 + Number(one.content === "true"),
      ),
    );
    for (const { epoch, bytes } of world.logs) this.#push(this.#rank(epoch), bytes);
    this.#some((world.unknown ?? []).map(({ id }) => jobIndex(id)));
    this.#push(world.liar === null ? -1 : this.#who(world.liar));
    this.#some(world.calls.map((call) => this.#call(call)));
    this.#some(world.late.map((late) => this.#late(late)));
  }

  digest(): Digest {
    return mix(this.#numbers, this.#length);
  }

  #push(...numbers: readonly number[]): void {
    for (const number of numbers) this.#numbers[this.#length++] = number;
  }

  /** Numbers of which the order does not count. */
  #some(numbers: readonly number[]): void {
    this.#push(numbers.length, ...(numbers.length < 2 ? numbers : numbers.toSorted((a, b) => a - b)));
  }

  #rank(epoch: number): number {
    return this.#ranks.indexOf(epoch);
  }

  #who(runner: string): number {
    return this.#places.get(runner) ?? 7;
  }

  #key(key: string | null): number {
    if (key === null) return 0;
    const known = this.#keys.indexOf(key);
    return known < 0 ? this.#keys.push(key) : known + 1;
  }

  #lease(lease: Lease | null | undefined): number {
    return lease == null ? 0 : 1 + this.#rank(lease.epoch) * 32 + jobIndex(lease.job) * 8 + this.#who(lease.runner);
  }

  #runner(runner: RunnerModel): void {
    const { disk, memory, going, processes, results, reply, leases } = runner;
    const lease = (run: string): number =>
      this.#lease(leases.find((one) => one.run === run) ?? results.find((one) => one.lease.run === run)?.lease);
    const process = (pid: number | undefined): number =>
      pid === undefined ? 0 : 2 + processes.findIndex((one) => one.pid === pid);
    this.#push(
      -2,
      runner.sentBytes,
      this.#key(disk.key),
      this.#lease(reply),
      disk.runs.length,
      disk.spool.length,
      processes.length,
    );
    for (const { run, requestKey, state, supervisor } of disk.runs)
      this.#push(lease(run), this.#key(requestKey), Number(state === "running"), process(supervisor?.pid));
    for (const run of disk.spool) this.#push(lease(run));
    for (const { run, state, applying, ordered, outcome, content, logBytes, batch } of processes)
      this.#push(
        lease(run),
        DOINGS.indexOf(state) * 8 + 4 * Number(content === "true") + 2 * Number(applying) + Number(ordered),
        outcome === null ? 0 : 1 + OUTCOMES.indexOf(outcome),
        logBytes * 64 + batch.takenCount * 4 + PENDING.indexOf(batch.pending ?? "nothing"),
      );
    for (const { lease: of, outcome, content, reason, applied, logBytes, batch } of results)
      this.#push(
        this.#lease(of),
        OUTCOMES.indexOf(outcome) * 8 + 4 * Number(content === "true") + 2 * Number(reason !== null) + Number(applied),
        logBytes * 64 + batch.takenCount * 4 + PENDING.indexOf(batch.pending ?? "nothing"),
      );
    if (memory === null) return this.#push(-3);
    const { intent, key, asking, runs, spool } = memory;
    this.#push(INTENTS.indexOf(intent), this.#key(key), Number(asking), runs.length, spool.length);
    for (const { run, requestKey, lease: held, stage, supervisor, seenCommand } of runs)
      this.#push(
        lease(run),
        this.#key(requestKey),
        LEASES.indexOf(held) * 4 + STAGES.indexOf(stage),
        process(supervisor?.pid),
        seenCommand,
      );
    for (const run of spool) this.#push(lease(run));
    this.#some(going.map((one) => this.#going(one, "run" in one ? lease(one.run) : 0)));
  }

  #going(one: Going, lease: number): number {
    const kind = GOING.indexOf(one.do) + 4 * lease;
    if (one.do === "poll") return kind + 65_536 * (this.#key(one.key) * 2 + Number(one.last));
    return one.do === "heartbeat" ? kind + 65_536 * (one.seenCommand * 2 + Number(one.first)) : kind;
  }

  #job(job: Job): void {
    const { ticket, ending, command, brief, avoid, runs } = job;
    const told = this.#world.told[jobIndex(job.id)];
    this.#push(
      -4,
      jobIndex(job.id) * 32 + JOB_STATES.indexOf(job.state),
      Number(job.phase === "applying") + 2 * (job.ready === null ? 0 : job.ready.reason === "debounce" ? 1 : 2),
      Number(told?.stopped ?? false) + 2 * Number(told?.unseen ?? false) + 4 * planCode(job),
      codeOf(`${brief.retry?.onFailure ?? false} ${brief.dedupeKey ?? ""} ${job.teardown}`),
      ticket === null ? -1 : this.#rank(ticket.number) * 8 + 2 * ticket.tryCount + Number(ticket.placed),
      ending === null ? 0 : 1 + ENDINGS.indexOf(ending.state),
      (command?.number ?? 0) * 2 + Number(command?.force ?? false),
      avoid.reduce((bits, id) => bits | (1 << this.#who(id)), 0),
      runs.length,
    );
    for (const run of runs) if (run.finishedAt === null) this.#run(run);
    if (job.quorum !== undefined) this.#quorum(job, job.quorum);
  }

  #run({ state, epoch, runner, requestKey, reportNumber, progressUntold, progressAt }: Run): void {
    const key = state === "assigned" ? this.#key(requestKey) : -1;
    this.#push(
      this.#rank(epoch),
      this.#who(runner),
      key,
      reportNumber * 4 + 2 * Number(progressUntold) + Number(progressAt > 0),
    );
  }

  #quorum(job: Job, { tieBreakCount, closed, conclusion, verdict }: NonNullable<Job["quorum"]>): void {
    this.#push(
      -6,
      tieBreakCount * 2 + Number(closed),
      lossCount(job),
      codeOf(`${conclusion?.state} ${verdict?.verdict} ${verdict?.agreeing} ${verdict?.diverging}`),
    );
  }

  #poll({ runner, key }: PollModel): number {
    return this.#who(runner) * 16 + this.#key(key);
  }

  #pool(): void {
    const { pool, runners } = this.#world;
    this.#push(-5, pool.tickets.length);
    for (const { job, number, avoid, needs } of pool.tickets)
      this.#push(
        jobIndex(job),
        this.#rank(number),
        avoid.reduce((bits, id) => bits | (1 << this.#who(id)), 0),
        (needs.except ?? []).reduce((bits, id) => bits | (1 << this.#who(id)), 0),
      );
    this.#push(pool.known.reduce((bits, id) => bits | (1 << this.#who(id)), 0));
    // Who was seen last, and who waits longest, goes last and first: the order of polls is the pool's own.
    this.#push(pool.polls.length, ...pool.polls.map((one) => this.#poll(one)));
    this.#some(pool.claims.map((one) => this.#poll(one) * 4_096 + jobIndex(one.job) * 64 + this.#rank(one.number)));
    this.#some(pool.reservations.map((one) => this.#poll(one)));
    // Nobody asks any more under a key that its runner has forgotten.
    const awaited = pool.deliveries.filter(({ runner, key }) =>
      runners.some(({ id, disk, memory }) => id === runner && (disk.key === key || memory?.key === key)),
    );
    this.#some(awaited.map((one) => this.#poll(one) * 65_536 + this.#lease(one.lease)));
  }

  #call(call: Call): number {
    if (call.kind === "put") return jobIndex(call.job) * 64 + this.#rank(call.number);
    if (call.kind === "reserved") return 65_536 + jobIndex(call.job) * 4_096 + this.#poll(call.poll);
    const { brief, receivedAt } = call.submission;
    const place = this.#poll(call.poll) * 1_024 + codeOf(JSON.stringify([brief, receivedAt]));
    return 1_048_576 + place * 2 + Number(call.head !== this.#world.head);
  }

  #late(late: Late): number {
    const kind = LATE.indexOf(late.kind);
    switch (late.kind) {
      case "put":
        return kind + 8 * (jobIndex(late.ticket.job) * 64 + this.#rank(late.ticket.number));
      case "drop":
        return kind + 8 * (jobIndex(late.job) * 64 + this.#rank(late.number));
      case "log":
        return kind + 8 * (this.#lease(late.lease) * 16 + late.offset * 4 + late.length);
      case "report":
        return kind + 8 * (this.#lease(late.lease) * 16 + late.number * 2 + Number(late.event === "applying"));
      case "result":
        return kind + 8 * (this.#lease(late.result.lease) * 8 + OUTCOMES.indexOf(late.result.outcome));
      default:
        return kind + 8 * this.#lease(late.lease);
    }
  }
}

/** Whether a job has a plan, and an approved one. */
function planCode({ plan }: Job): number {
  return plan === undefined ? 0 : plan.approved === null ? 1 : 2;
}

/** Every epoch that something in the world still names, from the oldest. */
function epochsOf(world: World): number[] {
  const { lane, jobs } = world.state;
  const { pool } = world;
  const epochs: number[] = [lane.epoch, world.grantedEpoch];
  for (const { number } of lane.drops) epochs.push(number);
  for (const { ticket, runs } of jobs) {
    if (ticket !== null) epochs.push(ticket.number);
    for (const { finishedAt, epoch } of runs) if (finishedAt === null) epochs.push(epoch);
  }
  for (const { number } of pool.tickets) epochs.push(number);
  for (const { number } of pool.claims) epochs.push(number);
  for (const { lease } of pool.deliveries) epochs.push(lease.epoch);
  for (const { reply, leases, results } of world.runners) {
    if (reply !== null) epochs.push(reply.epoch);
    for (const { epoch } of leases) epochs.push(epoch);
    for (const { lease } of results) epochs.push(lease.epoch);
  }
  for (const call of world.calls) if (call.kind === "put") epochs.push(call.number);
  for (const late of world.late)
    epochs.push(
      late.kind === "put"
        ? late.ticket.number
        : late.kind === "drop"
          ? late.number
          : late.kind === "result"
            ? late.result.lease.epoch
            : late.lease.epoch,
    );
  epochs.sort((a, b) => a - b);
  return epochs.filter((epoch, index) => epoch !== epochs[index - 1]);
}

/** What tells a runner apart whatever the others are called; runners with equal traits may be each other. */
function traitOf(world: World, runner: RunnerModel, epochs: readonly number[]): number {
  const { id, disk, memory, going, processes, leases, reply } = runner;
  const { pool, state, said, liar } = world;
  let trait = 0;
  const mix = (number: number): void => {
    trait = Math.imul(trait ^ (number + 1), 2654435761);
    trait ^= trait >>> 15;
  };
  mix(disk.runs.length * 4 + disk.spool.length);
  mix(memory === null ? -1 : INTENTS.indexOf(memory.intent) * 2 + Number(memory.asking));
  for (const { stage, lease } of memory?.runs ?? []) mix(STAGES.indexOf(stage) * 4 + LEASES.indexOf(lease));
  mix(going.length);
  for (const { state: doing } of processes) mix(DOINGS.indexOf(doing));
  for (const { epoch } of leases) mix(epochs.indexOf(epoch));
  mix(reply === null ? -1 : epochs.indexOf(reply.epoch));
  mix(pool.polls.findIndex((one) => one.runner === id));
  mix(Number(pool.known.includes(id)) * 2 + Number(liar === id));
  for (const one of pool.claims) if (one.runner === id) mix(epochs.indexOf(one.number));
  for (const { avoid } of state.jobs) mix(Number(avoid.includes(id)));
  for (const { lease, content } of said) if (lease.runner === id) mix(Number(content === "true"));
  return trait;
}

/** The orders of the runners in which one of those has to be found that give the least digest: sorted by trait, equal ones in any order. */
function ordersOf(traits: readonly number[]): number[][] {
  let orders: number[][] = [[]];
  const sorted = traits.map((trait, index) => ({ trait, index })).sort((a, b) => a.trait - b.trait);
  for (let from = 0; from < sorted.length;) {
    const same = sorted.filter(({ trait }) => trait === sorted[from]?.trait).map(({ index }) => index);
    orders = orders.flatMap((order) => permutations(same).map((rest) => [...order, ...rest]));
    from += same.length;
  }
  return orders;
}

function permutations(items: readonly number[]): number[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item) => permutations(items.filter((one) => one !== item)).map((rest) => [item, ...rest]));
}

const ENCODER = new Encoder();

/** The same digest for a state and all that differ from it only in names, numbers and the order of equal runners. */
export function digest(world: World): Digest {
  const epochs = epochsOf(world);
  const traits = world.runners.map((runner) => traitOf(world, runner, epochs));
  let least: Digest | null = null;
  for (const order of ordersOf(traits)) {
    ENCODER.encode(world, order, epochs);
    const one = ENCODER.digest();
    if (least === null || one.high < least.high || (one.high === least.high && one.low < least.low)) least = one;
  }
  return least ?? { high: 0, low: 0 };
}
