import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Assignment, type JobLimits, runIdOf, type SubmitBody } from "@plumule/protocol";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ExitRecord } from "../../runner/src/supervisor/records.ts";
import { readExit } from "../../runner/src/conclude.ts";
import { readBatches } from "../../runner/src/event-feed.ts";
import { probeIsolation, RUNNER_ISOLATION_LEVELS, type RunnerIsolationLevel } from "../../runner/src/isolation.ts";
import { killRun } from "../../runner/src/leftovers.ts";
import { isByCgroup, type MachineLimits } from "../../runner/src/limits/limits.ts";
import { probeLimits } from "../../runner/src/limits/probe.ts";
import { memoryFolder } from "../../runner/src/secrets/files.ts";
import { bootId, identityOf, isAlive, monotonicMs } from "../../runner/src/process-identity.ts";
import { findTracked } from "../../runner/src/process-tree.ts";
import { lockState } from "../../runner/src/state-lock.ts";
import { readLease, type RunFiles, runFiles, writeLease, writeOrder } from "../../runner/src/supervisor/files.ts";
import type { SupervisorOrder } from "../../runner/src/supervisor/order.ts";
import { containerPlace } from "../support/container.ts";
import { openSupervisors, type Supervisors, type WaitingSupervisor } from "../../runner/src/supervisors.ts";

const MIB = 1024 * 1024;
const report = probeIsolation();
const machineLimits = probeLimits();
let folder: string;
let supervisors: Supervisors;
let runCount = 0;
let run: string;
let files: RunFiles;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-supervisor-"));
  supervisors = openSupervisors(join(tmpdir(), "plumule-test-cache"), false);
  run = runIdOf(`0199c0de-7a11-7000-9b1f-${process.pid.toString(16).padStart(12, "0")}`, (runCount += 1));
  files = runFiles(join(folder, "runs"), run);
  mkdirSync(files.control, { recursive: true });
});
afterEach(async () => {
  await supervisors.close();
  await killRun(run, null);
  rmSync(folder, { recursive: true, force: true });
});

function order(
  script: string,
  options: {
    level?: RunnerIsolationLevel;
    outlives?: boolean;
    limits?: Partial<Assignment["limits"]>;
    spec?: Partial<SubmitBody>;
    own?: JobLimits;
    machineLimits?: MachineLimits;
  } = {},
): SupervisorOrder {
  const limits = { logBytes: 1024 * 1024, runMs: 60_000, silenceMs: 60_000, graceMs: 2_000, ...options.limits };
  return {
    assignment: {
      run,
      spec: { task: { kind: "shell", script }, ...options.spec },
      limits,
    } as SupervisorOrder["assignment"],
    machine: {
      isolation: options.level ?? report.level,
      limits: options.machineLimits ?? machineLimits,
      overlay: false,
      nix: null,
      variables: {},
      path: process.env["PATH"] ?? "",
    },
    unmet: null,
    runs: join(folder, "runs"),
    workspaces: join(folder, "workspaces"),
    warm: join(folder, "warm"),
    effectStates: join(folder, "effects"),
    mirrors: join(folder, "mirrors"),
    allowLocal: false,
    radicle: { home: "/nonexistent", seeds: [], privateRepositories: [] },
    secrets: { identity: join(folder, "age.key"), folder: memoryFolder(folder) },
    logLimitBytes: limits.logBytes,
    limits: options.own ?? {},
    derivationCount: 10,
    edgeCount: 10,
    outlives: options.outlives ?? true,
  };
}

/** Begins a run with a lease of so many ms. */
async function begin(leaseMs: number, ...args: Parameters<typeof order>): Promise<WaitingSupervisor> {
  const one = await supervisors.take();
  writeLease(files.control, monotonicMs() + leaseMs);
  one.begin(order(...args));
  return one;
}
const log = (): string => (existsSync(files.log) ? readFileSync(files.log, "utf8") : "");
const says = (text: string): Promise<void> => expect.poll(log, { timeout: 10_000 }).toContain(text);
async function endOf(one: WaitingSupervisor): Promise<ExitRecord | null> {
  await one.ended;
  return readExit(files.exit);
}

