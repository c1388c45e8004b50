import { ISOLATION_LEVELS } from "@plumule/protocol";
import { type Command, Option } from "commander";
import type { Context } from "../context.ts";
import { type Failure, isFailure } from "../failure.ts";
import { bytesOf, collect, msOf, wholeNumber } from "../flags.ts";
import { type FoundSettings, runnerSettings } from "../runner-settings.ts";

/** The flags with which a runner is started, and asked what it would do. */
export type RunnerFlags = {
  config?: string;
  registration?: string;
  state?: string;
  name?: string;
  key?: string;
  agent?: string;
  capacity?: number;
  system?: string[];
  feature?: string[];
  label?: string[];
  isolation?: string;
  containerImage?: string;
  allowLocal?: true;
  radHome?: string;
  seed?: string[];
  private?: string[];
  follow?: string[];
  followRules?: string;
  followWithoutCobs?: true;
  untrusted?: true;
  allowExec?: true;
  keepFailed?: number;
  keepAsked?: number;
  keepFailedBytes?: number;
  secretsOnDisk?: true;
  nixStore?: string;
  nixImportFromDerivation?: true;
  nixCache?: string;
  nixCacheKey?: string;
  nixCacheRequired?: true;
  health?: string;
  diskFloorBytes?: number;
  warmBytes?: number;
  memoryBytes?: number;
  taskCount?: number;
  workspaceBytes?: number;
  logBytes?: number;
  runMs?: number;
  once?: true;
};

/** Adds the flags of a runner to a command. */
export function withRunnerFlags(command: Command): Command {
  return command
    .option("--config <file>", "JSON file of settings (default: ~/.config/plumule/runner.json)")
    .option("--registration <token>", "one-time token; needed once: plumule runner token")
    .option("--state <folder>", "where everything is kept (default: ~/.local/state/plumule/runner)")
    .option("--name <name>", "what people call it (default: the host's name)")
    .option("--key <file>", "key file (default: key.pem in the state folder, made when missing)")
    .option("--agent <did>", "sign with this key of the ssh-agent")
    .option("--capacity <runs>", "runs at a time (default: 1)", wholeNumber(1))
    .option("--system <system>", "a system beside what Nix says; may be repeated", collect)
    .option("--feature <feature>", "something that jobs may ask for; may be repeated", collect)
    .option("--label <label>", "likewise; may be repeated", collect)
    .addOption(
      new Option("--isolation <level>", "how well jobs are kept apart (default: the best here)").choices([
        ...ISOLATION_LEVELS,
      ]),
    )
    .option("--container-image <image>", "image in which jobs run, by podman, at the level container")
    .option("--allow-local", "let jobs name repositories of this machine by file: URLs")
    .option("--rad-home <folder>", "home of the Radicle node whose storage rad: is fetched from (default: ~/.radicle)")
    .option("--seed <url>", "seed from which public rad: repositories are fetched; may be repeated", collect)
    .option("--private <rid>", "a private repository of the node that jobs may name, rad:z…; may be repeated", collect)
    .option(
      "--follow <rid>",
      "do what is pushed to this repository of the node by yourself, also while there is no broker, rad:z…; may be repeated",
      collect,
    )
    .option(
      "--follow-rules <file>",
      "by these rules, a document for `plumule triggers set` (default: the default branch)",
    )
    .option("--follow-without-cobs", "write nothing of it into job COBs")
    .option("--untrusted", "take approved jobs of strangers; only for a machine or user that holds nothing else")
    .option("--allow-exec", "let people with the scope operate into runs without secrets and into kept workspaces")
    .option("--keep-failed <time>", "keep workspaces of failed runs for so long: 30m, 8h (default: not at all)", msOf)
    .option("--keep-asked <time>", "let jobs ask for so long (default: what --keep-failed says)", msOf)
    .option("--keep-failed-bytes <bytes>", "keep at most so much of them (default: 4GiB)", bytesOf)
    .option("--secrets-on-disk", "let secrets of jobs lie on the disk where this machine has no file system in memory")
    .option("--nix-store <folder>", "a Nix store of the runner's own")
    .option("--nix-import-from-derivation", "let evaluations build")
    .option("--nix-cache <url>", "push what jobs build to this store: file:///…, s3://…, https://…, ssh-ng://…")
    .option("--nix-cache-key <file>", "sign what is pushed with this secret key (a file that its owner alone can read)")
    .option("--nix-cache-required", "give a job back when its outputs cannot be pushed")
    .option("--health <address>", "serve /livez, /readyz, /metrics and /status.json at 127.0.0.1:PORT or a unix socket")
    .option("--disk-floor-bytes <bytes>", "ask for no work with less free space (default: 512 MiB)", wholeNumber(0))
    .option("--warm-bytes <size>", "keep so much of mirrors and warm checkouts (default: 20GiB)", bytesOf)
    .option("--once", "leave after one run")
    .optionsGroup("The most that a job may take (sizes such as 512MiB or 4GiB):")
    .option("--memory-bytes <size>", "memory of all its processes (default: what the machine can spare)", bytesOf)
    .option("--task-count <number>", "processes and threads at a time (default: 8192)", wholeNumber(1))
    .option("--workspace-bytes <size>", "what its workspace holds on disk", bytesOf)
    .option("--log-bytes <size>", "its log; beyond it head and tail are kept", bytesOf)
    .option("--run-ms <ms>", "time, whatever the job says", wholeNumber(1));
}

/** The settings of the runner that these flags mean, with broker and namespace from wherever they are known. */
export async function settingsOfFlags(
  { env, cwd, globals, connect }: Context,
  {
    config,
    agent,
    system,
    feature,
    label,
    seed,
    private: privateRepositories,
    keepFailed,
    followWithoutCobs,
    keepAsked,
    ...flags
  }: RunnerFlags,
): Promise<FoundSettings | Failure> {
  const { url, namespace } = globals;
  const named = {
    ...flags,
    url,
    namespace,
    agentKey: agent,
    systems: system,
    features: feature,
    labels: label,
    seeds: seed,
    privateRepositories,
    keepFailedMs: keepFailed,
    followCobs: followWithoutCobs === true ? false : undefined,
    keepAskedMs: keepAsked,
  };
  const found = await runnerSettings(named, { file: config, env, cwd });
  if (isFailure(found)) return found;
  const { settings, origins } = found;
  if (settings["url"] !== undefined && settings["namespace"] !== undefined) return found;
  const connection = await connect();
  // Who follows a repository needs no broker.
  if (isFailure(connection)) return settings["follow"] === undefined ? connection : found;
  const { url: knownUrl, foundIn } = connection.place;
  const known = { url: knownUrl, namespace: connection.ns };
  return {
    settings: { ...known, ...settings },
    origins: { url: foundIn, namespace: foundIn, ...origins },
  };
}
