import { spawnSync } from "node:child_process";
import { accessSync, closeSync, constants, mkdirSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCgroup, ownCgroup, removeCgroup, removeEmptyCgroups } from "./cgroup.ts";
import { containerCommand, containerEnvironment, type ContainerPlace } from "./container.ts";
import { findExecutable } from "./executable.ts";
import { SHADE, type Shade, shadeOptions, shadeWords } from "./shade.ts";

/**
 * How firmly the processes of a job are held together, strongest first. All but the first leave a job the machine's
 * files and network, and the runner's user; `bwrap` and `userns` can hide what the runner keeps to itself ({@link Surroundings}).
 *
 * - `container`: a container of podman, with the files of an image and the folders of the run. What holds processes is as with `bwrap`, but
 *   that an init of ours kills them when the process that started it dies.
 * - `bwrap`: a PID namespace made by bubblewrap. Nothing leaves it: a daemon in its own session dies with it, and the
 *   kernel kills it when the process that started it dies. The job sees only its own processes.
 * - `userns`: the same guarantees from util-linux (`unshare`, `setpriv`, `setsid`), inside a user namespace unless the
 *   runner is root.
 * - `cgroup`: a cgroup v2 folder. A daemon cannot leave it without write access to another folder, so the tree can be
 *   killed and proved empty; when whoever started it dies, only the job's first process is sure to die with it, and the runner ends the others.
 * - `process-group`: signals to a group, and a search of `/proc` for the job's session and tracking id. A process that
 *   starts a session *and* clears its environment escapes, as do daemons started by a Nix builder without a sandbox; when the runner dies,
 *   as `cgroup`.
 */
export const RUNNER_ISOLATION_LEVELS = ["container", "bwrap", "userns", "cgroup", "process-group"] as const;

/** One of the levels that this runner can offer. */
export type RunnerIsolationLevel = (typeof RUNNER_ISOLATION_LEVELS)[number];

/** What a probe found: the strongest level that works, all that work, and why each of the others does not. */
export interface IsolationReport {
  level: RunnerIsolationLevel;
  available: readonly RunnerIsolationLevel[];
  unavailable: ReadonlyMap<RunnerIsolationLevel, string>;
}

/**
 * A command line that starts a job at a level. `control` says that the job's first process is the init below, which speaks on fd 3 and wants the
 * job's stderr as fd 4; or that of a container, which wants all three streams elsewhere and waits for a word (`container.ts`).
 */
export interface Launch {
  file: string;
  args: readonly string[];
  control: boolean | "container";
  /** The environment of the launcher, where it is not the job's. */
  env?: Readonly<Record<string, string | undefined>>;
  /** The cgroup made for this job; whoever kills the tree removes it. */
  cgroup: string | null;
}

/** Why a level cannot be had on this machine, for a person. */
export interface LaunchRefusal {
  unavailable: string;
}

/** How the processes of a run are limited, for {@link planLaunch}. */
export interface Confinement {
  /** `cgroup.procs` files into which the first process writes itself before it does anything. */
  joins: readonly string[];
  /** Words before its command line, such as `prlimit` with its options. */
  prefix: readonly string[];
  /** The cgroup v2 of the run, in which the level `cgroup` makes its own: a process is in one only. */
  cgroup: string | null;
}

/** Where a job runs at the level `container`, in which folder and with which variables. */
export interface ContainerRequest {
  place: ContainerPlace;
  cwd: string;
  env: Readonly<Record<string, string>>;
}

/** What of the machine a job has around it, where its level can decide that. */
export interface Surroundings {
  /** Needed at the level `container`. */
  container?: ContainerRequest | null;
  /** For the levels `bwrap` and `userns`. */
  shade?: Shade | null;
}

/** Why there is no level `container` where nobody asked for it. */
export const NO_IMAGE = "no image is named (--container-image)";

/** A process that nothing limits. */
export const UNCONFINED: Confinement = { joins: [], prefix: [], cgroup: null };

/**
 * Makes the kernel prefer the job over the runner when memory runs out, and the runner over the job when processor time does: with
 * autogroups (sched(7)) the nice value of a process counts within its session alone. A container may forbid either, which is harmless.
 */
const YIELD = `{ echo 500 >/proc/self/oom_score_adj; echo 5 >/proc/self/autogroup; } 2>/dev/null`;
/** The nice value of jobs: a third of the weight of a process that has none. */
const NICE = "5";

