import { type Context, newOwner, type Owner, runAs } from "./clock.ts";
import { copyOf } from "./copy.ts";
import { ObjectStorage } from "./storage.ts";
import type { ServerEnd, SocketEvents } from "./sockets.ts";
import type { World } from "./world.ts";

type Method = (...args: unknown[]) => unknown;
type Instance = {
  owner: Owner;
  object: Record<string, Method>;
  /** Events that wait until the constructor's `blockConcurrencyWhile` is over; null when it is. */
  blocked: (() => void)[] | null;
  /** Requests and promises that keep it in memory. */
  busyCount: number;
};

/** A class of Durable Objects as the platform makes it. */
export type ObjectClass = new (ctx: unknown, env: unknown) => unknown;

/** An alarm is tried so often, the first time after two seconds and then after twice as long (workerd). */
const ALARM_TRIES = 6;
const ALARM_RETRY_MS = 2_000;
const ALARM_LATE_MS = 45_000;

/** One Durable Object: its storage and sockets, and its instance as long as it is in memory. */
export class HostedObject implements SocketEvents {
  readonly storage: ObjectStorage;
  readonly className: string;
  readonly name: string;
  /** Called after each commit, when what the object stores can be looked at. */
  onCommit: () => void = () => undefined;
  /** How far the clock of its machine is off, ms. */
  skewMs = 0;
  /** The platform gave its alarm up: something has to wake it. */
  hasLostAlarm = false;
  readonly #world: World;
  readonly #objectClass: ObjectClass;
  readonly #env: unknown;
  #instance: Instance | null = null;
  #sockets = new Set<ServerEnd>();
  #autoResponse: { request: string; response: string } | null = null;
  #scheduledAlarm: number | null = null;
  #alarmTries = 0;
  /** Set while an alarm is being handled or tried again. */
  #alarmUnderWay = false;
  /** Callers who would hear nothing of an eviction otherwise. */
  readonly #callers = new Set<(why: string) => void>();

  constructor(world: World, of: { className: string; name: string; objectClass: ObjectClass; env: unknown }) {
    this.#world = world;
    this.className = of.className;
    this.name = of.name;
    this.#objectClass = of.objectClass;
    this.#env = of.env;
    this.storage = new ObjectStorage(world, this.label, {
      committed: () => {
        this.#scheduleAlarm();
        this.onCommit();
      },
      lost: (why) => this.evict(why),
    });
  }

  get label(): string {
    return `${this.className} ${this.name}`;
  }

  get isInMemory(): boolean {
    return this.#instance !== null;
  }

  /** True when an alarm is set durably, or is being handled or tried again. */
  get willWake(): boolean {
    return this.storage.durableAlarm !== null || this.#alarmUnderWay;
  }

  /** The instance alone, for a look at what it holds in memory; null when there is none. */
  get owner(): Owner | null {
    return this.#instance?.owner ?? null;
  }

