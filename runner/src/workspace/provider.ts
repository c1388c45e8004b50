import type { OutputStream } from "../process.ts";
import type { WorkspaceConfig } from "./config.ts";

/** The ways in which a workspace can be provided. */
export const WORKSPACE_PROVIDERS = ["local", "overlay", "container"] as const;

/** One of {@link WORKSPACE_PROVIDERS}. */
export type WorkspaceProviderName = (typeof WORKSPACE_PROVIDERS)[number];

/**
 * Makes workspaces and finds them again. Every method of a provider and of its workspaces answers a {@link WorkspaceRefusal} for what a caller or
 * the machine may get wrong; an exception is a fault of the code. Calls for different workspaces never wait for each other.
 */
export interface WorkspaceProvider {
  readonly name: WorkspaceProviderName;
  /** Brings the repositories to their paths, runs the setup phase or takes it from the cache, and only then hands the workspace out. Nothing is left behind by a refusal. */
  setup(request: SetupRequest): Promise<OpenWorkspace | WorkspaceRefusal>;
  /** A workspace that was set up before, maybe by another process. `not-found` when there is none of this id. */
  open(id: string): Promise<OpenWorkspace | WorkspaceRefusal>;
  /** What this provider has set up and nobody has torn down, oldest first. */
  list(): Promise<WorkspaceSummary[]>;
}

/** A workspace to be made. */
export interface SetupRequest {
  config: WorkspaceConfig;
  /** What it is found by again: {@link WORKSPACE_ID}; a random one unless given. `busy` when it exists. */
  id?: string;
  /** Added to the environment of the setup script and of every command. It is kept beside the workspace, so it is no place for secrets. */
  env?: Readonly<Record<string, string>>;
  /** What the setup script prints, as it comes. A script that is taken from the cache prints nothing. */
  onOutput?: (chunk: Uint8Array) => void;
  /** The longest that all of it may take, ms; half an hour unless given. */
  timeoutMs?: number;
  cancel?: AbortSignal;
}

/** How an id has to look: it names a folder. */
export const WORKSPACE_ID = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** A workspace that stands. Paths given to it are relative to its root, where the repositories lie; absolute ones begin there too, and none leads out of it. */
export interface OpenWorkspace {
  readonly id: string;
  /** The name of its configuration. */
  readonly name: string;
  readonly provider: WorkspaceProviderName;
  /** How its files were made, for a person and for measurements. */
  readonly strategy: WorkspaceStrategy;
  /** The commit that each repository was brought to, in the order of the configuration. */
  readonly repositories: readonly RepositoryState[];
  /** Whether the result of the setup script was taken from the cache; null without a script. */
  readonly setupCached: boolean | null;
  /** When it was set up, as ISO 8601. */
  readonly createdAt: string;
  /** Runs a command to its end, and the end of everything that it started. Several may run at the same time. */
  exec(request: ExecRequest): Promise<ExecEnd | WorkspaceRefusal>;
  /**
   * Brings new commits of each repository's reference. Changes that a command made to tracked files are lost, what git does not track stays.
   * `config` brings the credentials of repositories that need some, when the workspace was opened and not set up: they are kept nowhere.
   */
  fetch(
    options?: WorkspaceCallOptions & { config?: WorkspaceConfig },
  ): Promise<{ repositories: RepositoryState[] } | WorkspaceRefusal>;
  /** Puts everything back to how it was when the setup phase had ended: tracked, untracked and ignored files, and `.git`. */
  reset(options?: WorkspaceCallOptions): Promise<{ reset: true } | WorkspaceRefusal>;
  /** What differs from how it was after the setup phase, or since the last reset or fetch. */
  changes(options?: { git?: boolean }): Promise<ChangeSet | WorkspaceRefusal>;
  /** The bytes of a file. `not-found` for a path without one, `too-large` beyond `LIMITS.workspaceFileBytes`. */
  readFile(path: string): Promise<Uint8Array | WorkspaceRefusal>;
  /** Writes a whole file, with the folders above it. */
  writeFile(
    path: string,
    content: Uint8Array,
    options?: { mode?: number },
  ): Promise<{ bytes: number } | WorkspaceRefusal>;
  /** Ends what runs in it and removes it. It is not used after that. */
  teardown(): Promise<{ removed: true } | WorkspaceRefusal>;
}

