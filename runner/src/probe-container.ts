import { type ContainerPlace, findEngine } from "./container.ts";
import { type IsolationReport, probeIsolation, RUNNER_ISOLATION_LEVELS } from "./isolation.ts";
import { openRunGroup } from "./limits/group.ts";
import type { MachineLimits } from "./limits/limits.ts";
import { runProcess } from "./process.ts";

/** How long the engine may take to start its first container, ms. */
const START_MS = 60_000;
/** What the container of the probe may take. */
const PROBE = { memoryBytes: 64 * 1024 * 1024, taskCount: 64, workspaceBytes: null };

/** What the level `container` needs on this machine. */
export type ContainerEngine = Pick<ContainerPlace, "engine" | "image">;

/** Tries every level with a trivial job, `container` with an image where one is named; and the engine, where it answers. */
export async function probeLevels(
  image: string | undefined,
  limits: MachineLimits,
): Promise<{ report: IsolationReport; container: ContainerEngine | null }> {
  const report = probeIsolation();
  if (image === undefined) return { report, container: null };
  const container = await probeContainer(image, limits);
  if ("unavailable" in container) {
    const unavailable = new Map(report.unavailable).set("container", container.unavailable);
    return { report: { ...report, unavailable }, container: null };
  }
  const unavailable = new Map(report.unavailable);
  unavailable.delete("container");
  const available = RUNNER_ISOLATION_LEVELS.filter((level) => !unavailable.has(level));
  return { report: { level: "container", available, unavailable }, container };
}

/** Starts a container of an image as a job would be, limited as far as this machine can. */
async function probeContainer(
  image: string,
  limits: MachineLimits,
): Promise<ContainerEngine | { unavailable: string }> {
  const found = findEngine(process.env["PATH"] ?? "");
  if ("unavailable" in found) return found;
  const group = openRunGroup(`probe-${process.pid}-container`, PROBE, limits);
  if ("unavailable" in group) return group;
  const engine = { ...found, image };
  let output = "";
  const result = await runProcess({
    argv: ["/bin/sh", "-c", "echo ready; exit 42"],
    cwd: "/",
    env: { PATH: "/usr/local/bin:/usr/bin:/bin" },
    level: "container",
    container: { ...engine, mounts: [] },
    within: group.confinement,
    merged: true,
    graceMs: 0,
    limits: { runMs: START_MS },
    onOutput: (chunk) => (output += Buffer.from(chunk).toString()),
  });
  await group.empty();
  group.remove();
  if (result.exitCode === 42 && output === "ready\n") return engine;
  return {
    unavailable: result.detail ?? `the job of the probe ended with ${result.reason}, exit code ${result.exitCode}`,
  };
}
