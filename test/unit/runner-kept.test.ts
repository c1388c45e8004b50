import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Assignment, runIdOf } from "@plumule/protocol";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type KeptWorkspaces, openKept } from "../../runner/src/kept.ts";

const HOUR_MS = 3600_000;
const KIB = 1024;
let folder: string;
let nowMs: number;
let freeBytes: number;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-kept-"));
  nowMs = Date.parse("2026-11-21T00:00:00Z");
  freeBytes = Infinity;
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const runOf = (number: number): string => runIdOf("0199c0de-7a11-7000-9b1f-3b0f6a2d9e10", number);
const assignmentOf = (run: string): Omit<Assignment, "leaseToken"> => ({
  namespace: "garden",
  deployment: "site",
  job: "0199c0de-7a11-7000-9b1f-3b0f6a2d9e10",
  run,
  attempt: 1,
  epoch: 1,
  leaseMs: 1,
  acknowledgeMs: 1,
  requestKey: "0199c0de-7a11-4002-9b1f-3b0f6a2d9e10",
  spec: { task: { kind: "shell", script: "true" } },
  teardown: false,
  taskSha256: "0".repeat(64),
  configurationSha256: null,
  limits: { logBytes: 1, runMs: 1, silenceMs: 1, graceMs: 1 },
  brokerTime: "2026-11-21T00:00:00.000Z",
});
const pathOf = (run: string): string => join(folder, "workspaces", run);
const open = (keepMs = HOUR_MS, keepBytes = 10_000 * KIB, askedMs = 0): Promise<KeptWorkspaces> =>
  openKept({
    folder: join(folder, "kept"),
    writtenBy: (run) => [pathOf(run)],
    keepMs,
    askedMs,
    keepBytes,
    floorBytes: 1_000,
    freeBytes: async () => freeBytes,
    remove: async (run) => rmSync(pathOf(run), { recursive: true }),
    now: () => nowMs,
  });
/** Keeps a workspace of about so many KiB. */
async function keep(kept: KeptWorkspaces, run: string, kib = 1, keepFailedMs?: number): Promise<boolean> {
  mkdirSync(pathOf(run), { recursive: true });
  writeFileSync(join(pathOf(run), "file"), Buffer.alloc(kib * KIB));
  const assignment = assignmentOf(run);
  const asked = keepFailedMs === undefined ? {} : { keepFailedMs };
  return kept.keep({ ...assignment, spec: { ...assignment.spec, ...asked } });
}
const [one, two, three] = [runOf(1), runOf(2), runOf(3)];
const there = (): boolean[] => [one, two, three].map((run) => existsSync(pathOf(run)));

it("a workspace is kept for its time, over a restart too, and no longer", async () => {
  const kept = await open();
  expect(await keep(kept, one)).toBe(true);
  nowMs += HOUR_MS / 2;
  const again = await open();
  expect([again.has(one), again.has(two)]).toEqual([true, false]);
  await again.tidy();
  expect(there()).toEqual([true, false, false]);
  nowMs += HOUR_MS / 2;
  await again.tidy();
  expect([again.has(one), existsSync(pathOf(one))]).toEqual([false, false]);
});

it("those that were used the longest ago go when all together are too large", async () => {
  const kept = await open(HOUR_MS, 2_500 * KIB);
  for (const run of [one, two]) {
    await keep(kept, run, 1_000);
    nowMs += 1_000;
  }
  expect((await kept.use(one))?.assignment.run).toBe(one);
  kept.release(one);
  await keep(kept, three, 1_000);
  expect(there()).toEqual([true, false, true]);
  expect(await keep(kept, two, 3_000)).toBe(false);
});

it("a job may ask for another time, and gets at most what the owner lets jobs ask for", async () => {
  const kept = await open(HOUR_MS, 10_000 * KIB, 3 * HOUR_MS);
  expect(await keep(kept, one, 1, 0)).toBe(false);
  expect(await keep(kept, two, 1, HOUR_MS / 2)).toBe(true);
  expect(await keep(kept, three, 1, 30 * HOUR_MS)).toBe(true);
  const left = async (): Promise<boolean[]> => {
    await kept.tidy();
    return [two, three].map((run) => kept.has(run));
  };
  expect(await left()).toEqual([true, true]);
  nowMs += HOUR_MS / 2;
  expect(await left()).toEqual([false, true]);
  nowMs += 2 * HOUR_MS;
  expect(await left()).toEqual([false, true]);
  nowMs += HOUR_MS;
  expect(await left()).toEqual([false, false]);
  expect(await keep(await open(0), one, 1, HOUR_MS)).toBe(false);
  expect(await keep(await open(0, 10_000 * KIB, HOUR_MS), one, 1, HOUR_MS)).toBe(true);
});

it("they make room when the disk has too little left", async () => {
  const kept = await open();
  await keep(kept, one);
  freeBytes = 999;
  await kept.tidy();
  expect(kept.has(one)).toBe(false);
});

it("what somebody is in stays until they have left", async () => {
  const kept = await open();
  await keep(kept, one);
  await kept.use(one);
  nowMs += 2 * HOUR_MS;
  await kept.tidy();
  expect(there()[0]).toBe(true);
  kept.release(one);
  await kept.tidy();
  expect(there()[0]).toBe(false);
});

it("a clock that is set by a day makes at most the time of one more of it", async () => {
  const kept = await open();
  await keep(kept, one);
  nowMs -= 24 * HOUR_MS;
  await kept.tidy();
  expect(kept.has(one)).toBe(true);
  nowMs += HOUR_MS;
  await kept.tidy();
  expect(kept.has(one)).toBe(false);
});

it("nothing is kept unless it is wanted, and what was is let go", async () => {
  await keep(await open(), one);
  const kept = await open(0);
  expect(await keep(kept, two)).toBe(false);
  await kept.tidy();
  expect(there()[0]).toBe(false);
});
