import { realpathSync } from "node:fs";
import { sep } from "node:path";

/** What of the machine's files a job does not see, and what of that it does see all the same, at the levels that give it mounts of its own. */
export interface Shade {
  /** Folders that are empty for the job, and that it cannot write to. */
  hidden: readonly string[];
  /** Folders within those that it sees at their paths. */
  shown: readonly { path: string; writable: boolean }[];
}

/** One word for what happens to a path, and the path, with no link in it. */
type Step = readonly ["hide" | "write" | "read", string];

/** The options of bubblewrap that shade what its others have mounted. */
export function shadeOptions(shade: Shade): string[] {
  const steps = stepsOf(shade);
  const mounts = { hide: "--tmpfs", write: "--bind", read: "--ro-bind" } as const;
  return [
    ...steps.flatMap(([what, path]) => (what === "hide" ? [mounts[what], path] : [mounts[what], path, path])),
    // When what is shown has its place in it.
    ...steps.flatMap(([what, path]) => (what === "hide" ? ["--remount-ro", path] : [])),
  ];
}

/** The arguments of {@link SHADE}. */
export function shadeWords(shade: Shade): string[] {
  return [...stepsOf(shade).flat(), "--"];
}

/**
 * Shades the mounts of a namespace that is the job's own, and starts the rest of its arguments. What is shown waits aside, in a place that no folder of
 * a runner is below, while what hides it is mounted. The folder that it starts in is entered anew: the old one leads up to what is hidden. A mount that is made read-only has to keep what else was forbidden of it: the kernel takes nothing
 * else from a user namespace.
 */
export const SHADE = `set -e
there=$PWD
aside=/sys
all() {
  at=0
  until [ "$2" = -- ]; do
    at=$((at + 1))
    "$1" "$2" "$3"
    step=$1
    shift 3
    set -- "$step" "$@"
  done
}
put_aside() {
  [ "$1" != hide ] || return 0
  mkdir "$aside/$at"
  mount --rbind "$2" "$aside/$at"
  [ "$1" = write ] || mount -o "remount,bind,$(findmnt -n -o VFS-OPTIONS "$aside/$at"),ro" "$aside/$at"
}
hide() { [ "$1" != hide ] || mount -t tmpfs -o mode=0755 plumule "$2"; }
show() {
  [ "$1" != hide ] || return 0
  mkdir -p "$2"
  mount --rbind "$aside/$at" "$2"
}
close() { [ "$1" != hide ] || mount -o remount,ro "$2"; }
mount -t tmpfs plumule "$aside"
all put_aside "$@"
all hide "$@"
all show "$@"
all close "$@"
umount --lazy "$aside"
until [ "$1" = -- ]; do shift; done
shift
cd "$there"
exec "$@"`;

/** Folders that are not there are neither hidden nor shown; and what is not hidden need not be shown. */
function stepsOf({ hidden, shown }: Shade): Step[] {
  const hides = hidden.flatMap(realPath);
  const isHidden = (path: string): boolean => hides.some((folder) => path.startsWith(`${folder}${sep}`));
  const shows = shown.flatMap(({ path, writable }) =>
    realPath(path)
      .filter(isHidden)
      .map((real): Step => [writable ? "write" : "read", real]),
  );
  return [...hides.map((path): Step => ["hide", path]), ...shows];
}

function realPath(path: string): string[] {
  try {
    return [realpathSync(path)];
  } catch {
    return [];
  }
}
