import { homedir } from "node:os";
import { join, resolve } from "node:path";
import {
  isWorkspaceRefusal,
  type OpenWorkspace,
  openWorkspaceProvider,
  readWorkspaceConfig,
  WORKSPACE_ID,
  WORKSPACE_PROVIDERS,
  type WorkspaceConfig,
  type WorkspaceProvider,
  type WorkspaceProviderName,
  type WorkspaceRefusal,
} from "@plumule/runner";
import type { Command } from "commander";
import { EXIT, type ExitCode } from "./exit-codes.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";

type Env = Readonly<Record<string, string | undefined>>;
type Place = { cwd: string; env: Env };

/** What names a workspace: its id, or the configuration that it was set up by. */
export type WhichFlags = { workspaceConfigPath?: string; state?: string };

/** What a new workspace is made by. */
export type ProvisionFlags = { provisioningMode: string; image?: string; workspaceConfigPath: string; state?: string };

/** Where this user's workspaces are kept, unless told otherwise. */
export function workspacesFolder(state: string | undefined, { cwd, env }: Place): string {
  const chosen = state ?? env["PLUMULE_WORKSPACES"];
  if (chosen !== undefined && chosen !== "") return resolve(cwd, chosen);
  return join(env["XDG_STATE_HOME"] ?? join(homedir(), ".local", "state"), "plumule", "workspaces");
}

/** The flags that every verb about workspaces has. */
export function withStateFlag(command: Command): Command {
  return command.option(
    "--state <folder>",
    "where workspaces are kept (or PLUMULE_WORKSPACES; default ~/.local/state/plumule/workspaces)",
  );
}

/** The flags by which new workspaces are described, under the names that Derrick gave them. */
export function withProvisionFlags(command: Command): Command {
  return withStateFlag(
    command
      .requiredOption("-w, --workspace-config-path <file>", "the configuration")
      .option("-p, --provisioning-mode <mode>", `${WORKSPACE_PROVIDERS.join(", ")}, or docker for container`, "local")
      .option("--image <image>", "what containers are made from"),
  );
}

/** The flags by which a workspace is named. */
export function withWhichFlags(command: Command): Command {
  return withStateFlag(
    command.option("-w, --workspace-config-path <file>", "the workspace that `up` made by this configuration"),
  );
}

/** A provider by its name. `docker` is what Derrick calls containers. */
function providerName(mode: string): WorkspaceProviderName | Failure {
  const name = mode === "docker" ? "container" : mode;
  const known = WORKSPACE_PROVIDERS.find((provider) => provider === name);
  if (known !== undefined) return known;
  if (mode === "remote_nats")
    return misuse(
      "Workspaces of another machine are not provided here",
      "Serve them there: `plumule workspace serve -p local -s nats -w config.json`.",
    );
  return misuse(`There is no provisioning mode ${mode}`, `Choose one of ${WORKSPACE_PROVIDERS.join(", ")}.`);
}

/** A configuration, read from the file that was named. */
export async function configOf(path: string, { cwd }: Place): Promise<WorkspaceConfig | Failure> {
  const config = await readWorkspaceConfig(resolve(cwd, path));
  return isWorkspaceRefusal(config) ? failureOfWorkspace(config) : config;
}

/** The id by which `up` makes the workspace of a configuration, so that its name finds it again; undefined when the name is no id. */
export function idOf({ name }: WorkspaceConfig): string | undefined {
  return WORKSPACE_ID.test(name) ? name : undefined;
}

/** A provider over this user's workspaces. */
export async function openProvider(
  mode: string,
  { state, image }: { state?: string; image?: string },
  place: Place,
): Promise<WorkspaceProvider | Failure> {
  const name = providerName(mode);
  if (typeof name !== "string") return name;
  const provider = await openWorkspaceProvider(name, {
    folder: workspacesFolder(state, place),
    ...(image === undefined ? {} : { image }),
  });
  return "refused" in provider ? failureOfWorkspace(provider) : provider;
}

/** Every provider that this machine has. */
export async function openProviders(flags: WhichFlags, place: Place): Promise<WorkspaceProvider[]> {
  const all = await Promise.all(WORKSPACE_PROVIDERS.map((name) => openProvider(name, flags, place)));
  return all.filter((provider): provider is WorkspaceProvider => !isFailure(provider));
}

/** Finds a workspace by its id or by its configuration, whichever provider has it. */
export async function findWorkspace(
  id: string | undefined,
  flags: WhichFlags,
  place: Place,
): Promise<{ workspace: OpenWorkspace; config: WorkspaceConfig | null } | Failure> {
  const config = flags.workspaceConfigPath === undefined ? null : await configOf(flags.workspaceConfigPath, place);
  if (isFailure(config)) return config;
  const wanted = id ?? (config === null ? undefined : idOf(config));
  if (wanted === undefined)
    return misuse(
      config === null ? "No workspace is named" : `${config.name} is no id, so the workspace got another`,
      "Give its id; `plumule workspace ls` lists them.",
    );
  // One after the other: what an overlay or a container needs is only looked for when the workspace may be one.
  for (const mode of WORKSPACE_PROVIDERS) {
    const provider = await openProvider(mode, flags, place);
    if (isFailure(provider)) continue;
    const workspace = await provider.open(wanted);
    if (!isWorkspaceRefusal(workspace)) return { workspace, config };
    if (workspace.refused !== "not-found") return failureOfWorkspace(workspace);
  }
  return {
    exit: EXIT.notFound,
    what: `There is no workspace ${wanted}`,
    next: "`plumule workspace ls` lists them, `plumule workspace up -w config.json` makes one.",
  };
}

const REFUSED: Readonly<Record<WorkspaceRefusal["refused"], { exit: ExitCode; what: string; next: string }>> = {
  invalid: { exit: EXIT.usage, what: "That cannot be done", next: "Correct it and try again." },
  "not-found": { exit: EXIT.notFound, what: "Not found", next: "`plumule workspace ls` lists what there is." },
  busy: {
    exit: EXIT.conflict,
    what: "Somebody else has it",
    next: "Try again later, or look with `plumule workspace ls`.",
  },
  unavailable: {
    exit: EXIT.failed,
    what: "This machine lacks something",
    next: "Install it, or choose another provider with -p.",
  },
  unreachable: {
    exit: EXIT.unreachable,
    what: "A repository did not answer",
    next: "Look at its URL and its credential, then try again.",
  },
  "setup-failed": {
    exit: EXIT.failed,
    what: "The set-up script failed",
    next: "Correct `setup_script` of the configuration, and try again.",
  },
  "too-large": { exit: EXIT.usage, what: "Too large", next: "Move it with a command: `plumule workspace exec`." },
  cancelled: { exit: EXIT.interrupted, what: "It was stopped", next: "Run it again." },
  failed: { exit: EXIT.failed, what: "It did not work on this machine", next: "Look at what it says, then try again." },
};

/** What a provider refuses, for a person. */
export function failureOfWorkspace({ refused, detail }: WorkspaceRefusal): Failure {
  return { ...REFUSED[refused], why: detail };
}
