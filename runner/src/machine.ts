import type { Offer, Signer } from "@plumule/protocol";
import { probeEffects } from "./effects/probe.ts";
import { jobEnvironment } from "./environment.ts";
import { offeredFeatures } from "./features.ts";
import { NIX_MOUNT } from "./container.ts";
import type { RunnerIsolationLevel } from "./isolation.ts";
import { hasEvalJobs } from "./nix/eval-jobs.ts";
import { cacheKeyFault, type NixCache } from "./nix/cache.ts";
import { describeMeans, isByCgroup, type LimitMeans, type MachineLimits } from "./limits/limits.ts";
import { probeLimits } from "./limits/probe.ts";
import { privateStore, probeNix } from "./nix/probe.ts";
import { capture, NEW_COMMANDS, type NixContext } from "./nix/run.ts";
import { type ContainerEngine, probeLevels } from "./probe-container.ts";
import { runProcess } from "./process.ts";
import { probeOverlay } from "./workspace/overlay.ts";
import { type RunnerConfig, runnerFolders } from "./config.ts";

/** What the work of a run needs to know of its machine. */
export type MachineFacts = {
  isolation: RunnerIsolationLevel;
  /** Whether overlays can be mounted in the state folder for all processes to see. */
  overlay: boolean;
  nix: NixFacts | null;
  limits: MachineLimits;
  /** What starts the containers of jobs; missing at every other level. */
  container?: ContainerEngine;
  /** Folders that the runner keeps to itself, and what of them all jobs share; missing in orders of older runners. */
  privacy?: { folders: readonly string[]; shared: readonly string[] };
  /** Variables that every job gets, such as those of a private Nix store. */
  variables: Readonly<Record<string, string>>;
  path: string;
};

/** The machine's Nix, and what its owner lets jobs do with it. */
export type NixFacts = {
  version: string;
  system: string;
  sandbox: boolean;
  /** `nix-eval-jobs` works here. */
  evalJobs?: boolean;
  /** Lets evaluations build; missing means no. */
  importFromDerivation?: boolean;
  /** Missing: what is built stays here. */
  cache?: NixCache;
};

/** What a runner's machine can do, found out once at the start, and who it is. */
export type Machine = MachineFacts & {
  signer: Signer;
  runner: string;
  version: string;
  offer: Offer;
};

/** Version of the runner, in its statements. */
export const RUNNER_VERSION = "0.1.0";

/** Finds out what this machine can do. The second part says in words what was found, for the person who started the runner. */
export async function probeMachine(
  config: RunnerConfig,
  signer: Signer,
  runner: string,
): Promise<{ machine: Machine; findings: string[] } | { refused: string }> {
  const limits = probeLimits();
  const { report, container } = await probeLevels(config.containerImage, limits);
  const isolation = config.isolation ?? report.level;
  const missing = report.unavailable.get(isolation);
  if (missing !== undefined) return { refused: `The isolation level ${isolation} cannot be had here: ${missing}.` };
  const inside = isolation === "container" && container !== null ? { container } : {};
  const tools = await machineTools(config, isolation, inside.container);
  if ("refused" in tools) return tools;
  const { path, variables, nix: context } = tools;
  const keyFault =
    config.nixCacheKey === undefined
      ? null
      : await cacheKeyFault(config.nixCacheKey, process.env["CREDENTIALS_DIRECTORY"]);
  if (keyFault !== null) return { refused: keyFault };
  const nix = await findNix(context);
  const systems = [...new Set(["version" in nix ? nix.system : hostSystem(), ...config.systems])];
  const overlay = await probeOverlay(runnerFolders(config).warm);
  const effectsFault = "version" in nix ? await probeEffects(isolation, context) : nix.why;
  const found = {
    nix: "version" in nix,
    effects: effectsFault === null,
    untrusted: config.untrusted,
    exec: config.allowExec,
    memoryLimit: isByCgroup(limits.memory),
    taskLimit: isByCgroup(limits.tasks),
  };
  const offer: Offer = {
    name: config.name,
    systems,
    features: offeredFeatures(found, config.features),
    labels: config.labels,
    isolation,
    version: RUNNER_VERSION,
    capacity: config.capacity,
  };
  return {
    machine: {
      signer,
      runner,
      version: RUNNER_VERSION,
      isolation,
      overlay: overlay === "machine",
      nix: "version" in nix ? { ...nix, ...nixPolicy(config) } : null,
      limits: "container" in inside ? limitsInside(limits) : limits,
      ...inside,
      privacy: privacyOf(config),
      variables,
      path,
      offer,
    },
    findings: [
      "version" in nix
        ? `Nix ${nix.version} for ${nix.system}${nix.evalJobs === true ? ", with nix-eval-jobs" : ""}`
        : `no Nix (${nix.why}): only shell jobs`,
      `isolation ${isolation}`,
      effectsFault === null ? "effects" : `no effects (${effectsFault})`,
      `${overlay === "machine" ? "an overlay" : "a checkout of its own"} for each run`,
      ...describeMeans("container" in inside ? limitsInside(limits) : limits),
      `${config.capacity} run${config.capacity === 1 ? "" : "s"} at a time`,
    ],
  };
}