describe("a supervisor", () => {
  it("writes log, events and end of its run, and the end last", async () => {
    const end = await endOf(await begin(30_000, "echo hello; exit 3"));
    expect(end).toMatchObject({ outcome: "failed", exitCode: 3, reason: { code: "exit-code" }, log: { bytes: 6 } });
    expect(log()).toBe("hello\n");
    const events = (await readBatches(files.events)).flatMap((batch) => batch.events);
    expect(events.map((event) => event.type === "phase" && event.phase)).toEqual(["setup", "building", "signing"]);
    expect(findTracked(run)).toEqual([]);
  });

  it("goes on with the log that its runner has begun", async () => {
    writeFileSync(files.log, "[plumule] waits\n");
    const end = await endOf(await begin(30_000, "echo hello"));
    const whole = "[plumule] waits\nhello\n";
    expect(log()).toBe(whole);
    expect(end?.log).toMatchObject({ bytes: whole.length, sha256: createHash("sha256").update(whole).digest("hex") });
  });

  it("lets a run end as it ends when the disk takes none of its events", async () => {
    symlinkSync("/dev/full", files.events);
    const end = await endOf(await begin(30_000, "sleep 1; echo hello; exit 3"));
    expect(end).toMatchObject({ outcome: "failed", exitCode: 3, log: { bytes: 6 } });
  });

  it("knows nothing of its runner's environment", async () => {
    process.env["SSH_AUTH_SOCK"] = "/secret";
    process.env["PLUMULE_REGISTRATION"] = "plr_secret";
    const one = await supervisors.take();
    const environment = readFileSync(`/proc/${one.supervisor.pid}/environ`, "utf8");
    expect(environment).toContain("PATH=");
    expect(environment).not.toMatch(/secret|NODE_OPTIONS|VITEST/);
    one.dismiss();
    await one.ended;
  });

  it("goes when the runner goes before it had an order, and when it is not needed", async () => {
    const one = await supervisors.take();
    one.dismiss();
    await one.ended;
    expect(isAlive(one.supervisor)).toBe(false);
  });

  it("kills everything at the end of a lease that nobody renews, and writes why", async () => {
    const startedAt = performance.now();
    const one = await begin(700, "trap '' TERM; setsid sleep 300 & echo up; sleep 300");
    await says("up");
    const end = await endOf(one);
    expect(performance.now() - startedAt).toBeGreaterThan(690);
    expect(end).toMatchObject({ outcome: "refused", reason: { code: "runner-lost" } });
    expect(end?.survivors).toMatchObject({ leftoverCount: 0 });
    expect(findTracked(run)).toEqual([]);
  });

  it("goes on as long as its lease is renewed", async () => {
    const one = await begin(600, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done");
    const renewal = setInterval(() => writeLease(files.control, monotonicMs() + 600), 200);
    const end = await endOf(one);
    clearInterval(renewal);
    expect(end).toMatchObject({ outcome: "succeeded" });
  });

  it("does not believe a lease of another life of the machine", async () => {
    const one = await supervisors.take();
    writeFileSync(join(files.control, "lease"), `${String(2 ** 50).padStart(20)} ${"another".padEnd(40)}.\n`);
    one.begin(order("sleep 300"));
    expect(await endOf(one)).toMatchObject({ reason: { code: "runner-lost" } });
  });

  it("obeys an order to stop, with its grace, and a later one that shortens it", async () => {
    const one = await begin(30_000, "trap 'echo bye' TERM; echo up; while :; do sleep 0.1; done");
    await says("up");
    writeOrder(files.control, { reason: { code: "cancelled", detail: "x" }, graceMs: 60_000, leaseLost: false });
    await says("bye");
    writeOrder(files.control, { reason: { code: "cancelled", detail: "y" }, graceMs: 0, leaseLost: false });
    expect(await endOf(one)).toMatchObject({ outcome: "cancelled", reason: { code: "cancelled", detail: "x" } });
  });

  it("says out of memory when its job reached its limit, and in which words", async () => {
    const spec = { limits: { memoryBytes: 96 * MIB } };
    const end = await endOf(await begin(30_000, "head -c 300M /dev/zero | tail -c 300M | cat >/dev/null", { spec }));
    const byCgroup = isByCgroup(machineLimits.memory);
    expect(log()).toContain("[plumule] limits: memory 96 MiB (limited by ");
    expect(end).toMatchObject({ outcome: "failed", reason: { code: byCgroup ? "out-of-memory" : "exit-code" } });
    if (byCgroup) expect(log()).toContain("Out of memory: the job reached its limit of 96 MiB, and the kernel killed");
  });

  it("stops its run when the workspace holds too much, and says how much", async () => {
    const script = "head -c 3M /dev/zero >large; echo written; trap '' TERM; while :; do sleep 0.1; done";
    const end = await endOf(await begin(30_000, script, { own: { workspaceBytes: MIB } }));
    expect(end).toMatchObject({
      outcome: "failed",
      exitCode: 137,
      reason: {
        code: "exit-code",
        limit: "workspace",
        detail: expect.stringContaining("more than its limit of 1 MiB"),
      },
    });
    expect(log()).toContain("[plumule] limits: ");
  });

  it("fails a run that ended before anybody saw its full workspace", async () => {
    const end = await endOf(await begin(30_000, "head -c 3M /dev/zero >large", { own: { workspaceBytes: MIB } }));
    expect(end).toMatchObject({ outcome: "failed", exitCode: 0, reason: { limit: "workspace" } });
    expect(log()).toMatch(/The workspace held 3(\.\d)? MiB, more than its limit of 1 MiB\.\n$/);
  });

  it("names in the log what it had to kill, and counts it", async () => {
    const end = await endOf(await begin(30_000, "sleep 300 & sleep 301 & (setsid sleep 302 &); exec true"));
    expect(end).toMatchObject({ outcome: "succeeded", survivors: { killedCount: 3, leftoverCount: 0 } });
    expect(log()).toBe("[plumule] killed 3 processes that were left: sleep ×3\n");
  });

  it("keeps head and tail of a log that is small", async () => {
    const limits = { logBytes: 64 * 1024 };
    const end = await endOf(await begin(30_000, "seq 100000", { limits }));
    expect(end?.log.bytes).toBeLessThanOrEqual(64 * 1024);
    expect(log()).toMatch(/^1\n2\n[^]*the log is longer than 65536 bytes[^]*bytes were left out here\n[^]*\n100000\n$/);
  });

  it("writes which isolation its processes really had, and none when there was no process", async () => {
    expect(await endOf(await begin(30_000, "true"))).toMatchObject({ isolation: report.level });
  });

  it("gives a job back that asks for more than this runner has", async () => {
    const one = await supervisors.take();
    writeLease(files.control, monotonicMs() + 30_000);
    one.begin({ ...order("echo ran"), unmet: "The job asks for isolation container, and this runner has bwrap." });
    expect(await endOf(one)).toMatchObject({
      outcome: "refused",
      isolation: null,
      reason: { code: "refused", detail: "The job asks for isolation container, and this runner has bwrap." },
    });
    expect(log()).toBe("");
  });

  it("ends with its runner when it may not outlive it", async () => {
    const one = await begin(30_000, "echo up; sleep 300", { outlives: false });
    await says("up");
    one.dismiss();
    expect(await endOf(one)).toMatchObject({ outcome: "refused", reason: { code: "runner-stopped" } });
  });
});

for (const level of RUNNER_ISOLATION_LEVELS.filter((one) => one !== "container"))
  describe.skipIf(!report.available.includes(level))(`a supervisor that is killed, at level ${level}`, () => {
    it("leaves nothing once its run was swept", async () => {
      const one = await begin(30_000, "sleep 300 & setsid sleep 301 & echo up; sleep 302", { level });
      await says("up");
      process.kill(one.supervisor.pid, "SIGKILL");
      expect(await killRun(run, one.supervisor)).toBe(0);
      expect(findTracked(run)).toEqual([]);
      expect(await readExit(files.exit)).toBeNull();
    });
  });

const settings = mkdtempSync(join(tmpdir(), "plumule-place-"));
const place = containerPlace(settings);
afterAll(() => rmSync(settings, { recursive: true, force: true }));
it.skipIf("missing" in place)(
  "a supervisor runs a job in a container, which sees the folders of its run alone",
  async () => {
    if ("missing" in place) return;
    const { engine, image } = place;
    const one = await supervisors.take();
    writeLease(files.control, monotonicMs() + 60_000);
    const plain = order("echo kept >$HOME/file; cd /; echo */; echo $(<$HOME/file)");
    one.begin({
      ...plain,
      machine: { ...plain.machine, isolation: "container", path: "/bin", container: { engine, image } },
    });
    expect(await endOf(one)).toMatchObject({ outcome: "succeeded", isolation: "container" });
    expect(log()).toMatch(/^bin\/ dev\/ .*\nkept\n$/);
    expect(log()).not.toMatch(/home|root|srv/);
  },
);

/** Everything that a module loads before anything else happens. */
function loadedBy(path: string, seen = new Set<string>()): Set<string> {
  if (seen.has(path)) return seen;
  seen.add(path);
  if (!path.startsWith("/")) return seen;
  const imports = readFileSync(path, "utf8").matchAll(/^(?:import|export) (?!type\b)[^;]*?from "([^"]+)";$/gm);
  for (const [, name = ""] of imports) loadedBy(name.startsWith(".") ? join(dirname(path), name) : name, seen);
  return seen;
}

