import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { configFolder } from "./connection.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";

type Env = Readonly<Record<string, string | undefined>>;
/** Settings of a runner by the names of its configuration; the runner itself checks them. */
export type RunnerSettings = Record<string, unknown>;

/** Names of settings, how each is read from text, and its variable. Lists are comma-separated there. */
const VARIABLES = {
  url: "text",
  namespace: "text",
  registration: "text",
  state: "path",
  name: "text",
  key: "path",
  agentKey: "text",
  capacity: "number",
  systems: "list",
  features: "list",
  labels: "list",
  isolation: "text",
  allowLocal: "switch",
  untrusted: "switch",
  secretsOnDisk: "switch",
  nixStore: "path",
  once: "switch",
} as const;

/** Where this user's runner keeps what it has, unless told otherwise. */
export function defaultRunnerState(env: Env): string {
  return join(env["XDG_STATE_HOME"] ?? join(homedir(), ".local", "state"), "plumule", "runner");
}

/** The key of this user's runner. */
export function defaultKeyFile(env: Env): string {
  return env["PLUMULE_KEY"] ?? join(env["PLUMULE_STATE"] ?? defaultRunnerState(env), "key.pem");
}

/** Settings from a file, above them those of the environment (`PLUMULE_NIX_STORE` for `nixStore`), above them the flags. */
export async function runnerSettings(
  flags: RunnerSettings,
  { file, env, cwd }: { file: string | undefined; env: Env; cwd: string },
): Promise<RunnerSettings | Failure> {
  const written = await readSettings(
    file === undefined ? join(configFolder(env), "runner.json") : resolve(cwd, file),
    file !== undefined,
  );
  if (isFailure(written)) return written;
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
  const merged: RunnerSettings = { state: defaultRunnerState(env), ...written, ...settingsOf(env), ...given };
  return Object.fromEntries(
    Object.entries(merged).map(([name, value]) => [
      name,
      isPath(name) && typeof value === "string" ? resolve(cwd, value) : value,
    ]),
  );
}

function isPath(name: string): boolean {
  return name in VARIABLES && VARIABLES[name as keyof typeof VARIABLES] === "path";
}

function settingsOf(env: Env): RunnerSettings {
  const settings: RunnerSettings = {};
  for (const [name, kind] of Object.entries(VARIABLES)) {
    const value = env[`PLUMULE_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`];
    if (value === undefined || value === "") continue;
    settings[name] = valueOf(kind, value);
  }
  return settings;
}

function valueOf(kind: (typeof VARIABLES)[keyof typeof VARIABLES], value: string): unknown {
  switch (kind) {
    case "number":
      return Number(value);
    case "list":
      return value.split(",").map((item) => item.trim());
    case "switch":
      return !["0", "false", "no"].includes(value);
    case "text":
    case "path":
      return value;
  }
}

async function readSettings(path: string, isNamed: boolean): Promise<RunnerSettings | Failure> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => error);
  if (text instanceof Error)
    return text.code === "ENOENT" && !isNamed
      ? {}
      : misuse(`${path} cannot be read: ${text.message}`, "Name another with --config.");
  try {
    const settings: unknown = JSON.parse(text);
    if (typeof settings === "object" && settings !== null && !Array.isArray(settings))
      return settings as RunnerSettings;
  } catch {
    // Said below.
  }
  return misuse(`${path} is not a JSON object`, 'Write the settings as { "name": "king", "capacity": 2 }.');
}
