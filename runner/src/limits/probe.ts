import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { delegatedCgroup, legacyCgroup, ownCgroup } from "../cgroup.ts";
import { findExecutable } from "../executable.ts";
import { planLaunch } from "../isolation.ts";
import { openRunGroup } from "./group.ts";
import type { LimitMeans, MachineLimits } from "./limits.ts";

/** What a probe asks for: small, and enough for a shell. */
const PROBE = { memoryBytes: 64 * 1024 * 1024, taskCount: 64, workspaceBytes: null };

/** Finds out how this machine can limit a job, by doing it with a shell that says 42. Starts up to four short processes. */
export function probeLimits(): MachineLimits {
  return { memory: probe("memory"), tasks: probe("tasks") };
}

/** What of each kind is tried, best first; the other kind is left unlimited meanwhile. */
function probe(kind: keyof MachineLimits): LimitMeans {
  const why: string[] = [];
  for (const means of candidates(kind)) {
    const failure = tryMeans(kind, means);
    if (failure === null) return means;
    why.push(failure);
  }
  const { root, prlimit } = { root: process.getuid?.() === 0, prlimit: tool("prlimit") };
  if (prlimit !== null && !(kind === "tasks" && root)) return { by: "rlimit" };
  why.push(prlimit === null ? "no prlimit in PATH" : "root is exempt from RLIMIT_NPROC");
  return {
    by: "none",
    why: [`no cgroup with a ${CONTROLLERS[kind]} controller that is this user's to divide`, ...why].join("; "),
  };
}

const CONTROLLERS = { memory: "memory", tasks: "pids" } as const;

function candidates(kind: keyof MachineLimits): Extract<LimitMeans, { folder: string }>[] {
  const controller = CONTROLLERS[kind];
  const unified = [delegatedCgroup(), ownCgroup()].filter((folder) => folder !== null && divides(folder, controller));
  const legacy = [legacyCgroup(controller)].filter((folder) => folder !== null && mayMake(folder));
  return [
    ...unified.map((folder) => ({ by: "cgroup-v2" as const, folder: folder ?? "" })),
    ...legacy.map((folder) => ({ by: "cgroup-v1" as const, folder: folder ?? "" })),
  ];
}

/**
 * Whether cgroups below a folder can have a controller, which is switched on where that is allowed: in the root, and in a folder that holds no
 * process (cgroups(7), "no internal processes"). The kernel refuses the others memory, but not pids: it takes that for the wish to divide threads,
 * and from then on lets no process into any cgroup below (EOPNOTSUPP), so that the level `cgroup` would be lost.
 */
export function divides(folder: string, controller: string): boolean {
  const control = join(folder, "cgroup.subtree_control");
  const isOn = (): boolean => readFileSync(control, "utf8").trim().split(" ").includes(controller);
  try {
    const isRoot = !existsSync(join(folder, "cgroup.type"));
    if (!isRoot && readFileSync(join(folder, "cgroup.procs"), "utf8") !== "") return false;
    if (!isOn()) writeFileSync(control, `+${controller}`, { flag: "r+" });
    return isOn() && mayMake(folder);
  } catch {
    return false;
  }
}

function mayMake(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function tryMeans(kind: keyof MachineLimits, means: LimitMeans): string | null {
  const shell = tool("sh");
  if (shell === null) return "no sh in PATH";
  const off: LimitMeans = { by: "none", why: "" };
  const group = openRunGroup(`probe-${process.pid}-${kind}`, PROBE, { memory: off, tasks: off, [kind]: means });
  if ("unavailable" in group) return group.unavailable;
  const plan = planLaunch("process-group", [shell, "-c", "exit 42"], "probe", group.confinement);
  if ("unavailable" in plan) return plan.unavailable;
  const { status, stderr } = spawnSync(plan.file, plan.args, { timeout: 5_000, encoding: "utf8" });
  group.remove();
  return status === 42 ? null : stderr.trim() || `exit code ${status}`;
}

function tool(name: string): string | null {
  return findExecutable(name, process.env["PATH"] ?? "", "/");
}
