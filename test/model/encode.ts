import { isOccupying, type Job } from "#durable-objects/deployment/core/model.ts";
import { jobIndex, type Late, type Lease, type World } from "./world.ts";

/** Names by order of appearance, so that only what is equal to what counts. */
class Names {
  readonly #numbers = new Map<string, number>();

  of(name: string): number {
    const known = this.#numbers.get(name) ?? this.#numbers.size;
    this.#numbers.set(name, known);
    return known;
  }
}

/** Epochs by rank: which one is older counts, not how many there were. */
function ranksOf(world: World): Map<number, number> {
  const epochs = new Set<number>([world.state.lane.epoch, world.grantedEpoch]);
  for (const { number } of world.state.lane.drops) epochs.add(number);
  for (const { ticket, runs } of world.state.jobs) {
    if (ticket !== null) epochs.add(ticket.number);
    const run = runs.at(-1);
    if (run !== undefined) epochs.add(run.epoch);
  }
  for (const { number } of world.pool.tickets) epochs.add(number);
  for (const { number } of world.pool.claims) epochs.add(number);
  for (const { lease } of world.pool.deliveries) epochs.add(lease.epoch);
  for (const { reply, run, spool } of world.runners) {
    if (reply !== null) epochs.add(reply.epoch);
    if (run !== null) epochs.add(run.lease.epoch);
    for (const { lease } of spool) epochs.add(lease.epoch);
  }
  for (const call of world.calls) {
    if (call.kind === "put") epochs.add(call.number);
  }
  for (const late of world.late) epochs.add(epochOf(late));
  return new Map([...epochs].sort((a, b) => a - b).map((epoch, rank) => [epoch, rank]));
}

function epochOf(late: Late): number {
  switch (late.kind) {
    case "put":
      return late.ticket.number;
    case "drop":
      return late.number;
    case "result":
      return late.result.lease.epoch;
    default:
      return late.lease.epoch;
  }
}

/** The state as text under one order of the runners. Everything that a later step can depend on is in it, and nothing else. */
function encodeAs(world: World, order: readonly number[], ranks: Map<number, number>): string {
  const keys = new Names();
  const runnerOf = new Map(order.map((from, to) => [world.runners[from]?.id ?? "", to]));
  const rank = (epoch: number): number => ranks.get(epoch) ?? -1;
  const who = (id: string): number => runnerOf.get(id) ?? -1;
  const lease = (one: Lease | null): string =>
    one === null ? "-" : `${jobIndex(one.job)}.${rank(one.epoch)}.${who(one.runner)}`;
  const parts: string[] = [];
  for (const index of order) {
    const runner = world.runners[index];
    if (runner === undefined) continue;
    const { key, reply, run, spool } = runner;
    const own =
      run === null
        ? "-"
        : `${lease(run.lease)}${Number(run.working)}${Number(run.applying)}${Number(run.stopped)}${Number(run.fenced)}`;
    const results = spool
      .map((one) => `${lease(one.lease)}${one.outcome}${one.reason?.code ?? ""}${Number(one.applied)}`)
      .join();
    parts.push(`R${key === null ? "-" : keys.of(key)}|${lease(reply)}|${own}|${results}`);
  }
  const { lane } = world.state;
  const poll = (one: { runner: string; key: string }): string => `${who(one.runner)}:${keys.of(one.key)}`;
  const sorted = (list: readonly string[]): string => (list.length < 2 ? (list[0] ?? "") : list.toSorted().join());
  parts.push(
    `L${rank(lane.epoch)}${rank(world.grantedEpoch)}${Number(lane.removing)}${Number(lane.removedAt !== null)}`,
  );
  parts.push(lane.drops.map((drop) => `${jobIndex(drop.job)}.${rank(drop.number)}`).join());
  for (const job of world.state.jobs) parts.push(encodeJob(world, job, rank, who, keys));
  const { pool } = world;
  parts.push(
    `P${pool.tickets.map((one) => `${jobIndex(one.job)}.${rank(one.number)}.${one.avoid.map(who).join("+")}`).join()}`,
  );
  parts.push(sorted(pool.known.map((id) => String(who(id)))), sorted(pool.polls.map(poll)));
  parts.push(
    sorted(pool.claims.map((one) => `${poll(one)}.${jobIndex(one.job)}.${rank(one.number)}`)),
    sorted(pool.reservations.map(poll)),
  );
  parts.push(
    sorted(pool.deliveries.flatMap((one) => (isAwaited(world, one) ? [`${poll(one)}.${lease(one.lease)}`] : []))),
  );
  const calls = world.calls.map((call) => {
    if (call.kind === "put") return `p${jobIndex(call.job)}.${rank(call.number)}`;
    return `r${poll(call.poll)}.${jobIndex(call.job)}`;
  });
  parts.push(sorted(calls));
  parts.push(
    `N${sorted(world.late.map((late) => `${late.kind}${rank(epochOf(late))}${"result" in late ? late.result.outcome : ""}${"job" in late ? jobIndex(late.job) : ""}${"ticket" in late ? jobIndex(late.ticket.job) : ""}`))}`,
  );
  parts.push(`C${world.submittedCount}.${world.peopleCount}`);
  return parts.join("/");
}

