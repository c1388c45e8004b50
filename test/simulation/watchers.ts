import {
  type Event,
  followDeployment,
  type Follower,
  followStream,
  initialWatch,
  reduceFrame,
  loseConnection,
  type RunId,
  streamOpener,
  waitMs,
  type WatchState,
} from "@plumule/protocol";
import { runAs } from "./platform/clock.ts";
import { SimulatedWebSocket } from "./platform/sockets.ts";
import { type Client, newClient, type Stage, type Tenant } from "./stage.ts";

/** What a watcher got of one log: its bytes in order, unless some were skipped. */
export type WatchedLog = {
  bytes: Uint8Array[];
  next: number;
  skipped: boolean;
  ended: { bytes: number; sha256: string | null } | null;
};

/** Somebody who follows a stream with the follower of the protocol, and checks what it is told (I7). */
export class Watcher {
  readonly name: string;
  readonly tenant: Tenant;
  /** Null: the stream of the namespace. */
  readonly deployment: string | null;
  readonly logs = new Map<RunId, WatchedLog>();
  state: WatchState = initialWatch();
  #client: Client | null = null;
  #follower: Follower | null = null;
  #leave = new AbortController();
  readonly #stage: Stage;

  constructor(stage: Stage, of: { name: string; tenant: Tenant; deployment: string | null }) {
    this.#stage = stage;
    this.name = of.name;
    this.tenant = of.tenant;
    this.deployment = of.deployment;
  }

  /** Begins, or begins again from where it was: a page that is opened anew. */
  start(): void {
    const { edge, world } = this.#stage;
    const client = newClient(edge, this.name, { tenant: this.tenant, bearer: this.tenant.token });
    this.#client = client;
    this.#leave = new AbortController();
    const of = { ns: this.tenant.ns, ...(this.deployment === null ? {} : { deployment: this.deployment }) };
    const { signal } = this.#leave;
    runAs(client.context, () => {
      const open = streamOpener(client.deps, SimulatedWebSocket, of);
      const deps = { open, random: () => world.life.next(), wait: waitMs };
      const onState = (state: WatchState, events: readonly Event[]): void => {
        if (client.context.owner.alive) this.#take(state, events);
      };
      if (this.deployment === null) {
        const cursorOf = ({ cursor }: WatchState): string | null => cursor;
        const fold = { initial: this.state, reduce: reduceFrame, lose: loseConnection, cursorOf };
        this.#follower = followStream(deps, fold, { onState, signal });
      } else this.#follower = followDeployment(deps, { from: this.state, onState, signal });
      void this.#follower.done.then((end) => {
        // A deployment that does not exist yet, or no more, is looked for again; so does a person.
        if (end.ended === "refused") setTimeout(() => this.start(), 5_000 + world.life.next() * 5_000);
      });
    });
  }

  /** The page is closed. */
  stop(): void {
    if (this.#client !== null) {
      const { context } = this.#client;
      runAs(context, () => this.#leave.abort());
      context.owner.alive = false;
    }
  }

  #take(state: WatchState, events: readonly Event[]): void {
    const { world } = this.#stage;
    const at = `${this.name} of ${this.deployment ?? this.tenant.ns}`;
    if (state.gaps > 0) world.violate("I7", `${at} missed ${state.gaps} events before ${state.sequence}`);
    if (state.duplicates > 0)
      world.violate("I7", `${at} was told ${state.duplicates} events twice, at ${state.sequence}`);
    if (state.resets > 0) world.violate("I7", `${at} was told to begin again, though everything is kept`);
    if (state.sequence < this.state.sequence)
      world.violate("I7", `${at} went back from ${this.state.sequence} to ${state.sequence}`);
    world.eventCount += events.length;
    this.state = state;
    for (const { type, data } of events)
      if (type === "job.running" && data.job !== undefined) this.#followLog(data.job.run);
  }

  #followLog(run: RunId | null | undefined): void {
    if (this.deployment === null || run === null || run === undefined || this.logs.has(run)) return;
    const log: WatchedLog = { bytes: [], next: 0, skipped: false, ended: null };
    this.logs.set(run, log);
    this.#follower?.log(run, {
      onBytes: (offset, bytes) => {
        if (offset !== log.next && !log.skipped)
          this.#stage.world.violate("I11", `${this.name} got byte ${offset} of ${run}, expected ${log.next}`);
        log.bytes.push(new Uint8Array(bytes));
        log.next = offset + bytes.length;
      },
      onSkip: () => {
        log.skipped = true;
      },
      onEnd: (end) => {
        log.ended = end;
      },
    });
  }
}