/** Everything that the runner keeps is its own, but a Nix store that lies there. */
function privacyOf(config: RunnerConfig): NonNullable<MachineFacts["privacy"]> {
  const { folder } = runnerFolders(config).secrets;
  const shared = config.nixStore === undefined ? [] : [config.nixStore];
  return { folders: [config.state, ...(folder === null ? [] : [folder])], shared };
}

/** Into a container the kernel's cgroups reach; limits of the process that starts it do not. */
function limitsInside(limits: MachineLimits): MachineLimits {
  const reach = (means: LimitMeans): LimitMeans =>
    means.by === "rlimit" ? { by: "none", why: "prlimit does not reach into a container" } : means;
  return { memory: reach(limits.memory), tasks: reach(limits.tasks) };
}

/** What the owner lets jobs do with Nix. */
function nixPolicy(config: RunnerConfig): Pick<NixFacts, "importFromDerivation" | "cache"> {
  const { nixCache: to, nixCacheKey: keyFile = null, nixCacheRequired: required } = config;
  return {
    ...(config.nixImportFromDerivation ? { importFromDerivation: true } : {}),
    ...(to === undefined ? {} : { cache: { to, keyFile, required } }),
  };
}

/** Where programs are found on this machine, what Nix is told by variables, and how to ask Nix. */
export async function machineTools(
  config: RunnerConfig,
  isolation: RunnerIsolationLevel,
  container?: ContainerEngine,
): Promise<{ path: string; variables: Readonly<Record<string, string>>; nix: NixContext } | { refused: string }> {
  const path = config.path ?? process.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin";
  const variables = config.nixStore === undefined ? {} : await privateStore(config.nixStore);
  // A container does not have the runner's folder, and is not given it: its keys lie there.
  const home = container === undefined ? config.state : "/tmp";
  const env = jobEnvironment({ path, home, temporary: home, facts: {}, machine: variables });
  if (!env.ok) return { refused: `${env.name}: ${env.detail}` };
  return { path, variables, nix: { cwd: home, env: env.env, run: probeRun(isolation, container) } };
}

/** This machine's system in Nix's words, for a machine without Nix. */
function hostSystem(): string {
  const cpu = process.arch === "x64" ? "x86_64" : process.arch === "arm64" ? "aarch64" : process.arch;
  return `${cpu}-${process.platform}`;
}

async function findNix(context: NixContext): Promise<NixFacts | { why: string }> {
  const probe = await probeNix(context);
  if (!probe.present) return { why: probe.why };
  if (!probe.flakes) return { why: `Nix ${probe.version} has no flakes` };
  const [sandbox, evalJobs] = await Promise.all([hasSandbox(context), hasEvalJobs(context)]);
  return { version: probe.version, system: probe.system, sandbox, ...(evalJobs ? { evalJobs } : {}) };
}

/** Whether builds are sandboxed, as Nix's own configuration says; stands in provenance statements. */
async function hasSandbox(context: NixContext): Promise<boolean> {
  const value = (await nixSettings(context))?.["sandbox"]?.value;
  return value === true || value === "true";
}

/** Nix's own configuration by name, whichever command this version has for it; null when there is none. */
export async function nixSettings(
  context: NixContext,
): Promise<Readonly<Record<string, { value?: unknown } | undefined>> | null> {
  for (const command of [["config", "show"], ["show-config"]]) {
    const shown = await capture(context, ["nix", ...NEW_COMMANDS, ...command, "--json"]);
    if (shown.exitCode === 0) return JSON.parse(shown.stdout) as Record<string, { value?: unknown }>;
  }
  return null;
}

function probeRun(level: RunnerIsolationLevel, container?: ContainerEngine): NixContext["run"] {
  return async (argv, { cwd, env, onStdout, onStderr }) => {
    const result = await runProcess({
      argv,
      cwd,
      env,
      level,
      ...(container === undefined ? {} : { container: { ...container, mounts: [NIX_MOUNT] } }),
      merged: false,
      graceMs: 0,
      limits: { runMs: 30_000 },
      onOutput: (chunk, stream) => (stream === "stdout" ? onStdout(chunk) : onStderr(chunk)),
    });
    if (result.reason === "not-started") throw new Error(result.detail ?? `${argv[0]} could not be started`);
    return { exitCode: result.exitCode, signal: result.signal };
  };
}
