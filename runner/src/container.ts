import { existsSync } from "node:fs";
import { findExecutable } from "./executable.ts";
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

/** Variables by which podman finds its settings, its storage and the user's manager (podman(1), containers.conf(5)). */
export const ENGINE_VARIABLES = [
  "CONTAINERS_CONF",
  "CONTAINERS_STORAGE_CONF",
  "XDG_CONFIG_HOME",
  "XDG_DATA_HOME",
  "XDG_RUNTIME_DIR",
  "DBUS_SESSION_BUS_ADDRESS",
];

/** Prefix of the variables in which the engine gets the values of the job's: its own `HOME` and `PATH` have to stay what they are. */
const VALUE = "PLUMULE_VALUE_";
/** What engines set, and the job did not ask for. */
const ENGINES_OWN = "HOSTNAME TERM HOME container PLUMULE_NAMES";

/**
 * PID 1 of a container; see the init of namespaces in `isolation.ts`. Nothing of the job runs before the supervisor has found this process on the
 * machine, limited it, and said `go`. The engine lives on when its client is killed, so a helper waits for the end of the supervisor, and then
 * kills everything. The job's standard streams are 6, 5 and 4: no copying by the engine may change their order.
 */
const init = (yielding: string): string => `trap : HUP INT QUIT TERM USR1 USR2
(read -r end <&3; kill -KILL -1) 4>&- 5>&- 6>&- &
echo started >&3
read -r go <&7 || exit 125
names=$PLUMULE_NAMES
unset ${ENGINES_OWN}
for name in $names; do
  eval "export $name=\\"\\$${VALUE}$name\\""
  unset "${VALUE}$name"
done
(${yielding}; exec "$@" <&6 >&5 2>&4 3>&- 4>&- 5>&- 6>&- 7>&-)
code=$?
echo "$code" >&3
read -r hold <&7
exit "$code"`;

/** Where the engine is, or why there is none that can be used. */
export function findEngine(path: string): { engine: string } | { unavailable: string } {
  const engine = findExecutable("podman", path, "/");
  if (engine !== null) return { engine };
  const docker =
    findExecutable("docker", path, "/") === null
      ? ""
      : "; docker cannot hand a job's descriptors over, and is not used";
  return { unavailable: `no podman in PATH${docker}` };
}

/** The engine's command line, which starts `argv` in a folder with variables of these names ({@link containerEnvironment} has the values). */
export function containerCommand(
  { image, mounts }: ContainerPlace,
  argv: readonly string[],
  { cwd, names, trackingId, yielding }: { cwd: string; names: readonly string[]; trackingId: string; yielding: string },
): string[] {
  const there = mounts.filter(({ path }) => existsSync(path));
  const volumes = there.map(({ path, writable }) => `--volume=${path}:${path}:${writable ? "rw" : "ro"},rbind`);
  return [
    "run",
    "--rm",
    "--pull=never",
    "--log-driver=none",
    // As at the other levels: whom a job may speak to is the machine's business.
    "--network=host",
    "--security-opt=label=disable",
    "--preserve-fds=5",
    "--entrypoint=/bin/sh",
    `--workdir=${cwd}`,
    ...volumes,
    `--env=${TRACKING_VARIABLE}=${trackingId}`,
    "--env=PLUMULE_NAMES",
    ...names.map((name) => `--env=${VALUE}${name}`),
    image,
    "-c",
    init(yielding),
    "sh",
    ...argv,
  ];
}

/** The environment of the engine's client: the runner's, and the job's in variables of other names, so that no value is an argument. */
export function containerEnvironment(job: Readonly<Record<string, string>>): Record<string, string | undefined> {
  const values = Object.entries(job).map(([name, value]) => [`${VALUE}${name}`, value] as const);
  return { ...process.env, ...Object.fromEntries(values), PLUMULE_NAMES: Object.keys(job).join(" ") };
}
