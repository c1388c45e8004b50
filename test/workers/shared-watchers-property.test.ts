import { initialWatch, loseConnection, parseCursor, reduceFrame, type WatchState } from "@plumule/protocol";
import * as fc from "fast-check";
import { expect, it } from "vitest";
import { cursorAt } from "#durable-objects/shared/cursor.ts";
import { inStream, type Client, type Stream } from "./stream-harness.ts";

type Step =
  | { do: "publish" | "commit silently"; count: number; padding: number }
  | { do: "cut" | "stand still" | "read on" | "wake" | "pause" }
  | { do: "prune"; keep: number };

const events = { count: fc.integer({ min: 1, max: 8 }), padding: fc.constantFrom(0, 0, 60_000) };
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ do: fc.constantFrom("publish" as const, "commit silently" as const), ...events }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constantFrom(
          "cut" as const,
          "stand still" as const,
          "read on" as const,
          "wake" as const,
          "pause" as const,
        ),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("prune" as const), keep: fc.integer({ min: 0, max: 5 }) }) },
  ),
  { minLength: 5, maxLength: 40 },
);

/** A watcher as a page has it: it folds frames with the reducer and comes back with its cursor when it was cut off. */
class Follower {
  state: WatchState = initialWatch();
  /** Snapshots that came in place of events, without a reset before them. */
  silentRestarts = 0;
  #client: Client | null = null;
  #handled = 0;

  readonly #stream: Stream;
  constructor(stream: Stream) {
    this.#stream = stream;
  }

  get client(): Client {
    if (this.#client === null) {
      this.#client = this.#stream.connect();
      this.#handled = 0;
      this.#client.send({
        op: "subscribe",
        id: "a",
        ...(this.state.cursor === null ? {} : { since: this.state.cursor }),
      });
    }
    return this.#client;
  }

  /** Folds what has come so far. */
  catchUp(): void {
    const frames = this.client.frames.slice(this.#handled);
    this.#handled += frames.length;
    for (const frame of frames) {
      if (frame.op === "snapshot" && this.state.cursor !== null) this.silentRestarts += 1;
      this.state = reduceFrame(this.state, frame);
    }
  }

  cut(): void {
    this.catchUp();
    this.client.cut();
    this.#client = null;
    this.state = loseConnection(this.state);
  }

  async settle(): Promise<void> {
    this.client.resume();
    const head = cursorAt(this.#stream.log, this.#stream.log.head());
    for (let attempt = 0; attempt < 200 && (this.state.cursor !== head || this.state.phase !== "live"); attempt += 1) {
      await scheduler.wait(5);
      this.catchUp();
    }
  }
}

async function take(step: Step, stream: Stream, follower: Follower): Promise<void> {
  switch (step.do) {
    case "publish":
      stream.publish(step.count, step.padding);
      return;
    case "commit silently":
      stream.append(step.count, step.padding);
      return;
    case "prune":
      stream.log.prune(step.keep);
      return;
    case "cut":
      return follower.cut();
    case "stand still":
      follower.client.busy = true;
      return;
    case "read on":
      return follower.client.resume();
    case "wake":
      return stream.wake();
    case "pause":
      await scheduler.wait(3);
      return;
  }
}

let runs = 0;

it("gives a watcher every event once and in order, or a reset, whatever is cut, held up, pruned or put to sleep", async () => {
  let resets = 0;
  let received = 0;
  const property = fc.asyncProperty(steps, async (script) => {
    runs += 1;
    await inStream(`property-${runs}`, async (stream) => {
      const follower = new Follower(stream);
      follower.catchUp();
      let pruned = false;
      for (const step of script) {
        pruned ||= step.do === "prune";
        await take(step, stream, follower);
      }
      // One more event, passed on, brings even those up to date whose last commit was silent.
      stream.publish(1);
      await follower.settle();
      const { state } = follower;
      expect(parseCursor(state.cursor ?? "")?.sequence).toBe(stream.log.head());
      expect(state).toMatchObject({ phase: "live", sequence: stream.log.head(), gaps: 0, duplicates: 0 });
      if (!pruned) expect(state.resets).toBe(0);
      expect(follower.silentRestarts).toBe(0);
      resets += state.resets;
      received += state.received;
    });
  });
  await fc.assert(property, { numRuns: 120, interruptAfterTimeLimit: 20_000 });
  expect(resets).toBeGreaterThan(0);
  expect(received).toBeGreaterThan(0);
}, 40_000);
