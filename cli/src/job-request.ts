import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import {
  fieldErrors,
  type JobLimits,
  type Quorum,
  type Requires,
  type Source,
  type SubmitBody,
  submitBodySchema,
  type Task,
} from "@plumule/protocol";
import { type Checkout, deploymentOf, findCommit } from "./checkout.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";

/** The flags of `plumule submit` that make the job, as commander gives them. */
export type JobFlags = {
  shell?: string;
  build?: string[];
  effect?: string;
  apply?: string;
  plan?: string;
  moveState?: true;
  repository?: true;
  effects?: true;
  task?: string;
  schedule?: string;
  source?: string;
  commit?: string;
  ref?: string;
  config?: string;
  type?: string;
  replace?: true;
  latest?: true;
  reject?: true;
  lock?: string[];
  interrupt?: string;
  priority?: string;
  system?: string[];
  feature?: string[];
  label?: string[];
  isolation?: string;
  pool?: string;
  maxMemory?: number;
  maxTasks?: number;
  maxWorkspace?: number;
  maxLog?: number;
  keepFailed?: number;
  hold?: true;
  skipUnchanged?: true;
  quorum?: Quorum;
  distinct?: "key" | "operator";
  summary?: string;
  env?: Record<string, string>;
};

/** What stands around the command: the folder, its checkout, and whether the broker runs on this machine. */
export type Surroundings = { cwd: string; checkout: Checkout | null; isLocal: boolean };

/** A job that can be submitted, and what the submitter should know about how it was put together. */
export type JobRequest = { deployment: string; body: SubmitBody; notes: string[] };

/** Puts a job together from flags, with defaults from the checkout one stands in. */
export async function jobRequest(
  deployment: string | undefined,
  flags: JobFlags,
  around: Surroundings,
): Promise<JobRequest | Failure> {
  const task = await taskOf(flags, around);
  if (isFailure(task)) return task;
  const name = deployment ?? (around.checkout === null ? null : deploymentOf(around.checkout));
  if (name === null) return misuse("No deployment is named", "Name one: `plumule submit DEPLOYMENT …`.");
  const wantsSource =
    [flags.source, flags.commit, flags.ref].some((flag) => flag !== undefined) || isAboutCheckout(task);
  const source = wantsSource ? await sourceOf(flags, around) : undefined;
  if (isFailure(source)) return source;
  const configuration = flags.config === undefined ? undefined : await readConfiguration(flags.config, around.cwd);
  if (isFailure(configuration)) return configuration;
  const mode = modeOf(flags);
  if (isFailure(mode)) return mode;
  const { type, interrupt, priority, summary, env, hold, skipUnchanged } = flags;
  const requires = requiresOf(flags);
  const body = {
    task,
    source,
    configuration: configuration?.value,
    type,
    mode,
    interrupt,
    priority,
    summary,
    env,
    hold,
    skipUnchanged,
    requires,
    locks: flags.lock,
    limits: limitsOf(flags),
    keepFailedMs: flags.keepFailed,
    quorum: flags.quorum === undefined ? undefined : { ...flags.quorum, distinct: flags.distinct },
  };
  const parsed = submitBodySchema.safeParse(JSON.parse(JSON.stringify(body)));
  if (!parsed.success)
    return misuse(
      "The job is not valid",
      "Correct the flags; `plumule submit --help` lists them.",
      fieldErrors(parsed.error),
    );
  return { deployment: name, body: parsed.data, notes: notesOf(source, flags, around) };
}

/** Whether a broker's URL is one of this machine, where a runner can read `file:` URLs of ours. */
export function isLocalUrl(url: string): boolean {
  return /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
}

async function taskOf(flags: JobFlags, { checkout, cwd }: Surroundings): Promise<Task | Failure> {
  const { shell, build, effect, repository, task, schedule } = flags;
  const kinds = [shell, build, effect, repository].filter((kind) => kind !== undefined);
  if (kinds.length > 1)
    return misuse("More than one task is given", "Give one of --shell, --build, --effect and --repository.");
  if (flags.effects === true && kinds.length > 0 && repository === undefined)
    return misuse("--effects is for what the task file asks for", "Leave it out, or say --repository.");
  if (shell !== undefined) {
    const scripts = await scriptsOf({ script: shell }, cwd);
    return isFailure(scripts) ? scripts : { kind: "shell", script: shell, ...scripts };
  }
  if (build !== undefined) return { kind: "nix-build", installables: build };
  const { apply, plan, moveState } = flags;
  if (effect !== undefined) {
    const scripts = await scriptsOf({ script: apply, plan }, cwd);
    return isFailure(scripts)
      ? scripts
      : { kind: "effect", installable: effect, ...scripts, ...(moveState === undefined ? {} : { moveState }) };
  }
  if (apply !== undefined || plan !== undefined || moveState !== undefined)
    return misuse("--apply, --plan and --move-state are for effects", "Say what is built: --effect .#name.");
  if (repository === true || (task ?? schedule) !== undefined || checkout !== null)
    return {
      kind: "repository",
      ...(task === undefined ? {} : { task }),
      ...(schedule === undefined ? {} : { schedule }),
      ...(flags.effects === undefined ? {} : { effects: true }),
    };
  return misuse(
    "No task is given, and this folder is no git checkout",
    "Say what to do: --shell SCRIPT, --build INSTALLABLE, or --repository with --source and --commit.",
  );
}

