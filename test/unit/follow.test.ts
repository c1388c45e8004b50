import {
  CLOSE_CODES,
  type ClientFrame,
  type FollowDeps,
  type FollowEnd,
  followDeployment,
  problemOf,
  refuse,
  type WatchState,
} from "@plumule/protocol";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FakeBroker, FakeSocket, RUN, TEXT } from "./follow-fixtures.ts";

type Seen = {
  states: WatchState[];
  sequences: number[];
  log: Buffer;
  skipped: [number, number][];
  logEnds: number;
  waits: number[];
  end: FollowEnd | null;
};

/** Follows until `enough` says so (or until it ends by itself), with a clock that never waits for reconnects. */
async function follow(
  broker: Pick<FakeBroker, "open">,
  enough: (seen: Seen) => boolean,
  options: { wantsLog?: boolean; onState?: (state: WatchState) => void; open?: FollowDeps["open"] } = {},
): Promise<Seen> {
  const seen: Seen = { states: [], sequences: [], log: Buffer.alloc(0), skipped: [], logEnds: 0, waits: [], end: null };
  const stop = new AbortController();
  const check = (): void => {
    if (enough(seen)) stop.abort();
  };
  const follower = followDeployment(
    {
      open: options.open ?? (async () => broker.open()),
      random: () => 0.5,
      wait: async (ms, signal) => {
        seen.waits.push(ms);
        check();
        // Heartbeats never come due here; the pause before a reconnect passes at once.
        if (ms >= 25_000) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    },
    {
      signal: stop.signal,
      onState(state, events) {
        seen.states.push(state);
        seen.sequences.push(...events.map(({ sequence }) => Number(sequence)));
        options.onState?.(state);
        check();
      },
    },
  );
  if (options.wantsLog === true)
    follower.log(RUN, {
      onBytes(offset, bytes) {
        expect(offset).toBe(seen.log.length);
        seen.log = Buffer.concat([seen.log, bytes]);
        check();
      },
      onSkip: (from, to) => seen.skipped.push([from, to]),
      onEnd: () => {
        seen.logEnds += 1;
        check();
      },
    });
  seen.end = await follower.done;
  return seen;
}

const allOf =
  (head: number) =>
  (seen: Seen): boolean =>
    seen.sequences.at(-1) === head && seen.logEnds > 0;

describe("following a deployment", () => {
  const frames = 20;
  it.each(Array.from({ length: frames }, (_, index) => index + 1))(
    "misses and repeats nothing when the connection is cut after %i frames",
    async (cut) => {
      const broker = new FakeBroker({ head: 9, cuts: [cut] });
      const { sequences, states, log, skipped, logEnds } = await follow(broker, allOf(9), { wantsLog: true });
      expect(sequences).toEqual([3, 4, 5, 6, 7, 8, 9]);
      expect(states.at(-1)).toMatchObject({ gaps: 0, duplicates: 0, sequence: 9 });
      expect(log.equals(TEXT)).toBe(true);
      expect([skipped, logEnds]).toEqual([[], 1]);
    },
  );

  it("misses and repeats nothing however often it is cut", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 12 }), async (cuts) => {
        const { sequences, states, log, skipped } = await follow(new FakeBroker({ head: 12, cuts }), allOf(12), {
          wantsLog: true,
        });
        expect(sequences).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        expect(states.at(-1)).toMatchObject({ gaps: 0, duplicates: 0 });
        expect(log.equals(TEXT)).toBe(true);
        expect(skipped).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });

  it("gets what happened while it was away", async () => {
    const broker = new FakeBroker({ head: 2, cuts: [3] });
    const { sequences, states } = await follow(broker, (seen) => seen.sequences.length === 4, {
      onState(state) {
        if (state.phase === "offline") broker.publish(4);
      },
    });
    expect(sequences).toEqual([3, 4, 5, 6]);
    expect(states.map(({ phase }) => phase)).toContain("offline");
    expect(broker.asked.filter(({ op }) => op === "subscribe")).toEqual([
      { op: "subscribe", id: "events" },
      { op: "subscribe", id: "events", since: "e1:2" },
    ]);
  });

  it("waits longer after each failure, at most 30 s, and starts over once it was live", async () => {
    const cuts = [1, 1, 1, 1, 1, 1, 1, 1, 3, 1];
    const { waits } = await follow(
      new FakeBroker({ head: 2, cuts }),
      (seen) => seen.waits.filter((ms) => ms !== 25_000).length >= cuts.length,
    );
    expect(waits.filter((ms) => ms !== 25_000)).toEqual([250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 250, 500]);
  });

  it("counts a network that is down as a failure, not as the end", async () => {
    let attempts = 0;
    const broker = new FakeBroker({ head: 2, cuts: [] });
    const { states } = await follow(broker, (seen) => seen.states.at(-1)?.phase === "live", {
      open: async () => {
        attempts += 1;
        if (attempts < 3) throw new TypeError("fetch failed");
        return broker.open();
      },
    });
    expect(attempts).toBe(3);
    expect(states.at(-1)?.phase).toBe("live");
  });

  it("ends when the broker says that it may not follow, and says why", async () => {
    const problem = problemOf(refuse("unauthenticated", "the token is unknown"));
    const refused = await follow(new FakeBroker({ head: 2, cuts: [] }), () => false, {
      open: async () => ({ problem }),
    });
    expect(refused.end).toEqual({ ended: "refused", code: 401, detail: "the token is unknown", next: problem.next });

    const broker = new FakeBroker({ head: 2, cuts: [] });
    const closed = await follow(broker, () => false, {
      onState: ({ phase }) => phase === "live" && broker.connections[0]!.lose(CLOSE_CODES.notFound, ""),
    });
    expect(closed.end).toMatchObject({ ended: "refused", code: 4404, detail: "Not found" });
  });

  it("tries again when the broker is only busy", async () => {
    const broker = new FakeBroker({ head: 2, cuts: [] });
    let attempts = 0;
    await follow(broker, (seen) => seen.states.at(-1)?.phase === "live", {
      open: async () =>
        (attempts += 1) === 1 ? { problem: problemOf(refuse("unavailable", "starting")) } : broker.open(),
    });
    expect(attempts).toBe(2);
  });

  it("passes over frames of later versions, and stops at one of ours that it cannot read", async () => {
    const broker = new FakeBroker({ head: 2, cuts: [] });
    let told = false;
    const { end, states } = await follow(broker, () => false, {
      onState({ phase }) {
        if (phase !== "live" || told) return;
        told = true;
        const socket = broker.connections[0]!;
        socket.deliver({ op: "poem", id: "events", text: "roses" });
        broker.publish(1);
        socket.deliver({ op: "events", id: "events", cursor: "e1:4", events: "none" });
      },
    });
    expect(states.at(-1)?.sequence).toBe(3);
    expect(end).toMatchObject({ ended: "refused", detail: expect.stringContaining("cannot read") });
  });

  it("drops a connection that answers nothing any more and makes another", async () => {
    const broker = new FakeBroker({ head: 2, cuts: [] });
    const stop = new AbortController();
    let opened = 0;
    let beats = 0;
    const follower = followDeployment(
      {
        open: async () => {
          opened += 1;
          return broker.open();
        },
        random: () => 0,
        wait: async (ms, signal) => {
          // Two heartbeats pass on the first connection, whose broker is silent after its bookmark; then time stands still.
          if (ms >= 25_000 && (beats += 1) > 2)
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
          await new Promise((resolve) => setTimeout(resolve, 20));
        },
      },
      { signal: stop.signal, onState: ({ phase }) => opened === 2 && phase === "live" && stop.abort() },
    );
    await follower.done;
    expect(broker.connections[0]!.pings).toEqual(["ping"]);
    expect(broker.connections.map(({ closed }) => closed)).toEqual([true, true]);
  });

  it("asks for a log on the next socket where it stopped, and tells what the broker left out", async () => {
    const chunks = (socket: FakeSocket, id: string): void => {
      socket.deliver({ op: "chunk", id, offset: 100, bytes: 3, text: "abc" });
      socket.deliver({ op: "skip", id, from: 103, to: 200 });
      socket.deliver({ op: "chunk", id, offset: 200, bytes: 3, text: "xyz" });
      socket.deliver({ op: "chunk", id, offset: 201, bytes: 4, text: "yz12" });
    };
    const asked: ClientFrame[] = [];
    const sockets: FakeSocket[] = [];
    const got: [number, string][] = [];
    const skips: [number, number][] = [];
    const stop = new AbortController();
    const follower = followDeployment(
      {
        open: async () => {
          const socket: FakeSocket = new FakeSocket(sockets.length === 0 ? 5 : 9, (frame) => {
            if (frame.op === "log" && asked.push(frame) === 1) chunks(socket, frame.id);
            else if (frame.op === "log") stop.abort();
          });
          sockets.push(socket);
          socket.deliver({
            op: "welcome",
            protocol: 1,
            heartbeatMs: 25_000,
            limits: { subscriptions: 1, frameBytes: 1, logCreditBytes: 1 },
          });
          return socket;
        },
        random: () => 0,
        wait: (ms, signal) =>
          ms === 0 ? Promise.resolve() : new Promise((resolve) => signal.addEventListener("abort", () => resolve())),
      },
      { signal: stop.signal, onState: () => undefined },
    );
    follower.log(
      RUN,
      {
        onBytes: (offset, bytes) => got.push([offset, Buffer.from(bytes).toString()]),
        onSkip: (from, to) => skips.push([from, to]),
      },
      { tail: 50 },
    );
    expect(await follower.done).toEqual({ ended: "aborted" });
    expect(asked).toEqual([
      { op: "log", id: "log-1", run: RUN, tail: 50 },
      { op: "log", id: "log-1", run: RUN, offset: 205 },
    ]);
    expect([got, skips]).toEqual([
      [
        [100, "abc"],
        [200, "xyz"],
        [203, "12"],
      ],
      [[103, 200]],
    ]);
  });
});
