import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { findExecutable } from "./executable.ts";

/** podman or docker: the path of its program, and which of the two it is. */
export interface Engine {
  program: string;
  name: (typeof ENGINES)[number];
}

/** A folder of the machine in a container. */
export interface ContainerMount {
  from: string;
  to: string;
  writable: boolean;
}

/** A container to be run. */
export interface ContainerRun {
  image: string;
  mounts: readonly ContainerMount[];
  /** Names of the variables that its program has; {@link passedEnvironment} has the values. */
  names: readonly string[];
  /** Script of its first process, with arguments, which begins with those variables. */
  script: string;
  argv: readonly string[];
  /** What else it needs of its engine. */
  flags: readonly string[];
}

const ENGINES = ["podman", "docker"] as const;
/** How long an engine may take to answer what needs no work, ms. */
const ANSWER_MS = 15_000;
/** Prefix of the variables in which an engine gets the values of a program's: its own `HOME`, `PATH` or `DOCKER_HOST` have to stay what they are. */
const VALUE = "PLUMULE_VALUE_";
/** What engines set, and nobody asked for. */
const ENGINES_OWN = "HOSTNAME TERM HOME container";
const run = promisify(execFile);

/** Variables by which an engine finds its settings, its storage and the user's manager (podman(1), containers.conf(5), docker(1)). */
export const ENGINE_VARIABLES = [
  "CONTAINERS_CONF",
  "CONTAINERS_STORAGE_CONF",
  "CONTAINER_HOST",
  "DOCKER_CONFIG",
  "DOCKER_CONTEXT",
  "DOCKER_HOST",
  "DOCKER_CERT_PATH",
  "DOCKER_TLS_VERIFY",
  "XDG_CONFIG_HOME",
  "XDG_DATA_HOME",
  "XDG_RUNTIME_DIR",
  "DBUS_SESSION_BUS_ADDRESS",
];

/** The engine of a name, where its program is. */
export function engineIn(path: string, name: Engine["name"]): Engine | { unavailable: string } {
  const program = findExecutable(name, path, "/");
  return program === null ? { unavailable: `no ${name} in PATH` } : { program, name };
}

/** The first engine that answers, or why none does. */
export async function answeringEngine(path: string): Promise<Engine | { unavailable: string }> {
  const faults: string[] = [];
  for (const name of ENGINES) {
    const engine = engineIn(path, name);
    if ("unavailable" in engine) {
      faults.push(engine.unavailable);
      continue;
    }
    const format = name === "podman" ? "{{.Version.Version}}" : "{{.ServerVersion}}";
    const fault = await askEngine(engine, ["info", "--format", format]).then(() => null, engineWords);
    if (fault === null) return engine;
    faults.push(`${name} does not answer: ${fault}`);
  }
  return { unavailable: faults.join("; ") };
}

/** The arguments with which an engine runs a container that is gone when its program has ended. No value of a variable is among them: everybody can see them. */
export function runArguments({ image, mounts, names, script, argv, flags }: ContainerRun): string[] {
  const binds = mounts.map(({ from, to, writable }) => `type=bind,src=${from},dst=${to}${writable ? "" : ",readonly"}`);
  const take = (name: string, at: number): string => `export ${name}="$${VALUE}${at}"; unset ${VALUE}${at}\n`;
  return [
    "run",
    "--rm",
    "--log-driver=none",
    "--security-opt=label=disable",
    "--entrypoint=sh",
    ...flags,
    ...binds.flatMap((bind) => ["--mount", bind]),
    ...names.flatMap((_, at) => ["--env", `${VALUE}${at}`]),
    image,
    "-c",
    `unset ${ENGINES_OWN}\n${names.map(take).join("")}${script}`,
    "sh",
    ...argv,
  ];
}

/** Values in the variables of other names in which {@link runArguments} looks for them, for the environment of the engine's client. */
export function passedEnvironment(env: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.values(env).map((value, at) => [`${VALUE}${at}`, value]));
}

/** The environment of an engine's client: what it finds its own settings by. */
export function engineEnvironment(): Record<string, string> {
  return Object.fromEntries(
    ["PATH", "HOME", ...ENGINE_VARIABLES].flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value] as const];
    }),
  );
}

/** Asks an engine. Rejects as `execFile` does; see {@link engineWords}. */
export async function askEngine({ program }: Engine, args: readonly string[], timeoutMs = ANSWER_MS): Promise<string> {
  return (await run(program, args, { cwd: "/", env: engineEnvironment(), timeout: timeoutMs })).stdout;
}

/** Signals the first process of a container. False while there is none. */
export function tellContainer(engine: Engine, name: string, signal: string): Promise<boolean> {
  return askEngine(engine, ["kill", "--signal", signal, name]).then(
    () => true,
    () => false,
  );
}

/** Ends and removes the containers that a filter of `ps` finds, and looks again: how many of them are left, which is none, or more than the engine can do. */
export async function removeContainers(engine: Engine, filter: string): Promise<number> {
  const found = async (): Promise<string[]> => {
    const listed = await askEngine(engine, ["ps", "--all", "--quiet", "--filter", filter]);
    return listed.split("\n").filter((line) => line !== "");
  };
  const ids = await found();
  if (ids.length === 0) return 0;
  // podman would first ask them to end, and wait.
  await askEngine(engine, ["kill", "--signal", "KILL", ...ids]).catch(() => {});
  await askEngine(engine, ["rm", "--force", ...ids]).catch(() => {});
  return (await found()).length;
}

/** An engine's own words about why it refused. */
export function engineWords(error: unknown): string {
  const { stderr, message } = error as Error & { stderr?: string };
  return (stderr?.trim() || message).slice(-500);
}