/**
 * PID 1 of a job's namespace. The job is its child, because default signal actions do not apply to PID 1: as PID 1 a
 * `sleep` would ignore TERM. It says `started`, then the exit code, then holds the namespace until the runner has
 * counted who is left; when the runner is gone, `read` ends and the kernel empties the namespace. The traps keep it
 * alive when the job's group is signalled (a caught signal is reset for the child). The job's stderr is fd 4: fd 2 belongs
 * to the launcher and this shell, whose "Terminated" is no line of the job's log.
 */
const INIT = `trap : HUP INT QUIT TERM USR1 USR2
echo started >&3
(${YIELD}; exec 2>&4 3>&- 4>&-; exec "$@")
code=$?
echo "$code" >&3
read -r hold <&3
exit "$code"`;

const ENTER_CGROUP = `echo 0 >"$1/cgroup.procs" || exit 125
shift
${YIELD}
exec "$@"`;

/** Joins the cgroups of the run first, so that everything that the job costs counts there. */
const JOIN = `while [ "$1" != -- ]; do
  echo 0 >"$1" || exit 125
  shift
done
shift
exec "$@"`;

const PLAIN = `${YIELD}
exec "$@"`;

/**
 * Plans the start of `argv` (its first item an absolute path) at a level, within the limits of its run. For `cgroup` it makes the folder, named by
 * `id` (one path component). The tools are looked for in the runner's own PATH.
 */
export function planLaunch(
  level: RunnerIsolationLevel,
  argv: readonly string[],
  id: string,
  within: Confinement = UNCONFINED,
  { container = null, shade = null }: Surroundings = {},
): Launch | LaunchRefusal {
  const shell = tool("sh");
  if (shell === null) return { unavailable: "no sh in PATH" };
  const plan = planLevel(level, argv, { shell, id, within, container, shade });
  if ("unavailable" in plan) return plan;
  const nice = tool("nice");
  const isInside = plan.control === "container";
  const prefix = isInside ? [] : within.prefix;
  const words = [...prefix, ...(nice === null ? [] : [nice, "-n", NICE]), plan.file, ...plan.args];
  // Into a container nobody can write himself from outside; its init waits until that was done to it.
  const [file = plan.file, ...args] =
    isInside || within.joins.length === 0 ? words : [shell, "-c", JOIN, "sh", ...within.joins, "--", ...words];
  return { ...plan, file, args };
}

function planLevel(
  level: RunnerIsolationLevel,
  argv: readonly string[],
  { shell, id, within, container, shade }: { shell: string; id: string; within: Confinement } & Required<Surroundings>,
): Launch | LaunchRefusal {
  switch (level) {
    case "container": {
      if (container === null) return { unavailable: NO_IMAGE };
      const { place, cwd, env } = container;
      const words = { cwd, names: Object.keys(env), trackingId: id, yielding: YIELD };
      const args = containerCommand(place, argv, words);
      return { file: place.engine, args, env: containerEnvironment(env), control: "container", cgroup: null };
    }
    case "bwrap":
      return planBwrap(shell, argv, shade);
    case "userns":
      return planUserns(shell, argv, shade);
    case "cgroup":
      return planCgroup(shell, argv, id, within.cgroup ?? ownCgroup());
    case "process-group":
      return { ...withParentDeath([shell, "-c", PLAIN, "sh", ...argv]), control: false, cgroup: null };
  }
}

/**
 * Tries every level but `container` with a trivial job. It starts up to four short processes; call it once, when the runner starts. Empty
 * cgroups that a killed runner left behind are removed.
 */
export function probeIsolation(): IsolationReport {
  removeEmptyCgroups();
  const folder = mkdtempSync(join(tmpdir(), "plumule-probe-"));
  mkdirSync(join(folder, "shown"));
  const available: RunnerIsolationLevel[] = [];
  const unavailable = new Map<RunnerIsolationLevel, string>();
  for (const level of RUNNER_ISOLATION_LEVELS) {
    const failure = tryLevel(level, folder);
    if (failure === null) available.push(level);
    else unavailable.set(level, failure);
  }
  rmSync(folder, { recursive: true });
  return { level: available[0] ?? "process-group", available, unavailable };
}