  /** The clock of its machine jumps. */
  jump(skewMs: number): void {
    this.skewMs = skewMs;
    if (this.#instance !== null) this.#instance.owner.skewMs = skewMs;
    this.#scheduledAlarm = null;
    this.#scheduleAlarm();
  }

  /** Calls a method. `answer` and `fail` leave through the output gate; both may never come when the object is evicted with a dead caller. */
  call(
    method: string,
    args: readonly unknown[],
    stranger: boolean,
    answer: (value: unknown) => void,
    fail: (why: string) => void,
  ): void {
    const gone = (why: string): void => fail(why);
    this.#callers.add(gone);
    const settle = (tell: () => void): void => {
      if (!this.#callers.has(gone)) return;
      this.storage.leave(() => {
        if (this.#callers.delete(gone)) tell();
      });
    };
    this.#event(
      stranger,
      ({ object }) => {
        const target = object[method];
        if (target === undefined) throw new TypeError(`The RPC receiver does not implement the method "${method}".`);
        return target.apply(object, [...args]);
      },
      (value) => settle(() => answer(method === "fetch" ? value : copyOf(value))),
      (error) => settle(() => fail(String(error))),
    );
    this.#mayEvictSoon();
  }

  /** Everything in memory is lost, and what was not committed; sockets break. What it was about to do, it never does. */
  evict(why: string): void {
    this.#world.note(`evict ${this.label}: ${why}`);
    this.#drop();
    this.storage.rollBack();
    for (const socket of this.#sockets) {
      socket.readyState = 3;
      socket.wire?.toClient(() => socket.client.closed(1006, ""));
    }
    this.#sockets.clear();
    const callers = [...this.#callers];
    this.#callers.clear();
    for (const fail of callers) fail(`Durable Object reset: ${why}`);
    this.#scheduleAlarm();
  }

  /** Somebody asks for it, after its alarm was given up: as the constructor runs, it sees to its alarm. */
  wake(): void {
    this.hasLostAlarm = false;
    this.evict("woken anew");
    this.#event(false, () => undefined, ignore, ignore);
  }

  /** Leaves memory when nothing keeps it there; sockets stay. */
  hibernate(): void {
    const instance = this.#instance;
    if (instance === null || instance.blocked !== null || instance.busyCount > 0 || instance.owner.timerCount > 0)
      return;
    if (this.storage.isDirty) return;
    this.#world.note(`hibernate ${this.label}`);
    this.#drop();
  }

  // What an object hears of its sockets.

  message(end: ServerEnd, data: string): void {
    this.#event(false, ({ object }) => object["webSocketMessage"]?.(end, data), ignore, ignore);
    this.#mayEvictSoon();
  }

  close(end: ServerEnd, code: number, reason: string): void {
    this.#sockets.delete(end);
    this.#event(false, ({ object }) => object["webSocketClose"]?.(end, code, reason, code !== 1006), ignore, ignore);
  }

  error(end: ServerEnd): void {
    this.#sockets.delete(end);
    this.#event(false, ({ object }) => object["webSocketError"]?.(end, new Error("broken")), ignore, ignore);
  }

  leave(send: () => void): void {
    this.storage.leave(send);
  }

  autoResponse(data: string): string | null {
    return this.#autoResponse?.request === data ? this.#autoResponse.response : null;
  }

  #drop(): void {
    if (this.#instance !== null) this.#instance.owner.alive = false;
    this.#instance = null;
  }

  /** Gives an event to the instance, which is made when there is none. */
  #event(
    stranger: boolean,
    run: (instance: Instance) => unknown,
    done: (value: unknown) => void,
    failed: (error: unknown) => void,
  ): void {
    let instance: Instance;
    try {
      instance = this.#instance ?? this.#construct(stranger);
    } catch (error) {
      // The platform makes the object anew for the next event.
      this.#drop();
      this.storage.rollBack();
      return failed(error);
    }
    const context: Context = { owner: instance.owner, stranger };
    const begin = (): void => {
      if (!instance.owner.alive) return;
      instance.busyCount += 1;
      const end = (tell: () => void): void => {
        instance.busyCount -= 1;
        // What goes on after the answer is the object's own business.
        context.stranger = false;
        if (instance.owner.alive) tell();
      };
      runAs(context, async () => run(instance)).then(
        (value) => end(() => done(value)),
        (error: unknown) => end(() => failed(error)),
      );
    };
    if (instance.blocked === null) begin();
    else instance.blocked.push(begin);
  }

  #construct(stranger: boolean): Instance {
    const owner = newOwner(this.label, this.skewMs);
    const instance: Instance = { owner, object: {}, blocked: null, busyCount: 0 };
    this.#instance = instance;
    // What an object does when it comes into memory is not its caller's doing, unless it comes into being.
    runAs({ owner, stranger: stranger && !this.storage.isKnown }, () => {
      instance.object = new this.#objectClass(this.#context(instance), this.#env) as Instance["object"];
    });
    return instance;
  }

  #context(instance: Instance): unknown {
    const busy = (work: Promise<unknown>): void => {
      instance.busyCount += 1;
      const end = (): void => {
        instance.busyCount -= 1;
      };
      work.then(end, end);
    };
    return {
      id: { name: this.name },
      storage: this.storage,
      waitUntil: busy,
      blockConcurrencyWhile: (work: () => Promise<unknown>) => {
        instance.blocked ??= [];
        const unblock = (): void => {
          const waiting = instance.blocked ?? [];
          instance.blocked = null;
          for (const begin of waiting) begin();
        };
        const done = work();
        done.then(unblock, () => this.evict("blockConcurrencyWhile failed"));
        return done;
      },
      acceptWebSocket: (end: ServerEnd) => {
        end.accepted = this;
        this.#sockets.add(end);
      },
      getWebSockets: () => [...this.#sockets],
      setWebSocketAutoResponse: (pair: { request: string; response: string }) => {
        this.#autoResponse = pair;
      },
    };
  }

  /** Somewhere between the awaits of what has just begun. */
  #mayEvictSoon(): void {
    const { clock, faults, timing } = this.#world;
    if (faults.strikes("object evicted"))
      clock.after(timing.next() * timing.next() * 3_000, () => this.evict("by chance"));
    if (faults.strikes("object hibernated")) clock.after(timing.next() * 15_000, () => this.hibernate());
  }

