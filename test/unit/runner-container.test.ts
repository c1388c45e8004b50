import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { ContainerPlace } from "../../runner/src/container.ts";
import { insideOf } from "../../runner/src/exec/inside.ts";
import { inTerminal } from "../../runner/src/exec/terminal.ts";
import { openRunGroup } from "../../runner/src/limits/group.ts";
import { isByCgroup } from "../../runner/src/limits/limits.ts";
import { probeLimits } from "../../runner/src/limits/probe.ts";
import { probeLevels } from "../../runner/src/probe-container.ts";
import { findTracked } from "../../runner/src/process-tree.ts";
import { type ProcessRequest, type ProcessResult, runProcess } from "../../runner/src/process.ts";
import { containerPlace } from "../support/container.ts";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "plumule-container-")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const place = containerPlace(folder);
const limits = probeLimits();
const none = { by: "none", why: "for the test" } as const;

async function run(
  script: string,
  options: Partial<ProcessRequest> & { onText?: (text: string) => void } = {},
): Promise<ProcessResult & { output: string }> {
  let output = "";
  const result = await runProcess({
    argv: ["bash", "-c", script],
    cwd: folder,
    env: { PATH: "/usr/bin:/bin" },
    level: "container",
    container: place as ContainerPlace,
    merged: true,
    graceMs: 2_000,
    onOutput: (chunk) => {
      output += Buffer.from(chunk).toString();
      options.onText?.(output);
    },
    ...options,
  });
  return { ...result, output };
}