/** A bound for calls that may take long. */
export interface WorkspaceCallOptions {
  timeoutMs?: number;
  cancel?: AbortSignal;
}

/** What is listed of a workspace. */
export type WorkspaceSummary = Pick<OpenWorkspace, "id" | "name" | "provider" | "createdAt">;

/**
 * How files came to be where they are. `overlay`: mounted over a warm checkout that no command can write to. `reuse`: a warm checkout put back to
 * its commit. `checkout`: made anew from the mirror.
 */
export type WorkspaceStrategy = "overlay" | "reuse" | "checkout";

/** A repository of a workspace, at its commit. The URL is without credentials. */
export interface RepositoryState {
  url: string;
  path: string;
  commit: string;
}

/** A command. */
export interface ExecRequest {
  /** Program and arguments, given to no shell; or a text for `bash -c`. */
  command: readonly string[] | string;
  /** Folder to start in; the root of the workspace unless given. */
  cwd?: string;
  /** Added to the environment of the workspace. Nothing is inherited from the process that calls. */
  env?: Readonly<Record<string, string>>;
  /** Standard input; empty unless given. */
  stdin?: Uint8Array | AsyncIterable<Uint8Array>;
  /** The longest run, ms; none unless given. */
  timeoutMs?: number;
  /** Stops it: SIGTERM, a grace, then SIGKILL for everything that is left. */
  cancel?: AbortSignal;
  /** Ends the grace. */
  kill?: AbortSignal;
  /** Whether both streams share one pipe, which keeps their order; true unless given. */
  merged?: boolean;
  /** Output as it comes. While a promise that it returned is pending, the command waits with its next output. */
  onOutput?: (chunk: Uint8Array, stream: OutputStream) => unknown;
}

/** How a command ended, after everything that it started was dealt with. */
export interface ExecEnd {
  /** `exit` also when a signal ended it. */
  reason: "exit" | "timeout" | "cancelled";
  /** The exit code, 128 + n after signal n; null when none is known. */
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  /** Processes that had to be killed after it had ended, and those that could not be. */
  survivorsKilledCount: number;
  leftoverCount: number;
}

/** Everything that changed, sorted by path. */
export interface ChangeSet {
  /** Where the answer is from: `overlay` knows every write; `git` compares, and does not see what changed and changed back. */
  source: "overlay" | "git";
  changes: Change[];
}

/** One path that changed. Folders are named only where they are empty; `.git` is left out unless it is asked for. */
export interface Change {
  /** Relative to the root of the workspace. */
  path: string;
  change: "added" | "modified" | "deleted";
  /** What it is now, or was when it is gone. */
  kind: "file" | "symlink" | "folder" | "other";
}

/**
 * Why something was not done. `invalid`: the request itself. `not-found`: no such workspace or file. `busy`: somebody else has it, and `detail` says
 * who. `unavailable`: this machine lacks something, which `detail` names. `unreachable`: a repository did not answer. `setup-failed`: the setup script.
 * `too-large`: beyond a limit. `cancelled`: by the caller or a time-out. `failed`: the machine, for a reason in `detail`.
 */
export type WorkspaceRefusal = {
  refused:
    | "invalid"
    | "not-found"
    | "busy"
    | "unavailable"
    | "unreachable"
    | "setup-failed"
    | "too-large"
    | "cancelled"
    | "failed";
  /** A sentence for a person. */
  detail: string;
};

/** Whether an answer says why something was not done. */
export function isWorkspaceRefusal(answer: object): answer is WorkspaceRefusal {
  return "refused" in answer;
}

/** A refusal. */
export function refuseWorkspace(refused: WorkspaceRefusal["refused"], detail: string): WorkspaceRefusal {
  return { refused, detail };
}