  #scheduleAlarm(): void {
    const at = this.storage.durableAlarm;
    if (at === null || this.#alarmUnderWay || at === this.#scheduledAlarm) return;
    this.#scheduledAlarm = at;
    const { clock, faults, timing } = this.#world;
    const lateMs = timing.next() * (faults.strikes("alarm late") ? ALARM_LATE_MS : 20);
    clock.after(at - clock.now - this.skewMs + lateMs, () => {
      if (this.#scheduledAlarm !== at) return;
      this.#scheduledAlarm = null;
      if (this.storage.durableAlarm !== at) return this.#scheduleAlarm();
      this.#alarmTries = 0;
      this.#fireAlarm(at);
    });
  }

  #fireAlarm(at: number): void {
    const { clock, faults, timing } = this.#world;
    this.#alarmUnderWay = false;
    // Another alarm took its place while it was to be tried again.
    if (this.storage.durableAlarm !== at) return this.#scheduleAlarm();
    this.#alarmUnderWay = true;
    this.#world.note(`alarm ${this.label}`);
    if (faults.strikes("alarm failed")) {
      this.evict("the platform failed to run its alarm");
      return this.#retryAlarm(at, "the platform failed");
    }
    const gone = (): void => this.#retryAlarm(at, "evicted");
    this.#callers.add(gone);
    this.#event(
      false,
      ({ object }) => {
        this.storage.beginAlarm();
        return object["alarm"]?.();
      },
      () =>
        this.storage.whenDurable(() => {
          if (!this.#callers.delete(gone)) return;
          this.#alarmUnderWay = false;
          const repeats = this.storage.durableAlarm === at && faults.strikes("alarm repeated");
          if (repeats) clock.after(timing.next() * 5_000, () => this.#fireAlarm(at));
          else this.storage.endAlarm();
          this.#scheduleAlarm();
        }),
      (error) => {
        if (this.#callers.delete(gone)) this.#retryAlarm(at, String(error));
      },
    );
  }

  #retryAlarm(at: number, why: string): void {
    const { clock, timing } = this.#world;
    this.#alarmTries += 1;
    this.#world.note(`alarm of ${this.label} failed: ${why}`);
    if (this.#alarmTries <= ALARM_TRIES) {
      const restMs = ALARM_RETRY_MS * 2 ** (this.#alarmTries - 1) * (1 + timing.next() / 4);
      clock.after(restMs, () => this.#fireAlarm(at));
      return;
    }
    // The platform gives up: whatever wakes the object next has to see to it.
    this.#alarmUnderWay = false;
    this.hasLostAlarm = true;
    this.storage.beginAlarm();
    this.storage.endAlarm();
  }
}

function ignore(): void {}
