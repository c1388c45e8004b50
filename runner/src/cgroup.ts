import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** The unit of systemd puts the runner into this cgroup below its own (`DelegateSubgroup=`), so that the jobs' can lie beside it. */
export const RUNNER_SUBGROUP = "runner";

const PREFIX = "plumule-";
/** The process that made a cgroup. */
const OWNER = new RegExp(`^${PREFIX}(\\d+)-`);

/** Makes a cgroup, named by this process and an id (one path component). Throws where that is not allowed. */
export function makeCgroup(parent: string, id: string): string {
  const folder = join(parent, `${PREFIX}${process.pid}-${id}`);
  mkdirSync(folder);
  return folder;
}

/** The folder of this process's cgroup v2, or null where none is mounted. */
export function ownCgroup(): string | null {
  return folderOf(null);
}

/** The folder of this process's cgroup v1 of a controller (`memory`, `pids`), or null where it has no hierarchy of its own. */
export function legacyCgroup(controller: string): string | null {
  return folderOf(controller);
}

/** The cgroup v2 that holds the runner's and is its to divide; null unless it was started so, see {@link RUNNER_SUBGROUP}. */
export function delegatedCgroup(): string | null {
  const own = ownCgroup();
  return own !== null && basename(own) === RUNNER_SUBGROUP ? dirname(own) : null;
}

/** The cgroups that were made for processes whose tracking id begins with this and a dot, in every hierarchy. */
export function cgroupsOf(trackingId: string): string[] {
  return made().filter((folder) => basename(folder).replace(OWNER, "").startsWith(`${trackingId}.`));
}

/**
 * The kernel refuses to remove a cgroup that holds a process. One that is still empty, because its runner is only about to start the job, is
 * known by that runner, whose process id it bears.
 */
export function removeEmptyCgroups(): void {
  for (const folder of made()) {
    const owner = OWNER.exec(basename(folder))?.[1];
    if (existsSync(`/proc/${owner}`)) continue;
    removeCgroup(folder);
  }
}

/** Pids in a cgroup and in those below it; zombies too. */
export function cgroupMembers(folder: string): number[] {
  const own = read(join(folder, "cgroup.procs"))
    .split("\n")
    .filter((line) => line !== "");
  return [...own.map(Number), ...subfolders(folder).flatMap(cgroupMembers)];
}

/** Removes a cgroup and those below it. False when one is busy, for the moment in which a killed process is not reaped yet, or another user's. */
export function removeCgroup(folder: string): boolean {
  for (const child of subfolders(folder)) removeCgroup(child);
  try {
    rmdirSync(folder);
    return true;
  } catch {
    return !existsSync(folder);
  }
}

/** Every cgroup that a runner made beside or below this process's. */
function made(): string[] {
  const parents = [ownCgroup(), delegatedCgroup(), legacyCgroup("memory"), legacyCgroup("pids")];
  return [...new Set(parents)].flatMap((parent) =>
    parent === null ? [] : subfolders(parent).filter((folder) => OWNER.test(basename(folder))),
  );
}

/** From `/proc/self/cgroup` (cgroups(7)) and the mount that shows it: version 2 without a controller's name, else version 1. */
function folderOf(controller: string | null): string | null {
  const has = (list: string | undefined): boolean => (list ?? "").split(",").includes(controller ?? "");
  for (const line of read("/proc/self/cgroup").split("\n")) {
    const [number, controllers, ...path] = line.split(":");
    if (controller === null ? number !== "0" : !has(controllers)) continue;
    for (const mount of read("/proc/self/mountinfo").split("\n")) {
      const [before = "", after = ""] = mount.split(" - ");
      const [, , , root = "/", at = "/"] = before.split(" ");
      const [type, , options] = after.split(" ");
      if (controller === null ? type !== "cgroup2" : type !== "cgroup" || !has(options)) continue;
      // In a container the mount may show a part of the hierarchy alone.
      const shown = path.join(":");
      return join(at, root !== "/" && shown.startsWith(root) ? shown.slice(root.length) : shown);
    }
  }
  return null;
}

function subfolders(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name));
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