function encodeJob(
  world: World,
  job: Job,
  rank: (epoch: number) => number,
  who: (id: string) => number,
  keys: Names,
): string {
  const run = job.runs.at(-1);
  const live =
    isOccupying(job) && run !== undefined
      ? `${rank(run.epoch)}.${who(run.runner)}.${job.state === "assigned" ? keys.of(run.requestKey) : ""}.${run.reportNumber}`
      : "-";
  const ticket =
    job.ticket === null ? "-" : `${rank(job.ticket.number)}${Number(job.ticket.placed)}${job.ticket.tryCount}`;
  const told = world.told[jobIndex(job.id)];
  const ending = `${job.ending?.state ?? ""}${job.command?.number ?? 0}${Number(job.command?.force ?? false)}`;
  const brief = `${Number(job.brief.retry?.onFailure ?? false)}`;
  return `J${jobIndex(job.id)}${job.state}${job.phase === "applying" ? "!" : ""}${job.ready?.reason ?? ""}|${job.runs.length}|${live}|${ticket}|${ending}|${brief}|${job.avoid
    .map(who)
    .toSorted((a, b) => a - b)
    .join("+")}|${Number(told?.stopped ?? false)}${Number(told?.unseen ?? false)}`;
}

/** Nobody asks any more under a key that its runner has forgotten. */
function isAwaited({ runners }: World, { runner, key }: { runner: string; key: string }): boolean {
  return runners.some((one) => one.id === runner && one.key === key);
}

function permutations(items: readonly number[]): number[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item) => permutations(items.filter((one) => one !== item)).map((rest) => [item, ...rest]));
}

const ORDERS = new Map<number, number[][]>();

/** One text for a state and all that differ from it only in names, numbers and the order of equal runners. */
export function encode(world: World): string {
  const count = world.runners.length;
  const orders = ORDERS.get(count) ?? permutations(Array.from({ length: count }, (_, index) => index));
  ORDERS.set(count, orders);
  const ranks = ranksOf(world);
  let least = "";
  for (const order of orders) {
    const text = encodeAs(world, order, ranks);
    if (least === "" || text < least) least = text;
  }
  return least;
}

/** 53 bits of a text (cyrb53): among a million states two differ with equal bits once in twenty thousand searches. */
export function digest(text: string): number {
  let [one, two] = [0xdeadbeef, 0x41c6ce57];
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    one = Math.imul(one ^ code, 2654435761);
    two = Math.imul(two ^ code, 1597334677);
  }
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(two ^ (two >>> 13), 3266489909);
  two = Math.imul(two ^ (two >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return 4294967296 * (2097151 & two) + (one >>> 0);
}
