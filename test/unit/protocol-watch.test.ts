import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Event, formatCursor } from "../../protocol/src/events.ts";
import { formatSequence, makeJobId } from "../../protocol/src/ids.ts";
import type { DeploymentSnapshot, Derivation, JobState, JobView } from "../../protocol/src/job.ts";
import type { ServerFrame } from "../../protocol/src/stream.ts";
import { initialWatch, loseConnection, reduceFrame, type WatchState } from "../../protocol/src/watch.ts";

const recorded = <T>(name: string): T =>
  JSON.parse(readFileSync(join(import.meta.dirname, `../../protocol/fixtures/v1/${name}.json`), "utf8")) as T;
const sample = recorded<Extract<ServerFrame, { op: "events" }>>("server.events").events[0];
const { deployment, jobs } = recorded<DeploymentSnapshot>("DeploymentSnapshot");
const [job] = jobs;
if (sample === undefined || job === undefined) throw new Error("the recorded messages are empty");

function eventAt(sequence: number, data: Event["data"] = {}): Event {
  return { ...sample, sequence: formatSequence(sequence), data } as Event;
}
function events(first: number, last: number, data?: Event["data"]): ServerFrame {
  const list = Array.from({ length: last - first + 1 }, (_, index) => eventAt(first + index, data));
  return { op: "events", id: "a", cursor: formatCursor(1, last), events: list };
}
const snapshot = (sequence: number): ServerFrame => ({
  op: "snapshot",
  id: "a",
  cursor: formatCursor(1, sequence),
  state: { deployment, jobs, cursor: "" },
});
const live = (sequence: number): ServerFrame => ({
  op: "live",
  id: "a",
  cursor: formatCursor(1, sequence),
  recovered: true,
  replayed: 0,
});
const after = (...frames: ServerFrame[]): WatchState => frames.reduce(reduceFrame, initialWatch());
const jobIn = (state: JobState, index = 0): JobView => ({ ...job, id: makeJobId(index, new Uint8Array(8)), state });

describe("a watcher", () => {
  it("starts from a snapshot and is live at the bookmark", () => {
    const state = after(snapshot(41));
    expect(state).toMatchObject({
      phase: "replaying",
      cursor: "e1:41",
      epoch: 1,
      sequence: 41,
      deployment,
      received: 0,
    });
    expect(Object.keys(state.jobs)).toEqual(jobs.map((one) => one.id));
    expect(reduceFrame(state, live(41))).toMatchObject({ phase: "live", recovered: true });
  });

  it("applies events by assignment", () => {
    const changed = { ...job, state: "failed" as const };
    const state = after(
      snapshot(41),
      live(41),
      events(42, 42, { job: changed, deployment: { ...deployment, state: "active" } }),
    );
    expect(state).toMatchObject({ phase: "live", sequence: 42, received: 1, gaps: 0, deployment: { state: "active" } });
    expect(state.jobs[job.id]).toEqual(changed);
  });

  it("ignores an event that it has, and counts it", () => {
    const state = after(snapshot(41), events(42, 44), events(43, 45, { job: { ...job, state: "failed" } }));
    expect(state).toMatchObject({ sequence: 45, received: 4, duplicates: 2, gaps: 0 });
  });

  it("counts what never came", () => {
    expect(after(snapshot(41), events(45, 46))).toMatchObject({ gaps: 3, received: 2, sequence: 46 });
  });

  it("takes the cursor of a filtered page, whose events were left out by its own wish", () => {
    const empty: ServerFrame = { op: "events", id: "a", cursor: "e1:541", events: [] };
    expect(after(snapshot(41), empty, events(542, 542))).toMatchObject({ gaps: 0, sequence: 542, cursor: "e1:542" });
  });

  it("forgets everything on a reset, but not what it counted", () => {
    const reset: ServerFrame = { op: "reset", id: "a", reason: "epoch-changed" };
    const state = after(snapshot(41), events(42, 44), reset);
    expect(state).toMatchObject({
      phase: "resetting",
      cursor: null,
      deployment: null,
      jobs: {},
      received: 3,
      resets: 1,
      recovered: false,
    });
    expect(reduceFrame(state, snapshot(2))).toMatchObject({ phase: "replaying", sequence: 2, epoch: 1 });
  });

  it("shows the last known state while it is cut off", () => {
    const state = loseConnection(after(snapshot(41), live(41)));
    expect(state).toMatchObject({ phase: "offline", cursor: "e1:41", deployment });
    expect(reduceFrame(state, events(42, 42))).toMatchObject({ phase: "replaying" });
  });

  it("leaves logs and frames of later versions alone", () => {
    const state = after(snapshot(41));
    expect(reduceFrame(state, { op: "chunk", id: "b", offset: 0, bytes: 1, text: "x" })).toBe(state);
    expect(reduceFrame(state, { op: "later" } as unknown as ServerFrame)).toBe(state);
  });

  it("keeps the newest state of each derivation", () => {
    const of = (drv: string, state: Derivation["state"]): Derivation => ({ drv, name: drv, state });
    const data = (...derivations: Derivation[]): Event["data"] => ({ job, derivations });
    const state = after(
      snapshot(0),
      events(1, 1, data(of("a", "building"), of("b", "planned"))),
      events(2, 2, data(of("a", "built"))),
    );
    expect(state.derivations[job.id]).toEqual({ a: of("a", "built"), b: of("b", "planned") });
  });

  it("keeps a bounded number of jobs that have ended, the newest, and all others", () => {
    const frames = Array.from({ length: 130 }, (_, index) =>
      events(index + 1, index + 1, { job: jobIn(index < 5 ? "queued" : "succeeded", index) }),
    );
    const kept = Object.values(frames.reduce(reduceFrame, initialWatch()).jobs);
    expect(kept.filter((one) => one.state === "queued")).toHaveLength(5);
    expect(kept.filter((one) => one.state === "succeeded")).toHaveLength(100);
    expect(kept.some((one) => one.id === jobIn("succeeded", 129).id)).toBe(true);
    expect(kept.some((one) => one.id === jobIn("succeeded", 5).id)).toBe(false);
  });
});

it("ends in the same state however its connection is cut, and misses and repeats nothing", () => {
  const states: JobState[] = ["queued", "assigned", "running", "succeeded"];
  const history = Array.from({ length: 40 }, (_, index) =>
    eventAt(index + 1, { job: jobIn(states[index % 4] ?? "queued", index >> 2) }),
  );
  const page = (from: number, to: number): ServerFrame => ({
    op: "events",
    id: "a",
    cursor: formatCursor(1, to),
    events: history.slice(from, to),
  });
  const uncut = after(page(0, 40));
  const cut = fc.record({
    length: fc.integer({ min: 1, max: 15 }),
    lost: fc.integer({ min: 0, max: 15 }),
    isCut: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(cut, { maxLength: 30 }), (steps) => {
      let state = initialWatch();
      for (const { length, lost, isCut } of [...steps, { length: 40, lost: 0, isCut: true }]) {
        // A cut loses frames on their way; the broker replays from the cursor that the watcher has.
        const from = state.sequence;
        state = reduceFrame(state, page(from, Math.min(40, from + length)));
        if (isCut) state = loseConnection(state);
        else state = reduceFrame(state, page(Math.max(0, state.sequence - lost), state.sequence));
      }
      expect(state).toMatchObject({ sequence: 40, received: 40, gaps: 0, jobs: uncut.jobs, cursor: uncut.cursor });
    }),
  );
});
