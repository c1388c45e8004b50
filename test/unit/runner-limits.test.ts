import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { legacyCgroup } from "../../runner/src/cgroup.ts";
import { planLaunch, probeIsolation } from "../../runner/src/isolation.ts";
import { openRunGroup, type RunGroup, spareBytes } from "../../runner/src/limits/group.ts";
import {
  describeLimits,
  describeMeans,
  explainEnd,
  isByCgroup,
  type LimitEvidence,
  limitsOf,
  type MachineLimits,
  type RunLimits,
  sizeText,
} from "../../runner/src/limits/limits.ts";
import { divides, probeLimits } from "../../runner/src/limits/probe.ts";
import { watchWorkspace } from "../../runner/src/limits/workspace-size.ts";
import { type ProcessResult, runProcess } from "../../runner/src/process.ts";
import { ended } from "../../runner/src/tasks/task.ts";

const MIB = 1024 * 1024;
const folder = mkdtempSync(join(tmpdir(), "plumule-limits-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const isolation = probeIsolation();
const machine = probeLimits();
const none = { by: "none", why: "for the test" } as const;
const nothing: RunLimits = { memoryBytes: null, taskCount: null, workspaceBytes: null };

function open(limits: Partial<RunLimits>, by: MachineLimits = machine): RunGroup {
  const group = openRunGroup(
    `test-${process.pid}-${Math.random().toString(36).slice(2)}`,
    { ...nothing, ...limits },
    by,
  );
  if ("unavailable" in group) throw new Error(group.unavailable);
  return group;
}

async function run(
  group: RunGroup,
  script: string,
  level = isolation.level,
): Promise<ProcessResult & { output: string }> {
  let output = "";
  const result = await runProcess({
    argv: ["bash", "-c", script],
    cwd: "/",
    env: { PATH: process.env["PATH"] ?? "" },
    level,
    within: group.confinement,
    merged: true,
    graceMs: 1_000,
    onOutput: (chunk) => (output += Buffer.from(chunk).toString()),
  });
  return { ...result, output };
}

/** A program that needs so much memory: `tail` keeps what it may have to print. */
const grow = (mib: number): string => `head -c ${mib}M /dev/zero | tail -c ${mib}M | cat >/dev/null`;

describe("the limits of a run", () => {
  const byCgroup = { by: "cgroup-v2", folder: "/x" } as const;
  const rlimit = { by: "rlimit" } as const;
  it("are the runner's, which a job may lower and not raise", () => {
    const own = { memoryBytes: 100 * MIB, workspaceBytes: 5 * MIB };
    const asked = { memoryBytes: 200 * MIB, taskCount: 20, workspaceBytes: MIB };
    expect(limitsOf(own, asked, { memory: rlimit, tasks: rlimit, spareBytes: 1 })).toEqual({
      memoryBytes: 100 * MIB,
      taskCount: 20,
      workspaceBytes: MIB,
    });
  });

  it("keep the rest of the machine alive by default, where a cgroup can do that without breaking a program", () => {
    expect(limitsOf({}, undefined, { memory: byCgroup, tasks: byCgroup, spareBytes: 7 })).toEqual({
      memoryBytes: 7,
      taskCount: 8_192,
      workspaceBytes: null,
    });
    expect(limitsOf({}, undefined, { memory: rlimit, tasks: none, spareBytes: 7 })).toEqual(nothing);
    expect(spareBytes()).toBeGreaterThanOrEqual(64 * MIB);
  });

  it("are said in the log with how well each is kept, when somebody has set one", () => {
    const limits = { memoryBytes: 512 * MIB, taskCount: 100, workspaceBytes: 1024 * MIB };
    expect(describeLimits(limits, { logBytes: MIB }, { memory: byCgroup, tasks: byCgroup })).toBeNull();
    expect(describeLimits(limits, { memoryBytes: 1, logBytes: MIB }, { memory: rlimit, tasks: none })).toBe(
      "limits: memory 512 MiB (limited by prlimit, each process by itself), 100 tasks (not limited (for the test)), workspace 1 GiB (measured), log 1 MiB",
    );
    expect(describeMeans({ memory: byCgroup, tasks: none })).toEqual([
      "memory of a job: limited by cgroup v2",
      "tasks of a job: not limited (for the test)",
    ]);
    expect([0, 1023, 1536, 64 * MIB, 5 * 1024 * MIB].map(sizeText)).toEqual([
      "0 bytes",
      "1023 bytes",
      "1.5 KiB",
      "64 MiB",
      "5 GiB",
    ]);
  });
});

describe("how a run ended", () => {
  const limits: RunLimits = { memoryBytes: 64 * MIB, taskCount: 10, workspaceBytes: 5 * MIB };
  const seen = (more: Partial<LimitEvidence>): LimitEvidence => ({
    oomKillCount: 0,
    reachedMemoryLimit: true,
    taskRefusalCount: 0,
    machineOomKillCount: 0,
    workspaceBytes: null,
    ...more,
  });
  const failed = ended("failed", 137, { code: "exit-code", detail: "The script ended with SIGKILL." });
  const good = ended("succeeded", 0, null);

  it("is out of memory when the kernel killed a process of it for its limit", () => {
    expect(explainEnd(failed, limits, seen({ oomKillCount: 1 }))).toMatchObject({
      outcome: "failed",
      exitCode: 137,
      reason: {
        code: "out-of-memory",
        limit: "memory",
        detail: "Out of memory: the job reached its limit of 64 MiB, and the kernel killed one process of it.",
      },
    });
    const lost = ended("refused", null, { code: "runner-lost", detail: "the sandbox was killed from outside" });
    expect(explainEnd(lost, limits, seen({ oomKillCount: 2 }))).toMatchObject({ outcome: "failed" });
    const derivation = "/nix/store/x.drv";
    const build = ended("failed", 1, { code: "build-failed", detail: "x", derivation });
    expect(explainEnd(build, limits, seen({ oomKillCount: 1 }))).toMatchObject({ reason: { derivation } });
  });

  it("is out of memory when the whole machine was, and SIGKILL ended it", () => {
    const evidence = seen({ machineOomKillCount: 3 });
    expect(explainEnd(failed, limits, evidence).reason).toMatchObject({ code: "out-of-memory" });
    expect(explainEnd({ ...failed, exitCode: 1 }, limits, evidence).reason?.code).toBe("exit-code");
    // Killed by this runner, at the end of its lease.
    const lost = ended("refused", 137, { code: "runner-lost", detail: "x" });
    expect(explainEnd(lost, limits, evidence)).toBe(lost);
    expect(explainEnd(failed, limits, seen({ oomKillCount: 1, reachedMemoryLimit: false })).reason).toEqual({
      code: "out-of-memory",
      detail: "Out of memory: the machine had none left, and the kernel killed one process of the job.",
    });
  });

  it("says that no process could be started any more", () => {
    expect(explainEnd(failed, limits, seen({ taskRefusalCount: 2 })).reason).toEqual({
      code: "exit-code",
      limit: "tasks",
      detail: "The script ended with SIGKILL. It had reached its limit of 10 tasks, and could not start 2 processes.",
    });
  });

  it("is a failure when the workspace is too full at the end", () => {
    expect(explainEnd(good, limits, seen({ workspaceBytes: 6 * MIB }))).toMatchObject({
      outcome: "failed",
      reason: { limit: "workspace", detail: "The workspace held 6 MiB, more than its limit of 5 MiB." },
    });
  });

  it("is left as it is when the job coped, was stopped, or reached nothing", () => {
    const stopped = ended("cancelled", 137, { code: "cancelled", detail: "x" });
    const late = ended("failed", 137, { code: "run-timeout", detail: "x" });
    for (const end of [good, stopped, late]) {
      expect(explainEnd(end, limits, seen({ oomKillCount: 1, taskRefusalCount: 1, machineOomKillCount: 1 }))).toBe(end);
    }
    expect(explainEnd(failed, limits, seen({}))).toBe(failed);
    expect(explainEnd(good, limits, seen({ workspaceBytes: 5 * MIB }))).toBe(good);
  });
});

for (const level of isolation.available)
  describe.skipIf(!isByCgroup(machine.memory) || !isByCgroup(machine.tasks))(`a limited run at level ${level}`, () => {
    it("is killed by the kernel when it needs more memory than it may, and the kernel counts it", async () => {
      const group = open({ memoryBytes: 96 * MIB });
      const result = await run(group, `${grow(300)}; echo "\${PIPESTATUS[1]}"; exit 3`, level);
      expect(result).toMatchObject({ reason: "exit", exitCode: 3, output: expect.stringMatching(/^137$/m) });
      expect(group.evidence()).toMatchObject({ oomKillCount: 1, reachedMemoryLimit: true, taskRefusalCount: 0 });
      expect(await group.empty()).toMatchObject({ killedCount: 0, leftoverCount: 0 });
      group.remove();
      expect(group.confinement.joins.filter(existsSync)).toEqual([]);
    });

    it("cannot start more processes than it may", async () => {
      const group = open({ taskCount: 24 });
      // Not bash, which would try again for a quarter of a minute.
      const result = await run(group, "exec sh -c 'for i in $(seq 60); do sleep 300 & done'", level);
      expect(result).toMatchObject({ output: expect.stringMatching(/fork/i), leftoverCount: 0 });
      expect(group.evidence().taskRefusalCount).toBeGreaterThan(0);
      expect(await group.empty()).toMatchObject({ leftoverCount: 0 });
      group.remove();
    });

    it("gives way to the runner: it is killed first when memory runs out, and runs last", async () => {
      const group = open({ memoryBytes: 96 * MIB });
      const { output } = await run(group, "cat /proc/self/oom_score_adj; nice", level);
      expect(output).toBe("500\n5\n");
      group.remove();
    });
  });

describe.skipIf(!isByCgroup(machine.tasks))("the cgroup of a run", () => {
  it("finds and kills what left session and environment, at the weakest level too", async () => {
    const group = open({ taskCount: 100 });
    await run(group, "(env -i setsid sleep 300 &) ; sleep 0.1", "process-group");
    expect(await group.empty()).toEqual({ killedCount: 1, leftoverCount: 0, names: ["sleep"] });
    group.remove();
  });
});

describe("limits without a cgroup", () => {
  it("are kept by prlimit, where it can", async () => {
    const memory = open({ memoryBytes: 2_048 * MIB, taskCount: 50 }, { memory: { by: "rlimit" }, tasks: none });
    expect((await run(memory, "ulimit -v")).output).toBe(`${2_048 * 1024}\n`);
    const tasks = open({ taskCount: 50 }, { memory: none, tasks: { by: "rlimit" } });
    expect(Number((await run(tasks, "ulimit -u")).output)).toBeGreaterThan(50);
    expect(memory.evidence()).toMatchObject({ oomKillCount: 0, reachedMemoryLimit: false, taskRefusalCount: 0 });
  });

  it("are refused with the reason when a cgroup does not take them", () => {
    const by = { by: "cgroup-v2", folder: join(folder, "not-there") } as const;
    expect(openRunGroup("x", { ...nothing, memoryBytes: MIB }, { memory: by, tasks: none })).toMatchObject({
      unavailable: expect.stringContaining("not-there"),
    });
  });
});

describe("a cgroup of version 2, in its files", () => {
  it("gets memory without swap, and tasks, in one folder; what it counts is read", () => {
    const parent = join(folder, "unified");
    mkdirSync(parent);
    const by = { by: "cgroup-v2", folder: parent } as const;
    const group = open({ memoryBytes: 64 * MIB, taskCount: 30 }, { memory: by, tasks: by });
    const [joins = ""] = group.confinement.joins;
    expect(group.confinement.joins).toHaveLength(1);
    const at = (name: string): string => join(joins, "..", name);
    expect(readFileSync(at("memory.max"), "utf8")).toBe(String(64 * MIB));
    expect(readFileSync(at("pids.max"), "utf8")).toBe("30");
    writeFileSync(at("memory.events"), "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n");
    writeFileSync(at("pids.events"), "max 4\n");
    expect(group.evidence()).toEqual({
      oomKillCount: 2,
      reachedMemoryLimit: true,
      taskRefusalCount: 4,
      machineOomKillCount: 0,
    });
  });

  it("is given no controller while it holds processes, which would keep others out of all below it", () => {
    const holding = join(folder, "holding");
    mkdirSync(holding);
    const files = { "cgroup.type": "domain\n", "cgroup.procs": "17\n", "cgroup.subtree_control": "\n" };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(holding, name), text);
    expect(divides(holding, "pids")).toBe(false);
    expect(readFileSync(join(holding, "cgroup.subtree_control"), "utf8")).toBe("\n");
    // What was found before the limits were probed is there afterwards.
    expect(probeIsolation().available).toEqual(isolation.available);
  });

  it("is joined before anything of the job runs", () => {
    const plan = planLaunch("process-group", ["/bin/true"], "x", {
      joins: ["/c/cgroup.procs"],
      prefix: [],
      cgroup: null,
    });
    expect(plan).toMatchObject({ args: expect.arrayContaining(["/c/cgroup.procs", "--"]) });
  });
});

describe.skipIf(legacyCgroup("memory") === null)("a cgroup of version 1", () => {
  it("is found where this process is", () => {
    expect(existsSync(join(legacyCgroup("memory") ?? "", "cgroup.procs"))).toBe(true);
    expect(legacyCgroup("no-such-controller")).toBeNull();
  });
});

describe("the size of a workspace", () => {
  it("is told once when it is over its limit, and measured at the end", async () => {
    const workspace = mkdtempSync(join(folder, "workspace-"));
    const told: number[] = [];
    const over = Promise.withResolvers<void>();
    const watch = watchWorkspace([workspace], MIB, (bytes) => (told.push(bytes), over.resolve()));
    expect(await watch.measure()).toBeLessThan(MIB);
    writeFileSync(join(workspace, "large"), new Uint8Array(2 * MIB));
    await over.promise;
    await watch.close();
    expect(told).toEqual([await watch.measure()]);
    expect(told[0]).toBeGreaterThanOrEqual(2 * MIB);
  });

  it("is not measured without a limit, and null when it cannot be told", async () => {
    expect(await watchWorkspace([folder], null, () => {}).measure()).toBeNull();
    const watch = watchWorkspace(["/no/such/folder"], 1, () => {});
    expect(await watch.measure()).toBeNull();
    await watch.close();
  });
});
