import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { nearestName } from "@plumule/protocol";
import { runnerConfigSchema } from "@plumule/runner/settings";
import { configFolder } from "./connection.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";

type Env = Readonly<Record<string, string | undefined>>;
/** Settings of a runner by the names of its configuration; the runner itself checks them. */
export type RunnerSettings = Record<string, unknown>;
/** Settings, and where each came from: `flag`, the name of a variable, the path of a file, or `default`. */
export type FoundSettings = { settings: RunnerSettings; origins: Readonly<Record<string, string>> };

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
  containerImage: "text",
  allowLocal: "switch",
  radHome: "path",
  seeds: "list",
  privateRepositories: "list",
  follow: "list",
  followRules: "path",
  followCobs: "switch",
  untrusted: "switch",
  allowExec: "switch",
  keepFailedMs: "number",
  keepAskedMs: "number",
  keepFailedBytes: "number",
  secretsOnDisk: "switch",
  nixStore: "path",
  nixImportFromDerivation: "switch",
  nixCache: "text",
  nixCacheKey: "path",
  nixCacheRequired: "switch",
  once: "switch",
  health: "text",
  diskFloorBytes: "number",
  warmBytes: "number",
  memoryBytes: "number",
  taskCount: "number",
  workspaceBytes: "number",
  logBytes: "number",
  runMs: "number",
} as const;

/** Where this user's runner keeps what it has, unless told otherwise. */
export function defaultRunnerState(env: Env): string {
  return join(env["XDG_STATE_HOME"] ?? join(homedir(), ".local", "state"), "plumule", "runner");
}

/** The key of this user's runner. */
export function defaultKeyFile(env: Env): string {
  return env["PLUMULE_KEY"] ?? join(env["PLUMULE_STATE"] ?? defaultRunnerState(env), "key.pem");
}

/**
 * Settings from a file, above them a credential of systemd (`registration` in `$CREDENTIALS_DIRECTORY`), above that the environment
 * (`PLUMULE_NIX_STORE` for `nixStore`), above that the flags.
 */
export async function runnerSettings(
  flags: RunnerSettings,
  { file, env, cwd }: { file: string | undefined; env: Env; cwd: string },
): Promise<FoundSettings | Failure> {
  const path = file === undefined ? join(configFolder(env), "runner.json") : resolve(cwd, file);
  const written = await readSettings(path, file !== undefined);
  if (isFailure(written)) return written;
  const found: FoundSettings & { origins: Record<string, string> } = { settings: {}, origins: {} };
  const add = (settings: RunnerSettings, originOf: (name: string) => string): void => {
    for (const [name, value] of Object.entries(settings)) {
      if (value === undefined) continue;
      found.settings[name] = isPath(name) && typeof value === "string" ? resolve(cwd, value) : value;
      found.origins[name] = originOf(name);
    }
  };
  add({ state: defaultRunnerState(env) }, () => "default");
  add(written, () => path);
  add(await credentialsOf(env), () => "credential");
  add(settingsOf(env), variableOf);
  add(flags, () => "flag");
  return found;
}

/** What systemd hands over (`LoadCredential=registration:…`, `nix-cache-key`): in no environment, and readable by the service alone. */
async function credentialsOf(env: Env): Promise<RunnerSettings> {
  const folder = env["CREDENTIALS_DIRECTORY"];
  if (folder === undefined || folder === "") return {};
  const text = await readFile(join(folder, "registration"), "utf8").catch(() => "");
  const key = join(folder, "nix-cache-key");
  return {
    ...(text.trim() === "" ? {} : { registration: text.trim() }),
    ...(existsSync(key) ? { nixCacheKey: key } : {}),
  };
}

function variableOf(name: string): string {
  return `PLUMULE_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

function isPath(name: string): boolean {
  return name in VARIABLES && VARIABLES[name as keyof typeof VARIABLES] === "path";
}

function settingsOf(env: Env): RunnerSettings {
  const settings: RunnerSettings = {};
  for (const [name, kind] of Object.entries(VARIABLES)) {
    const value = env[variableOf(name)];
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
  const settings = parseObject(text);
  if (settings === null)
    return misuse(`${path} is not a JSON object`, 'Write the settings as { "name": "king", "capacity": 2 }.');
  const unknown = Object.keys(settings).filter((name) => !(name in runnerConfigSchema.shape));
  if (unknown.length === 0) return settings;
  return misuse(
    `${path} has settings that no runner knows`,
    "Correct or remove them; `plumule runner config` shows every setting.",
    unknown.map((name) => ({ pointer: `/${name}`, detail: suggestion(name) })),
  );
}

function parseObject(text: string): RunnerSettings | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as RunnerSettings) : null;
  } catch {
    return null;
  }
}

/** What somebody who wrote this name may have meant. */
function suggestion(name: string): string {
  const nearest = nearestName(name, Object.keys(runnerConfigSchema.shape));
  return nearest === null ? "is not a setting" : `is not a setting; did you mean ${nearest}?`;
}
