import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Admission, type AdmittedRun } from "../../runner/src/admission/admission.ts";
import { fits, RESERVE_BYTES, type RunMemory, UNSEEN_BYTES } from "../../runner/src/admission/decide.ts";
import { openHistory } from "../../runner/src/admission/history.ts";
import { memoryOfTrees } from "../../runner/src/admission/measure.ts";

const MIB = 1024 ** 2;
const GIB = 1024 * MIB;
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "plumule-admission-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const grown: RunMemory = { usedBytes: 4 * GIB, predictedBytes: 4 * GIB };
const young: RunMemory = { usedBytes: 1 * GIB, predictedBytes: 4 * GIB };
const unseen: RunMemory = { usedBytes: 0, predictedBytes: null };
const beyond: RunMemory = { usedBytes: 6 * GIB, predictedBytes: 4 * GIB };

describe("a run begins", () => {
  it.each<[string, boolean, number | null, RunMemory[], number]>([
    ["alone, however much it may need", true, 100 * GIB, [], 1],
    ["when it fits into what is free, with the reserve", true, 2 * GIB, [grown], 2 * GIB + RESERVE_BYTES],
    ["not when the reserve would be touched", false, 2 * GIB, [grown], 2 * GIB + RESERVE_BYTES - 1],
    ["not into what another will still grow by", false, 2 * GIB, [young], 4 * GIB],
    ["when there is room for both to grow", true, 2 * GIB, [young], 5 * GIB + RESERVE_BYTES],
    ["beside one that took more than ever, which frees nothing", true, GIB, [beyond], GIB + RESERVE_BYTES],
    ["when nobody has seen it, as a small one", true, null, [grown], UNSEEN_BYTES + RESERVE_BYTES],
    ["and not as nothing", false, null, [grown], RESERVE_BYTES],
    ["beside ones that nobody has seen, which count as small ones", false, GIB, [unseen, unseen], GIB + RESERVE_BYTES],
  ])("%s", (_, answer, predicted, others, available) => {
    expect(fits(predicted, others, available)).toBe(answer);
  });
});

describe("what runs have taken", () => {
  it("is kept over a restart: the most of the last five", async () => {
    const path = join(folder, "history.json");
    const history = await openHistory(path);
    expect(history.predict("web a")).toBeNull();
    for (const peakBytes of [9, 1, 5, 3, 2, 4])
      await history.record("web a", { peakBytes, durationMs: peakBytes * 10 });
    expect((await openHistory(path)).predict("web a")).toEqual({ peakBytes: 5, durationMs: 40 });
  });

  it("is bounded: what was not seen for longest is forgotten", async () => {
    const path = join(folder, "history.json");
    const run = { peakBytes: 1, durationMs: 1 };
    const many = Array.from({ length: 500 }, (_, index) => ({ key: `k${index}`, runs: [run] }));
    await writeFile(path, JSON.stringify(many));
    const history = await openHistory(path);
    await history.record("k0", run);
    await history.record("new", run);
    expect(history.size).toBe(500);
    expect([history.predict("k0"), history.predict("k1"), history.predict("new")]).toEqual([run, null, run]);
  });

  it("is begun anew when it cannot be read, and a disk that refuses it stops nothing", async () => {
    const path = join(folder, "history.json");
    await writeFile(path, "{");
    expect((await openHistory(path)).size).toBe(0);
    const nowhere = await openHistory(join(folder, "no/such/folder/history.json"));
    await nowhere.record("a", { peakBytes: 1, durationMs: 1 });
    expect(nowhere.size).toBe(1);
  });
});

describe("admission", () => {
  const runOf = (run: string): AdmittedRun => ({ run, deployment: "web", taskSha256: "a" });
  const never = new AbortController().signal;
  beforeEach(() => vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
  afterEach(() => vi.useRealTimers());

  it("lets a second run wait until the first is over, and learns from what that took", async () => {
    const history = await openHistory(join(folder, "history.json"));
    await history.record("web a", { peakBytes: 4 * GIB, durationMs: 1 });
    const said: string[] = [];
    const measure = (pids: readonly number[]): Map<number, number> => new Map(pids.map((pid) => [pid, pid * GIB]));
    const admission = new Admission({
      history,
      measure,
      available: () => 5 * GIB,
      say: (line) => void said.push(line),
    });
    await admission.admit(runOf("one"), never);
    admission.begun(runOf("one"), 3);
    let begun = false;
    const onWait = vi.fn();
    const second = admission.admit(runOf("two"), never, onWait).then(() => (begun = true));
    expect(onWait).toHaveBeenCalledOnce();
    vi.advanceTimersByTime(2_000);
    await Promise.resolve();
    expect(begun).toBe(false);
    expect(said).toEqual([expect.stringContaining("run two: waits until there is memory")]);
    expect(admission.status()).toMatchObject({
      runs: [{ run: "one", usedBytes: 3 * GIB, peakBytes: 3 * GIB, predictedBytes: 4 * GIB }],
      waiting: [{ run: "two", predictedBytes: 4 * GIB }],
    });
    admission.ended("one", true);
    await second;
    expect(admission.status().waiting).toEqual([]);
    await vi.waitFor(async () =>
      expect(await readFile(join(folder, "history.json"), "utf8")).toContain(String(3 * GIB)),
    );
  });

  it("begins at once what must not wait any more, such as a run that is to stop", async () => {
    const history = await openHistory(join(folder, "history.json"));
    const admission = new Admission({ history, measure: () => new Map(), available: () => 0, say: () => {} });
    await admission.admit(runOf("one"), never);
    const hurry = new AbortController();
    const second = admission.admit(runOf("two"), hurry.signal);
    expect(admission.status().waiting).toHaveLength(1);
    hurry.abort();
    await second;
    expect(admission.status().waiting).toEqual([]);
    // One that was killed meanwhile leaves nothing behind that others would wait for.
    admission.ended("two", false);
    admission.ended("one", false);
    await admission.admit(runOf("three"), never);
  });
});

it("the memory of a process tree is that of the process and what it has started", async () => {
  const grow =
    "const held = Buffer.alloc(64 * 1024 * 1024, 1); process.stdout.write('x'); setInterval(() => held, 1e6)";
  const child = spawn("sh", ["-c", '"$0" -e "$1" & wait', process.execPath, grow], {
    stdio: ["ignore", "pipe", "ignore"],
    detached: true,
  });
  try {
    await once(child.stdout, "data");
    const pid = child.pid ?? 0;
    expect(memoryOfTrees([pid]).get(pid)).toBeGreaterThan(64 * MIB);
    expect(memoryOfTrees([2 ** 30]).get(2 ** 30)).toBe(0);
  } finally {
    process.kill(-(child.pid ?? 0), "SIGKILL");
  }
});