describe.skipIf("missing" in place)(`a container${"missing" in place ? ` (missing: ${place.missing})` : ""}`, () => {
  it("has an exit code, one order of both streams, standard input, and exactly the job's variables", async () => {
    const script = "for i in $(seq 500); do echo $i; echo $i >&2; done; cat; env; exit 7";
    const env = { PATH: "/usr/bin:/bin", GREETING: 'it\'s $HOME\n`two` "lines"' };
    const { output, ...result } = await run(script, {
      env,
      stdin: Buffer.from("given\n"),
      trackingId: `track-${process.pid}`,
    });
    expect(result).toMatchObject({ reason: "exit", exitCode: 7, survivorsKilledCount: 0, leftoverCount: 0 });
    const numbers = Array.from({ length: 500 }, (_, index) => `${index + 1}\n${index + 1}\n`).join("");
    expect(output.startsWith(`${numbers}given\n`)).toBe(true);
    expect(output).toContain(`GREETING=${env.GREETING}\n`);
    const names = output.slice(numbers.length).match(/^[A-Z_]+(?==)/gm);
    expect(new Set(names)).toEqual(new Set(["GREETING", "PATH", "PLUMULE_TRACKING_ID", "PWD", "SHLVL", "_"]));
  });

  it("has the files of its image and the folders of the run, and no other", async () => {
    const script = `echo written >${folder}/file; ls -d /etc /root /home 2>/dev/null; echo x >/usr/file`;
    const { output } = await run(script);
    expect(readFileSync(join(folder, "file"), "utf8")).toBe("written\n");
    expect(output).not.toMatch(/^\/(root|home)$/m);
    expect(output).toMatch(/Read-only file system/);
  });

  it("has its grace when it is cancelled, and leaves nothing behind, of whatever session and environment", async () => {
    const cancel = new AbortController();
    const trackingId = `container-${process.pid}`;
    // Each says so when the signal would not end it any more.
    const script =
      "trap 'echo cleaned; exit 42' TERM; (env -i setsid /bin/sh -c 'echo away; sleep 300' &); (trap '' TERM; echo deaf; sleep 301) & sleep 302 & wait";
    const onText = (text: string): void => void (text.includes("away") && text.includes("deaf") && cancel.abort());
    const result = await run(script, { cancel: cancel.signal, onText, trackingId, graceMs: 300 });
    expect(result).toMatchObject({ reason: "cancelled", exitCode: 42, leftoverCount: 0 });
    expect(result.output).toContain("cleaned");
    expect(result.survivorsKilledCount).toBeGreaterThanOrEqual(2);
    expect(findTracked(trackingId)).toEqual([]);
  });

  it("gets signals with their default action", async () => {
    expect(await run("kill -SEGV $$")).toMatchObject({ reason: "exit", exitCode: 139, signal: "SIGSEGV" });
  });

  it("dies with whoever started it, though its engine lives on", async () => {
    const trackingId = `orphan-${process.pid}`;
    const source = `
      import { runProcess } from ${JSON.stringify(join(import.meta.dirname, "../../runner/src/process.ts"))};
      await runProcess({ argv: ["bash", "-c", "(setsid sleep 300 &); trap '' TERM HUP; echo ready; sleep 301"], cwd: "/", env: { PATH: "/usr/bin:/bin" },
        level: "container", container: ${JSON.stringify(place)}, trackingId: ${JSON.stringify(trackingId)}, merged: true, graceMs: 100,
        onOutput: (chunk) => process.stdout.write(chunk) });`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    expect(findTracked(trackingId).length).toBeGreaterThan(2);
    child.kill("SIGKILL");
    await expect.poll(() => findTracked(trackingId), { timeout: 10_000 }).toEqual([]);
  });

  it.skipIf(!isByCgroup(limits.memory))("is limited by the cgroups of its run", async () => {
    const group = openRunGroup(
      `container-${process.pid}`,
      { memoryBytes: 96 * 1024 ** 2, taskCount: 100, workspaceBytes: null },
      limits,
    );
    if ("unavailable" in group) throw new Error(group.unavailable);
    const script =
      'head -c 300M /dev/zero | tail -c 300M | cat >/dev/null; echo "tail ${PIPESTATUS[1]}"; cat /proc/self/oom_score_adj';
    const { output } = await run(script, { within: group.confinement });
    expect(output).toMatch(/^tail 137\n500\n$/m);
    expect(group.evidence()).toMatchObject({ oomKillCount: 1, reachedMemoryLimit: true });
    expect(await group.empty()).toMatchObject({ leftoverCount: 0 });
    group.remove();
  });

  it.skipIf(spawnSync("script", ["--version"]).status !== 0)(
    "can be entered with a terminal of the machine",
    async () => {
      const trackingId = `entered-${process.pid}`;
      const [ready, stop] = [Promise.withResolvers<void>(), new AbortController()];
      const running = run("echo ready; sleep 300", { trackingId, cancel: stop.signal, onText: () => ready.resolve() });
      await ready.promise;
      const look = ["sh", "-c", "test -t 0 && stty size; ls -d /root; exit 5"];
      const argv = inTerminal([...(insideOf(trackingId)?.enter ?? []), ...look], {
        columns: 91,
        rows: 33,
      });
      const env = { PATH: process.env["PATH"] ?? "", TERM: "xterm" };
      const entered = await run("", { argv, env, level: "process-group", trackingId: `${trackingId}-exec` });
      expect(entered).toMatchObject({ exitCode: 5, output: expect.stringMatching(/^33 91\r\n.*\/root.*No such/) });
      stop.abort();
      expect(await running).toMatchObject({ reason: "cancelled" });
    },
  );

  it("is not offered with an image that the engine does not have, and the engine's words say so", async () => {
    const { report, container } = await probeLevels("localhost/no-such-image:1", { memory: none, tasks: none });
    expect(container).toBeNull();
    expect(report.unavailable.get("container")).toMatch(/no-such-image/);
  });
});

it("the level container is not tried without an image, nor without podman", async () => {
  const without = await probeLevels(undefined, { memory: none, tasks: none });
  expect(without.report.unavailable.get("container")).toBe("no image is named (--container-image)");
  const path = process.env["PATH"];
  process.env["PATH"] = "/var/empty";
  try {
    const { report } = await probeLevels("x", { memory: none, tasks: none });
    expect(report.unavailable.get("container")).toBe("no podman in PATH");
  } finally {
    process.env["PATH"] = path;
  }
});