/** Scripts that were given, of which those that begin with @ stand in files. */
async function scriptsOf(
  given: Readonly<Record<string, string | undefined>>,
  cwd: string,
): Promise<Record<string, string> | Failure> {
  const scripts: Record<string, string> = {};
  for (const [name, text] of Object.entries(given)) {
    if (text === undefined) continue;
    const script = text.startsWith("@") ? await readText(text.slice(1), cwd) : text;
    if (typeof script !== "string") return script;
    scripts[name] = script;
  }
  return scripts;
}

/** Tasks that make no sense without a commit: what the repository says, and installables of the checkout. */
function isAboutCheckout(task: Task): boolean {
  if (task.kind === "repository") return true;
  const installables = task.kind === "nix-build" ? task.installables : task.kind === "effect" ? [task.installable] : [];
  return installables.some((installable) => /^\.(?:#|$)/.test(installable));
}

async function sourceOf(flags: JobFlags, { checkout, cwd, isLocal }: Surroundings): Promise<Source | Failure> {
  const repository =
    flags.source ?? checkout?.repository ?? (isLocal && checkout !== null ? `file://${checkout.root}` : null);
  if (repository === null)
    return misuse(
      checkout === null ? "The job needs a repository" : "No remote of this checkout can be fetched by a runner",
      "Name it with --source, as a rad: or https: URL.",
    );
  const commit = flags.commit === undefined ? checkout?.commit : await findCommit(cwd, flags.commit);
  if (commit === undefined) return misuse("The job needs a commit", "Name it with --commit, as a full commit id.");
  if (commit === null) return misuse(`git knows no commit ${flags.commit}`, "Give the full commit id.");
  const isHead = commit === checkout?.commit && flags.source === undefined;
  const ref = flags.ref ?? (isHead ? checkout.ref : null);
  return { repository, commit, ...(ref === null ? {} : { ref: ref.startsWith("refs/") ? ref : `refs/heads/${ref}` }) };
}

function modeOf({ replace, latest, reject }: JobFlags): SubmitBody["mode"] | Failure {
  const modes = Object.entries({ replace, latest, reject }).flatMap(([mode, given]) => (given === true ? [mode] : []));
  if (modes.length > 1) return misuse("More than one mode is given", `Give one of --${modes.join(" and --")}.`);
  return modes[0] as SubmitBody["mode"];
}

function requiresOf({
  system,
  feature,
  label,
  isolation,
  pool,
}: JobFlags): Partial<Record<keyof Requires, unknown>> | undefined {
  const requires = { systems: system, features: feature, labels: label, isolation, pool };
  return Object.values(requires).every((value) => value === undefined) ? undefined : requires;
}

function limitsOf(flags: JobFlags): Partial<JobLimits> | undefined {
  const { maxMemory, maxTasks, maxWorkspace, maxLog } = flags;
  const limits = { memoryBytes: maxMemory, taskCount: maxTasks, workspaceBytes: maxWorkspace, logBytes: maxLog };
  return Object.values(limits).every((limit) => limit === undefined) ? undefined : limits;
}

function notesOf(source: Source | undefined, flags: JobFlags, { checkout }: Surroundings): string[] {
  const ofCheckout =
    source !== undefined && checkout !== null && flags.source === undefined && flags.commit === undefined;
  return ofCheckout && checkout.dirty ? ["changes that are not committed are not part of the job"] : [];
}

async function readConfiguration(path: string, cwd: string): Promise<{ value: unknown } | Failure> {
  const text = await readText(path, cwd);
  if (isFailure(text)) return text;
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    return misuse(`${path} is not JSON: ${(error as Error).message}`, "Give one JSON document.");
  }
}

async function readText(path: string, cwd: string): Promise<string | Failure> {
  try {
    return await readFile(path === "-" ? "/dev/stdin" : resolve(cwd, path), "utf8");
  } catch (error) {
    return misuse(`${path} cannot be read: ${(error as Error).message}`, "Give the path of a file that you can read.");
  }
}
