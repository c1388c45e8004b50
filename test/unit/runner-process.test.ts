import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { Worker } from "node:worker_threads";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, describe, expect, test } from "vitest";
import {
  planLaunch,
  probeIsolation,
  RUNNER_ISOLATION_LEVELS,
  type RunnerIsolationLevel,
} from "../../runner/src/isolation.ts";
import { findTracked } from "../../runner/src/process-tree.ts";
import { type ProcessRequest, type ProcessResult, runProcess } from "../../runner/src/process.ts";

const PATH = process.env["PATH"] ?? "";
const folder = realpathSync(mkdtempSync(join(tmpdir(), "plumule-process-")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const report = probeIsolation();

/** Runs a bash script at a level and collects its output. */
async function run(
  level: RunnerIsolationLevel,
  script: string,
  options: Partial<ProcessRequest> & { onText?: (text: string) => void } = {},
): Promise<ProcessResult & { output: string; elapsedMs: number }> {
  const chunks: Uint8Array[] = [];
  const startedAt = performance.now();
  const result = await runProcess({
    argv: ["bash", "-c", script],
    cwd: folder,
    env: { PATH },
    level,
    merged: true,
    graceMs: 2_000,
    onOutput: (chunk) => {
      chunks.push(chunk);
      options.onText?.(Buffer.concat(chunks).toString());
    },
    ...options,
  });
  return { ...result, output: Buffer.concat(chunks).toString(), elapsedMs: performance.now() - startedAt };
}

/** Cancels as soon as the job has said `ready`. */
function cancelWhenReady(): { cancel: AbortSignal; onText: (text: string) => void } {
  const controller = new AbortController();
  return { cancel: controller.signal, onText: (text) => text.includes("ready") && controller.abort() };
}

const FAMILY = `sleep 300 & setsid sleep 301 & (trap '' TERM; sleep 302) & sleep 0.1; echo ready; sleep 303`;

test("a process waits while its output is not taken, and what it leaves in the pipe at its end is taken still", async () => {
  const takeMs = 150;
  let pendingCount = 0;
  let bytes = 0;
  // The pipe holds 64 KiB, so the last of these is taken longer after the end than leftovers of others would be waited for.
  const result = await run(report.level, "head -c 300000 /dev/zero", {
    onOutput: async (chunk) => {
      expect(++pendingCount).toBe(1);
      await sleep(takeMs);
      bytes += chunk.length;
      pendingCount -= 1;
    },
  });
  expect(result).toMatchObject({ reason: "exit", exitCode: 0 });
  expect(bytes).toBe(300_000);
  const failed = await run(report.level, "echo x; sleep 300", { onOutput: () => Promise.reject(new Error("gone")) });
  expect(failed).toMatchObject({ reason: "lost", leftoverCount: 0 });
});

// A container has its own tests: it needs an image.
for (const level of RUNNER_ISOLATION_LEVELS.filter((one) => one !== "container")) {
  const missing = report.unavailable.get(level);
  describe.skipIf(missing !== undefined)(
    `a process at level ${level}${missing ? ` (missing: ${missing})` : ""}`,
    () => {
      test("reports its exit code and gets exactly the environment that was passed", async () => {
        const { output, ...result } = await run(level, "env; exit 7", {
          trackingId: "track-1",
          env: { PATH, GREETING: "hi there" },
        });
        expect(result).toMatchObject({
          reason: "exit",
          exitCode: 7,
          signal: null,
          survivorsKilledCount: 0,
          leftoverCount: 0,
          detail: null,
        });
        const names = output
          .trim()
          .split("\n")
          .map((line) => line.split("=")[0]);
        // bash itself adds SHLVL and _.
        expect(new Set(names)).toEqual(new Set(["GREETING", "PATH", "PLUMULE_TRACKING_ID", "PWD", "SHLVL", "_"]));
        expect(output).toContain("GREETING=hi there\n");
        expect(output).toContain(`PWD=${folder}\n`);
        expect(output).toContain("PLUMULE_TRACKING_ID=track-1\n");
      });

      test("keeps the order of both streams in one pipe, also through /dev/stderr", async () => {
        const { output } = await run(
          level,
          "for i in $(seq 2000); do echo $i; echo $i >&2; done; echo last >/dev/stderr",
        );
        const expected = Array.from({ length: 2_000 }, (_, index) => `${index + 1}\n${index + 1}\n`).join("");
        expect(output).toBe(`${expected}last\n`);
      });

      test("tells the streams apart when asked to", async () => {
        const seen: Record<string, string> = {};
        await run(level, "echo out; echo err >&2", {
          merged: false,
          onOutput: (chunk, stream) => void (seen[stream] = (seen[stream] ?? "") + Buffer.from(chunk).toString()),
        });
        expect(seen).toEqual({ stdout: "out\n", stderr: "err\n" });
      });

      test("gets standard input, and an end of it when there is none", async () => {
        expect((await run(level, "cat", { stdin: Buffer.from("given") })).output).toBe("given");
        expect(await run(level, "cat; true")).toMatchObject({ output: "", exitCode: 0 });
        expect(await run(level, "exit 3", { stdin: new Uint8Array(1_000_000) })).toMatchObject({ exitCode: 3 });
      });

      test("has its grace when it is cancelled: its trap runs and its exit code arrives", async () => {
        const script = "trap 'sleep 0.2; echo cleaned; exit 42' TERM; echo ready; sleep 300 & wait";
        const result = await run(level, script, cancelWhenReady());
        expect(result).toMatchObject({ reason: "cancelled", exitCode: 42, survivorsKilledCount: 0, leftoverCount: 0 });
        expect(result.output).toBe("ready\ncleaned\n");
      });

      test("lets its children finish within the grace although it ended first", async () => {
        const script =
          "trap 'exit 1' TERM; (trap 'sleep 0.3; echo child cleaned; exit' TERM; echo ready; sleep 300 & wait) & wait";
        const result = await run(level, script, cancelWhenReady());
        expect(result.output).toContain("child cleaned");
        expect(result).toMatchObject({ reason: "cancelled", exitCode: 1, survivorsKilledCount: 0, leftoverCount: 0 });
      });

      test("does not spend its grace on a daemon that the signal did not reach", async () => {
        const script = "(setsid sleep 300 &); sleep 0.1; trap 'exit 0' TERM; echo ready; sleep 301 & wait";
        const result = await run(level, script, { graceMs: 60_000, ...cancelWhenReady() });
        expect(result).toMatchObject({ reason: "cancelled", exitCode: 0, survivorsKilledCount: 1, leftoverCount: 0 });
        expect(result.elapsedMs).toBeLessThan(3_000);
      });

      test("is killed after the grace when it ignores the signal", async () => {
        const script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        const result = await run(level, script, { graceMs: 300, ...cancelWhenReady() });
        expect(result).toMatchObject({ reason: "cancelled", exitCode: 137, signal: "SIGKILL", leftoverCount: 0 });
        expect(result.survivorsKilledCount).toBeGreaterThan(0);
        expect(result.elapsedMs).toBeGreaterThan(300);
      });

      test("is killed at once when the grace is cut short", async () => {
        const kill = new AbortController();
        const waiting = cancelWhenReady();
        setTimeout(() => kill.abort(), 600);
        const script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        const result = await run(level, script, { graceMs: 60_000, kill: kill.signal, ...waiting });
        expect(result).toMatchObject({ reason: "cancelled", signal: "SIGKILL", leftoverCount: 0 });
        expect(result.elapsedMs).toBeLessThan(5_000);
      });

      test("leaves no child behind: background, own session, deaf to TERM", async () => {
        const trackingId = randomUUID();
        const result = await run(level, FAMILY, { graceMs: 300, trackingId, ...cancelWhenReady() });
        expect(result).toMatchObject({ reason: "cancelled", leftoverCount: 0 });
        expect(result.survivorsKilledCount).toBeGreaterThanOrEqual(2);
        expect(result.survivorNames).toContain("sleep");
        expect(findTracked(trackingId)).toEqual([]);
      });

      test("does not wait for a daemon that holds its output open, and counts it", async () => {
        const result = await run(level, "sleep 300 & (setsid sleep 301 &) ; echo done");
        expect(result).toMatchObject({
          reason: "exit",
          exitCode: 0,
          survivorsKilledCount: 2,
          leftoverCount: 0,
          output: "done\n",
        });
        expect(result.elapsedMs).toBeLessThan(2_000);
      });

      test("lets a helper flush its last lines", async () => {
        expect((await run(level, "exec > >(sleep 0.02; cat); echo through the helper")).output).toBe(
          "through the helper\n",
        );
      });

      test("gets signals with their default action, as on a plain machine", async () => {
        const asked = cancelWhenReady();
        const result = await run(level, "", { argv: ["sh", "-c", "echo ready; exec sleep 300"], ...asked });
        expect(result).toMatchObject({ reason: "cancelled", exitCode: 143, signal: "SIGTERM" });
        expect(result.elapsedMs).toBeLessThan(1_500);
        expect(await run(level, "kill -SEGV $$")).toMatchObject({
          reason: "exit",
          exitCode: 139,
          signal: "SIGSEGV",
          output: "",
        });
      });

      test("gets the first signal that was asked for", async () => {
        const script =
          "trap 'echo interrupted; exit 5' INT; trap 'echo terminated; exit 6' TERM; echo ready; while :; do sleep 0.05; done";
        const result = await run(level, script, { firstSignal: "SIGINT", ...cancelWhenReady() });
        expect(result).toMatchObject({ exitCode: 5, output: "ready\ninterrupted\n" });
      });

      test("is stopped when it runs too long, and when it is silent too long", async () => {
        const talk = "while :; do echo x; sleep 0.05; done";
        expect(await run(level, talk, { limits: { runMs: 400, silenceMs: 300 } })).toMatchObject({ reason: "timeout" });
        const silent = await run(level, "for i in 1 2 3 4; do echo $i; sleep 0.2; done; sleep 300", {
          limits: { runMs: 60_000, silenceMs: 500 },
        });
        expect(silent).toMatchObject({ reason: "silence", output: "1\n2\n3\n4\n", leftoverCount: 0 });
      });

      test("is stopped as lost when its output cannot be kept", async () => {
        const result = await run(level, "echo x; sleep 300", {
          onOutput: () => {
            throw new Error("ENOSPC: no space left on device");
          },
        });
        expect(result).toMatchObject({ reason: "lost", leftoverCount: 0 });
        expect(result.detail).toContain("no space left");
      });

      test("is refused as not started, with the reason, when program or folder is missing", async () => {
        const lost = { reason: "not-started", exitCode: null };
        expect(await run(level, "", { argv: ["no-such-program"] })).toMatchObject({
          ...lost,
          detail: "no such program: no-such-program",
        });
        expect(await run(level, "", { cwd: "/no/such" })).toMatchObject({
          ...lost,
          detail: "no such folder: /no/such",
        });
        expect(await run(level, "echo x", { cancel: AbortSignal.abort() })).toMatchObject({
          reason: "cancelled",
          output: "",
        });
      });

      test("dies with the runner", async () => {
        const trackingId = randomUUID();
        const namespaced = level === "bwrap" || level === "userns";
        const runner = startRunner(level, trackingId, namespaced ? FAMILY : "echo ready; exec sleep 303");
        await expect.poll(() => findTracked(trackingId).length, { timeout: 5_000 }).toBeGreaterThan(0);
        await new Promise((resolve) => runner.stdout.once("data", resolve));
        runner.kill("SIGKILL");
        await expect.poll(() => findTracked(trackingId), { timeout: 5_000 }).toEqual([]);
      });
    },
  );
}

/** A runner in a process of its own, so that it can be killed. */
function startRunner(level: string, trackingId: string, script: string): ChildProcessByStdio<null, Readable, null> {
  const source = `
    import { runProcess } from ${JSON.stringify(join(import.meta.dirname, "../../runner/src/process.ts"))};
    const result = await runProcess({ argv: ["bash", "-c", process.argv[3]], cwd: "/", env: { PATH: process.env.PATH }, level: process.argv[1],
      trackingId: process.argv[2], merged: true, graceMs: 100, onOutput: (chunk) => process.stdout.write(chunk) });
    console.log(JSON.stringify(result));`;
  const args = ["--input-type=module", "-e", source, level, trackingId, script];
  return spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
}

test.skipIf(process.getuid?.() !== 0 || report.available.length < 4)(
  "an escape artist (own session, empty environment) is caught by namespace and cgroup",
  async () => {
    for (const level of ["bwrap", "userns", "cgroup"] as const) {
      const result = await run(level, "(env -i setsid sleep 300 &) ; sleep 0.05; echo done");
      expect([level, result.survivorsKilledCount, result.leftoverCount]).toEqual([level, 1, 0]);
    }
  },
);

test.skipIf(report.unavailable.has("cgroup"))(
  "a starting runner removes the empty cgroups of runners that are gone, and none that a live one is about to use",
  () => {
    const plan = planLaunch("cgroup", ["/bin/true"], "about-to-start");
    if ("unavailable" in plan || plan.cgroup === null) throw new Error("no cgroup was made");
    const left = plan.cgroup.replace(`-${process.pid}-`, `-${spawnSync("true").pid}-`);
    mkdirSync(left);
    probeIsolation();
    expect([existsSync(plan.cgroup), existsSync(left)]).toEqual([true, false]);
    rmdirSync(plan.cgroup);
  },
);

test.skipIf(spawnSync("setpriv", ["--reuid", "65534", "true"]).status !== 0)(
  "an unprivileged runner gets a working level too",
  () => {
    const source = `
      import { probeIsolation } from ${JSON.stringify(join(import.meta.dirname, "../../runner/src/isolation.ts"))};
      const report = probeIsolation();
      console.log(JSON.stringify({ available: report.available, unavailable: [...report.unavailable] }));`;
    const args = [
      "--reuid",
      "65534",
      "--regid",
      "65534",
      "--clear-groups",
      process.execPath,
      "--input-type=module",
      "-e",
      source,
    ];
    const { stdout, stderr } = spawnSync("setpriv", args, { encoding: "utf8", cwd: "/" });
    expect(stderr).toBe("");
    const { available, unavailable } = JSON.parse(stdout) as { available: string[]; unavailable: [string, string][] };
    expect(available).toContain("process-group");
    for (const [, reason] of unavailable) expect(reason).not.toBe("");
    expect(available.length + unavailable.length).toBe(RUNNER_ISOLATION_LEVELS.length);
  },
);

test("a process is refused from another thread, whose end would be the job's", async () => {
  const source = `
    import { parentPort } from "node:worker_threads";
    import { runProcess } from ${JSON.stringify(new URL("../../runner/src/process.ts", import.meta.url).href)};
    const request = { argv: ["true"], cwd: "/", env: process.env, level: "process-group", merged: true, graceMs: 0, onOutput() {} };
    parentPort.postMessage(await runProcess(request).then(() => "ran", String));`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
  const [answer] = (await once(worker, "message")) as [string];
  await worker.terminate();
  expect(answer).toContain("belongs on the main thread");
});

test("a system that blocks user namespaces is named, because the words of the kernel do not name it", () => {
  const tools = mkdtempSync(join(folder, "tools-"));
  const words = {
    bwrap: "bwrap: setting up uid map: Permission denied",
    setpriv: "unshare: write failed /proc/self/uid_map",
  };
  for (const [name, text] of Object.entries(words))
    writeFileSync(join(tools, name), `#!/bin/sh\necho '${text}' >&2\nexit 1\n`, { mode: 0o755 });
  process.env["PATH"] = `${tools}:${PATH}`;
  try {
    const { unavailable } = probeIsolation();
    expect(unavailable.get("bwrap")).toMatch(
      /uid map: Permission denied: .*AppArmor profile.*apparmor_restrict_unprivileged_userns=0/,
    );
    expect(unavailable.get("userns")).toMatch(/uid_map: .*AppArmor/);
  } finally {
    process.env["PATH"] = PATH;
  }
});

test("a machine without room for a pipe is a reason, not an exception", async () => {
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = "/no/such/folder";
  try {
    let result = await run("process-group", "true");
    // Pipes in stock are used up first.
    for (let count = 0; count < 50 && result.reason === "exit"; count += 1) result = await run("process-group", "true");
    expect(result).toMatchObject({ reason: "not-started", detail: expect.stringContaining("no pipe for its output") });
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
});

test("the probe says what is missing", () => {
  expect([...report.available, ...report.unavailable.keys()].toSorted()).toEqual(
    [...RUNNER_ISOLATION_LEVELS].toSorted(),
  );
  const path = process.env["PATH"];
  process.env["PATH"] = "/var/empty";
  try {
    expect(probeIsolation()).toMatchObject({ level: "process-group", available: [] });
    expect(probeIsolation().unavailable.get("bwrap")).toBe("no sh in PATH");
  } finally {
    process.env["PATH"] = path;
  }
});
