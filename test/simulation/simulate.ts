import type { startRunner } from "../../runner/src/runner.ts";
import { Book } from "./book.ts";
import { checkEnd, checkStops, restless } from "./quiescence.ts";
import { watchCommits } from "./invariants.ts";
import { drawLocks } from "./lock-book.ts";
import { RunnerMachine } from "./machines.ts";
import { drawPlan, Person, resolveUnseen } from "./people.ts";
import { enterWorld } from "./platform/globals.ts";
import { Edge, type EdgeApp } from "./platform/edge.ts";
import type { Fault } from "./platform/faults.ts";
import { Network } from "./platform/network.ts";
import { ObjectHosts } from "./platform/hosts.ts";
import type { ObjectClass } from "./platform/objects.ts";
import { type PlatformBug, World } from "./platform/world.ts";
import { Sender } from "./senders.ts";
import { haunt } from "./strangers.ts";
import { ADMIN_TOKEN, newClient, openTenant, type Stage, trustRunners } from "./stage.ts";
import { Watcher } from "./watchers.ts";

/** The product, as it was loaded. */
export type Product = {
  app: EdgeApp;
  Deployment: ObjectClass;
  Pool: ObjectClass;
  Namespace: ObjectClass;
  startRunner: typeof startRunner;
};

/** What became of one world. `hash` stands for its whole history. */
export type Outcome = {
  seed: number;
  violation: string | null;
  hash: number;
  simulatedMs: number;
  stepCount: number;
  eventCount: number;
  faults: Partial<Record<Fault, number>>;
};

export type SimulateOptions = { bug?: PlatformBug; say?: ((line: string) => void) | null };

/** How long things break, how long it takes to look, and how long a world gets to come to rest afterwards, ms. */
const LIFE_MS = [6_000, 25_000] as const;
const LOOK_MS = 2_000;
const REST_MS = 60 * 60_000;
/** A wall clock of a runner's machine jumps by up to a day to either side, ms. */
const CLOCK_JUMPS_MS = 2 * 86_400_000;
/** Far beyond what any world needs: one that takes more steps spins. */
const MAX_STEPS = 100_000;

/** Lets one world live: people act while things break, then nothing breaks any more and everything has to come to rest. */
export async function simulate(product: Product, seed: number, options: SimulateOptions = {}): Promise<Outcome> {
  const world = new World(seed, options);
  enterWorld(world);
  try {
    await new Play(world, product).run();
  } catch (error) {
    world.fault(error);
  }
  // Nothing of this world may reach into the next one.
  await world.clock.turn();
  return {
    seed,
    violation: world.violation === null ? null : describe(world.violation),
    hash: world.hash,
    simulatedMs: Math.round(world.clock.elapsedMs),
    stepCount: world.clock.stepCount,
    eventCount: world.eventCount,
    faults: Object.fromEntries(world.faults.counts),
  };
}

function describe(error: Error): string {
  return error.name === "Violation" ? error.message : (error.stack ?? error.message);
}

/** One world from its beginning to its end. */
class Play {
  readonly #world: World;
  readonly #product: Product;
  readonly #stage: { -readonly [K in keyof Stage]: Stage[K] };
  readonly #book = new Book();
  readonly #machines: RunnerMachine[] = [];
  readonly #watchers: Watcher[] = [];
  #isOver = false;

  constructor(world: World, product: Product) {
    this.#world = world;
    this.#product = product;
    const network = new Network(world);
    const hosts = new ObjectHosts(world, network, (host) => watchCommits(world, host));
    hosts.env = {
      DEPLOYMENT: hosts.bind("Deployment", product.Deployment),
      POOL: hosts.bind("Pool", product.Pool),
      NAMESPACE: hosts.bind("Namespace", product.Namespace),
      ADMIN_TOKEN,
    };
    const edge = new Edge(world, network, {
      app: product.app,
      env: hosts.env,
      seen: (client, text) => this.#seen(client, text),
    });
    const lockShare = world.locks.chance(0.4) ? world.locks.next() : 0;
    this.#stage = { world, network, hosts, edge, tenants: [], lockShare, pace: world.life.chance(0.3) ? 5 : 1 };
  }

