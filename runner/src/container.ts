import { existsSync } from "node:fs";
import { engineEnvironment, engineIn, passedEnvironment, runArguments } from "./container-engine.ts";
import { TRACKING_VARIABLE } from "./process-tree.ts";

/** The engine, image and mounts with which the level `container` runs a job. */
export interface ContainerPlace {
  /** Path of podman. */
  engine: string;
  /** An image that the engine has already; with `/bin/sh` and whatever the jobs need. */
  image: string;
  /** Folders that are there at the paths that they have on the machine, as far as that has them. */
  mounts: readonly { path: string; writable: boolean }[];
}

/** The machine's Nix store, with the socket of its daemon. */
export const NIX_MOUNT = { path: "/nix", writable: false };

/**
 * PID 1 of a container; see the init of namespaces in `isolation.ts`. Nothing of the job runs before the supervisor has found this process on the
 * machine, limited it, and said `go`. The engine lives on when its client is killed, so a helper waits for the end of the supervisor, and then
 * kills everything. The job's standard streams are 6, 5 and 4: no copying by the engine may change their order.
 */
const init = (yielding: string): string => `trap : HUP INT QUIT TERM USR1 USR2
(read -r end <&3; kill -KILL -1) 4>&- 5>&- 6>&- &
echo started >&3
read -r go <&7 || exit 125
(${yielding}; exec "$@" <&6 >&5 2>&4 3>&- 4>&- 5>&- 6>&- 7>&-)
code=$?
echo "$code" >&3
read -r hold <&7
exit "$code"`;

/** Where the engine is, or why there is none that can be used. */
export function findEngine(path: string): { engine: string } | { unavailable: string } {
  const found = engineIn(path, "podman");
  if ("program" in found) return { engine: found.program };
  const hasDocker = "program" in engineIn(path, "docker");
  const docker = hasDocker ? "; docker cannot hand a job's descriptors over, and is not used" : "";
  return { unavailable: `${found.unavailable}${docker}` };
}

/** The engine's arguments, with which it starts `argv` in a folder with variables of these names ({@link containerEnvironment} has the values). */
export function containerCommand(
  { image, mounts }: ContainerPlace,
  argv: readonly string[],
  { cwd, names, trackingId, yielding }: { cwd: string; names: readonly string[]; trackingId: string; yielding: string },
): string[] {
  const there = mounts.filter(({ path }) => existsSync(path));
  return runArguments({
    image,
    mounts: there.map(({ path, writable }) => ({ from: path, to: path, writable })),
    names,
    script: init(yielding),
    argv,
    flags: [
      "--pull=never",
      // As at the other levels: whom a job may speak to is the machine's business.
      "--network=host",
      "--preserve-fds=5",
      `--workdir=${cwd}`,
      // By which its first process is found on the machine.
      `--env=${TRACKING_VARIABLE}=${trackingId}`,
    ],
  });
}

/** The environment of the engine's client: the supervisor's, and the values of the job's variables. */
export function containerEnvironment(job: Readonly<Record<string, string>>): Record<string, string | undefined> {
  return { ...engineEnvironment(), ...passedEnvironment(job) };
}