it("a supervisor that waits has loaded nothing that a plain script does not need", () => {
  const loaded = [...loadedBy(join(import.meta.dirname, "../../runner/src/supervisor/main.ts"))];
  expect(loaded.some((path) => path.endsWith("/process.ts"))).toBe(true);
  expect(loaded.filter((path) => !path.startsWith("/") && !path.startsWith("node:"))).toEqual([]);
});

describe("who a process is", () => {
  it("is told by its number, its start and the life of the machine", () => {
    const identity = identityOf(process.pid)!;
    expect(isAlive(identity)).toBe(true);
    expect(isAlive({ ...identity, startedAt: "0" })).toBe(false);
    expect(isAlive({ ...identity, boot: "another" })).toBe(false);
    expect(identityOf(2 ** 22 + 1)).toBeNull();
  });

  it("is kept apart from the lease of another life", () => {
    writeLease(files.control, 123_456.7);
    expect(readLease(files.control)).toEqual({ untilMs: 123_456, boot: bootId() });
    writeFileSync(join(files.control, "lease"), "12");
    expect(readLease(files.control)).toBeNull();
  });
});

describe("the lock of a state folder", () => {
  it("is held once, and taken over from a process that is gone", async () => {
    const first = await lockState(folder);
    expect(await lockState(folder)).toMatchObject({ refused: expect.stringContaining(`process ${process.pid}`) });
    if ("refused" in first) throw new Error(first.refused);
    await first.release();
    writeFileSync(join(folder, "lock"), `${process.pid} 1`);
    const both = await Promise.all([lockState(folder), lockState(folder)]);
    expect(both.filter((one) => "release" in one)).toHaveLength(1);
  });
});
