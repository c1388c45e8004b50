import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { capture, type Captured, type NixContext } from "./run.ts";

/** What a runner can say of the Nix on its machine. */
export type NixProbe =
  | { readonly present: false; readonly why: string }
  | {
      readonly present: true;
      /** For instance `2.8.0`. */
      readonly version: string;
      /** The system that it builds for itself, for instance `x86_64-linux`. */
      readonly system: string;
      /** Whether flakes and the new command line exist (2.4 and later); the runner turns them on by itself. */
      readonly flakes: boolean;
    };

/** How a private store builds. */
export interface PrivateStoreOptions {
  /** Builders in a namespace of their own. Off unless given, because many containers do not allow it. */
  readonly sandbox?: boolean;
  /** Builds at the same time; 4 unless given. */
  readonly maxJobsCount?: number;
  /** More lines for nix.conf. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** Asks Nix for its version and system. A Nix that cannot evaluate counts as absent, and `why` says what it answered. */
export async function probeNix(context: NixContext): Promise<NixProbe> {
  const asked = await answerOf(context, ["nix", "--version"]);
  if ("why" in asked) return { present: false, why: asked.why };
  const version = /^nix .*?(\d+\.\d+\S*)/.exec(asked.text)?.[1];
  if (version === undefined) return { present: false, why: `nix --version answered ${JSON.stringify(asked.text)}` };
  const evaluated = await answerOf(context, ["nix-instantiate", "--eval", "--expr", "builtins.currentSystem"]);
  if ("why" in evaluated) return { present: false, why: evaluated.why };
  const system = /^"([a-z0-9_]+-[a-z0-9]+)"$/.exec(evaluated.text)?.[1];
  if (system === undefined) return { present: false, why: `Nix names its system ${JSON.stringify(evaluated.text)}` };
  const [major = 0, minor = 0] = version.split(".").map((part) => Number.parseInt(part, 10));
  return { present: true, version, system, flakes: major > 2 || (major === 2 && minor >= 4) };
}

/**
 * Makes a store of its own below `directory` and returns the variables that make Nix use it, without daemon, network
 * or configuration of the system. The store's path is part of every hash: outputs are not those of `/nix/store`.
 */
export async function privateStore(
  directory: string,
  options: PrivateStoreOptions = {},
): Promise<Record<string, string>> {
  const at = (name: string): string => join(resolve(directory), name);
  const { sandbox = false, maxJobsCount = 4, settings = {} } = options;
  const conf = {
    "experimental-features": "nix-command flakes",
    "build-users-group": "",
    sandbox: String(sandbox),
    ...(sandbox ? { "extra-sandbox-paths": "/bin /lib /lib64 /usr" } : {}),
    substituters: "",
    "trusted-substituters": "",
    "flake-registry": "",
    "max-jobs": String(maxJobsCount),
    ...settings,
  };
  const names = ["store", "var", "log", "conf", "cache", "home", "build"];
  await Promise.all(names.map((name) => mkdir(at(name), { recursive: true })));
  const lines = Object.entries(conf).map(([name, value]) => `${name} = ${value}\n`);
  await writeFile(join(at("conf"), "nix.conf"), lines.join(""));
  return {
    NIX_STORE_DIR: at("store"),
    NIX_STATE_DIR: at("var"),
    NIX_LOCALSTATE_DIR: at("var"),
    NIX_LOG_DIR: at("log"),
    NIX_CONF_DIR: at("conf"),
    NIX_USER_CONF_FILES: "",
    NIX_REMOTE: "",
    NIX_PATH: "",
    XDG_CACHE_HOME: at("cache"),
    HOME: at("home"),
    TMPDIR: at("build"),
  };
}

async function answerOf(context: NixContext, argv: readonly string[]): Promise<{ text: string } | { why: string }> {
  let done: Captured;
  try {
    done = await capture(context, argv);
  } catch (error) {
    return { why: `${argv[0]} cannot be started: ${error instanceof Error ? error.message : String(error)}` };
  }
  if (done.exitCode === 0) return { text: done.stdout.trim() };
  return { why: `${argv[0]} ended with ${done.signal ?? `exit code ${done.exitCode}`}: ${done.stderr.trim()}` };
}