function tryLevel(level: RunnerIsolationLevel, folder: string): string | null {
  const shell = tool("sh");
  if (shell === null) return "no sh in PATH";
  const shade = { hidden: [folder], shown: [{ path: join(folder, "shown"), writable: true }] };
  const plan = planLaunch(level, [shell, "-c", "exit 42"], `probe-${process.pid}`, UNCONFINED, { shade });
  if ("unavailable" in plan) return plan.unavailable;
  // The init's two extra descriptors: what it says is thrown away, and its `read` ends at once.
  const nowhere = openSync("/dev/null", "r+");
  const { status, stderr, error } = spawnSync(plan.file, plan.args, {
    stdio: ["ignore", "ignore", "pipe", nowhere, nowhere],
    env: { PATH: process.env["PATH"] },
    timeout: 5_000,
    encoding: "utf8",
  });
  closeSync(nowhere);
  if (plan.cgroup !== null) removeCgroup(plan.cgroup);
  if (status === 42) return null;
  return explain(error?.message ?? (stderr.trim() || `exit code ${status}`));
}

/** Ubuntu 23.10 and later block unprivileged user namespaces; the kernel's own words do not say so. */
function explain(failure: string): string {
  const blocked = /uid map|uid_map|unshare failed|No permissions to create/i.test(failure);
  return blocked
    ? `${failure}: unprivileged user namespaces are blocked; allow them with an AppArmor profile for bwrap, or with ` +
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container its seccomp profile has to allow them"
    : failure;
}

function planBwrap(shell: string, argv: readonly string[], shade: Shade | null): Launch | LaunchRefusal {
  const bwrap = tool("bwrap");
  if (bwrap === null) return { unavailable: "no bwrap in PATH (install bubblewrap)" };
  const options = [
    "--unshare-pid",
    "--as-pid-1",
    "--die-with-parent",
    "--new-session",
    "--dev-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    ...(shade === null ? [] : shadeOptions(shade)),
  ];
  return { file: bwrap, args: [...options, "--", shell, "-c", INIT, "sh", ...argv], control: true, cgroup: null };
}

function planUserns(shell: string, argv: readonly string[], shade: Shade | null): Launch | LaunchRefusal {
  const unshare = tool("unshare");
  const setpriv = tool("setpriv");
  const setsid = tool("setsid");
  if (unshare === null || setpriv === null || setsid === null) {
    return { unavailable: "no unshare, setpriv or setsid in PATH (install util-linux)" };
  }
  // Root keeps its identity: in a user namespace that maps root alone Nix could not switch to its build users.
  const user = process.getuid?.() === 0 ? [] : ["--user", "--map-current-user"];
  // What mounts needs rights that the job must not have: they would undo it.
  const [keep, drop] = user.length === 0 ? [[], []] : [["--keep-caps"], [setpriv, ...NO_RIGHTS, "--"]];
  const shading = shade === null ? [] : [shell, "-c", SHADE, "sh", ...shadeWords(shade), ...drop];
  const rights = shade === null ? [] : keep;
  const namespace = [unshare, ...user, ...rights, "--pid", "--fork", "--kill-child", "--mount-proc", "--", ...shading];
  // `setsid` gives the namespace a process group apart from `unshare`, whose death by the first signal would take the grace away.
  const args = ["--pdeathsig", "KILL", "--", ...namespace, setsid, shell, "-c", INIT, "sh", ...argv];
  return { file: setpriv, args, control: true, cgroup: null };
}

function planCgroup(shell: string, argv: readonly string[], id: string, parent: string | null): Launch | LaunchRefusal {
  if (parent === null) return { unavailable: "no cgroup v2 hierarchy holds this process" };
  let cgroup: string;
  try {
    cgroup = makeCgroup(parent, id);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return { unavailable: `cannot make a cgroup in ${parent}: ${code} (systemd: Delegate=yes)` };
  }
  try {
    accessSync(join(cgroup, "cgroup.kill"), constants.W_OK);
  } catch {
    removeCgroup(cgroup);
    return { unavailable: "no writable cgroup.kill (Linux 5.14 or later)" };
  }
  return { ...withParentDeath([shell, "-c", ENTER_CGROUP, "sh", cgroup, ...argv]), control: false, cgroup };
}

/** Options of setpriv(1). */
const NO_RIGHTS = ["--ambient-caps=-all", "--inh-caps=-all"];

/** Lets the first process die with the one that starts it where `setpriv` exists. */
function withParentDeath(argv: readonly [string, ...string[]]): { file: string; args: readonly string[] } {
  const setpriv = tool("setpriv");
  const [file, ...args] = argv;
  return setpriv === null ? { file, args } : { file: setpriv, args: ["--pdeathsig", "KILL", "--", ...argv] };
}

function tool(name: string): string | null {
  return findExecutable(name, process.env["PATH"] ?? "", "/");
}