  async run(): Promise<void> {
    await this.#open();
    const { faults, life } = this.#world;
    faults.begin();
    const untilMs = life.between(...LIFE_MS) * this.#stage.pace;
    this.#populate();
    this.#shake();
    await this.#pass(untilMs);
    if (this.#world.violation !== null) return;
    faults.stop();
    this.#isOver = true;
    this.#calm();
    await this.#settle();
    if (this.#world.violation === null) checkEnd(this.#stage, this.#book, this.#watchers);
  }

  /** Tenants and their runners, before anything breaks. */
  async #open(): Promise<void> {
    const { life, seed } = this.#world;
    const { edge } = this.#stage;
    const names = ["alder", "birch"].slice(0, life.chance(0.3) ? 2 : 1);
    const lanes = life.between(1, 4);
    for (const marker of names) {
      const rest = Array.from({ length: lanes - 1 }, (_, index) => `${marker}-${index + 1}`);
      const script = JSON.stringify(drawPlan(life));
      const of = {
        ns: `${marker}-${seed}`,
        marker,
        deployments: [`${marker}-0`, ...rest] as [string, ...string[]],
        script,
        ...drawLocks(this.#world.locks, this.#stage.lockShare),
      };
      this.#stage.tenants = [...this.#stage.tenants, await this.#finish(openTenant(edge, of))];
    }
    for (const tenant of this.#stage.tenants) {
      const runners: string[] = [];
      for (let count = life.between(1, 4); count > 0; count -= 1) {
        const number = this.#machines.length;
        const of = {
          name: `runner-${number}`,
          tenant,
          number,
          capacity: life.between(1, 3),
          startRunner: this.#product.startRunner,
        };
        const machine = new RunnerMachine(this.#stage, of);
        this.#machines.push(machine);
        await this.#finish(machine.register());
        runners.push(machine.id);
      }
      await this.#finish(trustRunners(edge, tenant, runners));
    }
  }

  /** Those who act from now on. */
  #populate(): void {
    const { life } = this.#world;
    const over = (): boolean => this.#isOver;
    const begin = (name: string, work: () => Promise<void>): void => {
      work().catch((error: unknown) => this.#world.fault(new Error(`${name}: ${String(error)}`, { cause: error })));
    };
    for (const tenant of this.#stage.tenants) {
      for (let number = life.between(1, 3); number > 0; number -= 1) {
        const name = `person-${number}-${tenant.marker}`;
        const client = newClient(this.#stage.edge, name, { tenant, bearer: tenant.token });
        begin(name, () => new Person(this.#stage, this.#book, client, tenant).live(over));
      }
      for (let number = life.between(0, 3); number > 0; number -= 1) {
        const name = `sender-${number}-${tenant.marker}`;
        const client = newClient(this.#stage.edge, name, { tenant });
        begin(name, () => new Sender(this.#stage, this.#book, client, tenant).live(over));
      }
      const stranger = newClient(this.#stage.edge, `stranger-${tenant.marker}`, {
        tenant: null,
        stranger: true,
        bearer: "plm_unknown",
      });
      if (life.chance(0.3)) begin("stranger", () => haunt(this.#stage, stranger, tenant, over));
      for (let number = life.between(0, 4); number > 0; number -= 1) {
        const deployment = life.chance(0.25) ? null : life.pick(tenant.deployments);
        const watcher = new Watcher(this.#stage, { name: `watcher-${number}-${tenant.marker}`, tenant, deployment });
        this.#watchers.push(watcher);
        watcher.start();
      }
    }
  }

  /** Once a second: what breaks by itself. */
  #shake(): void {
    if (this.#isOver) return;
    const { clock, faults, timing } = this.#world;
    checkStops(this.#stage, this.#book);
    for (const machine of this.#machines) {
      if (faults.strikes("runner killed")) machine.kill("by chance");
      if (faults.strikes("supervisor killed")) machine.killSupervisor();
      if (faults.strikes("power lost")) machine.losePower();
      if (faults.strikes("clock jump")) machine.jump((timing.next() - 0.5) * CLOCK_JUMPS_MS);
      if (faults.strikes("spool full")) {
        machine.fill(true);
        clock.after(timing.next() * 30_000, () => machine.fill(false));
      }
      if (!machine.isRunning) machine.comeBack(timing.next() * (timing.chance(0.3) ? 150_000 : 15_000));
      if (faults.strikes("partition")) this.#stage.network.cut(machine.name, "edge", timing.next() * 90_000);
    }
    for (const host of this.#stage.hosts.all.values()) {
      if (faults.strikes("clock jump")) {
        this.#world.brokerClockJumped = true;
        host.jump((timing.next() - 0.5) * 120_000);
      }
      if (faults.strikes("partition")) {
        const other = timing.pick([...this.#stage.hosts.all.keys()] as [string, ...string[]]);
        this.#stage.network.cut(host.label, other, timing.next() * 60_000);
      }
    }
    for (const watcher of this.#watchers)
      if (timing.chance(0.01)) {
        watcher.stop();
        watcher.start();
      }
    clock.after(1_000, () => this.#shake());
  }

  /** Everything works from now on, and whoever was away comes back. */
  #calm(): void {
    this.#world.note("calm");
    this.#stage.network.mend();
    const { timing } = this.#world;
    for (const machine of this.#machines) {
      machine.fill(false);
      machine.jump(0);
      machine.comeBack(timing.next() * (timing.chance(0.5) ? 150_000 : 5_000));
    }
    for (const host of this.#stage.hosts.all.values()) if (host.skewMs !== 0) host.jump(0);
  }

  /** Everything comes to rest, or the world has found a fault. */
  async #settle(): Promise<void> {
    const { clock } = this.#world;
    let reason: string | null = "";
    for (const endMs = clock.elapsedMs + REST_MS; clock.elapsedMs < endMs && this.#world.violation === null;) {
      for (const host of this.#stage.hosts.all.values()) if (host.hasLostAlarm) host.wake();
      for (const machine of this.#machines) machine.comeBack(5_000);
      resolveUnseen(this.#stage);
      await this.#pass(LOOK_MS);
      checkStops(this.#stage, this.#book);
      reason = restless(this.#stage, this.#watchers, this.#machines);
      if (reason === null) return;
    }
    this.#world.violate("I6", `no rest after ${REST_MS / 60_000} minutes without faults: ${reason}`);
  }

  /** Lets time pass. */
  async #pass(ms: number): Promise<void> {
    const { clock } = this.#world;
    const until = clock.now + ms;
    while (this.#world.violation === null && (await clock.step(until)))
      if (clock.stepCount > MAX_STEPS)
        this.#world.violate("I6", `something goes on for ever, ${MAX_STEPS} steps so far`);
    clock.now = until;
  }

  /** Lets time pass until something is done. */
  async #finish<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const mark = (): void => {
      isDone = true;
    };
    work.then(mark, mark);
    while (!isDone && (await this.#world.clock.step(Number.POSITIVE_INFINITY)));
    if (!isDone) throw new Error("nothing happens any more, and something is waited for");
    return work;
  }

  /** No client is ever told a word of another tenant (I14). */
  #seen(client: string, text: string): void {
    for (const { marker } of this.#stage.tenants)
      if (/-(?:alder|birch)$/.test(client) && !client.endsWith(marker) && text.includes(marker))
        this.#world.violate("I14", `${client} was told of ${marker}`);
  }
}
