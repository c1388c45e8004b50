import {
  EFFECTS_FEATURE,
  EXPANSION_FEATURE,
  formatTime,
  LIMITS,
  protocolOf,
  type Refusal,
  refuse,
  runnersAble,
  UNNAMED_PROTOCOL,
  type Assignment,
  type Millis,
  type Stranger,
  type SubmitBody,
  type Task,
} from "@plumule/protocol";
import { mayExpand } from "./core/expansion.ts";
import type { Leased } from "./core/lease.ts";
import { type Brief, type Lane, timeoutsOf } from "./core/model.ts";

/** The version of the wire that brought strangers. */
const UNTRUSTED_PROTOCOL = 2;

/** The part of a submit body that decisions see. A stranger's job is held whatever its body says. */
export function briefOf(body: SubmitBody, stranger: Stranger | null = null): Brief {
  const {
    task,
    configuration: _configuration,
    env: _env,
    limits: _limits,
    keepFailedMs: _keepFailedMs,
    secrets,
    ...brief
  } = body;
  // A runner of version 1 does not read that an assignment is a stranger's, and would run it like any other.
  const protocol = Math.max(protocolOf(body), stranger === null ? UNNAMED_PROTOCOL : UNTRUSTED_PROTOCOL);
  const features = new Set([...(brief.requires?.features ?? []), ...impliedFeatures(task)]);
  const requires = features.size === 0 ? brief.requires : { ...brief.requires, features: [...features] };
  const runners = runnersAble(secrets ?? []);
  return {
    ...brief,
    ...(requires === undefined ? {} : { requires }),
    ...(runners === null ? {} : { runners }),
    ...(protocol > UNNAMED_PROTOCOL ? { protocol } : {}),
    ...natureOf(task),
    ...(stranger === null ? {} : { stranger, hold: true }),
  };
}

/** What a task is, as far as its file does not have to be read for it. */
function natureOf(task: Task): Pick<Brief, "kind" | "planned" | "movesState" | "schedule"> {
  const schedule = task.kind === "repository" ? task.schedule : undefined;
  const { kind, planned, movesState } =
    task.kind === "effect"
      ? { kind: task.kind, planned: task.plan !== undefined, movesState: task.moveState }
      : task.kind === "repository" && task.step !== undefined
        ? task.step
        : { kind: task.kind };
  return {
    kind,
    ...(planned === true ? { planned } : {}),
    ...(movesState === true ? { movesState } : {}),
    ...(schedule === undefined ? {} : { schedule }),
  };
}

/** What is wrong with a job's secrets, or null. One that names no box has to be filled in before, from those that the namespace stores. */
export function secretsFault({ secrets = [] }: SubmitBody, stranger: Stranger | null): Refusal | null {
  if (stranger !== null && secrets.length > 0)
    return refuse("invalid-body", "The job of a stranger gets no secrets.", {
      errors: [{ pointer: "/secrets", detail: stranger.why }],
    });
  const errors = secrets.flatMap(({ box, name }, at) =>
    box === undefined ? [{ pointer: `/secrets/${at}`, detail: `no box, and no secret ${name} is stored` }] : [],
  );
  if (errors.length > 0) return refuse("invalid-body", "A secret is missing.", { errors });
  return runnersAble(secrets)?.length === 0
    ? refuse("invalid-body", "No runner can open all secrets of this job.", {
        errors: [{ pointer: "/secrets", detail: "the secrets have no runner in common" }],
        next: "Seal them all to a runner that may take the job.",
      })
    : null;
}

/** What a task needs by its nature: a runner that lacks it would only send the job back. What a repository's file asks for is not known yet. */
function impliedFeatures(task: Task): string[] {
  switch (task.kind) {
    case "effect":
      return ["nix", EFFECTS_FEATURE];
    case "nix-build":
      return ["nix"];
    case "shell":
      return task.develop === undefined && task.packages === undefined ? [] : ["nix"];
    case "repository":
      return task.step === undefined ? [] : [EXPANSION_FEATURE, ...(FEATURES_OF_STEPS[task.step.kind] ?? [])];
  }
}

const FEATURES_OF_STEPS: Readonly<Record<string, readonly string[]>> = {
  effect: ["nix", EFFECTS_FEATURE],
  "nix-build": ["nix"],
};

/** The body of a rerun: the same work, once more, behind what is there, and done. What was about the moment of the first submit is left out. */
export function rerunBody({
  mode: _mode,
  hold: _hold,
  debounce: _debounce,
  dedupeKey: _dedupeKey,
  skipUnchanged: _skipUnchanged,
  ...body
}: SubmitBody): SubmitBody {
  return { ...body, mode: "queue" };
}

/** The body of a job that a schedule makes of the one that it repeats: the same work of the same commit, but for which jobs of its task file; held where that was. */
export function scheduledBody(body: SubmitBody, schedule: string): SubmitBody {
  const { task } = body;
  return {
    ...rerunBody(body),
    task: task.kind === "repository" ? { ...task, schedule } : task,
    ...(body.hold === true ? { hold: true } : {}),
  };
}

/** The body of a teardown: `task` on the source, with the locks and the kind of runner that made what is live; it lets what runs end, and supersedes what waits. */
export function teardownBody(task: Task, live: SubmitBody | null, summary: string | undefined): SubmitBody {
  const { source, requires, configuration, env, labels, locks } = live ?? ({} as Partial<SubmitBody>);
  return {
    task,
    type: "teardown",
    mode: "latest",
    ...(source === undefined ? {} : { source }),
    ...(requires === undefined ? {} : { requires }),
    ...(configuration === undefined ? {} : { configuration }),
    ...(env === undefined ? {} : { env }),
    ...(labels === undefined ? {} : { labels }),
    ...(locks === undefined ? {} : { locks }),
    ...(summary === undefined ? {} : { summary: summary.slice(0, 200) }),
  };
}

/** The assignment of a lease that was not acknowledged yet: afterwards its token is gone. */
export function assignmentOf(
  lane: Lane,
  { job, run }: Leased,
  spec: SubmitBody,
  { now, lastSuccess }: { now: Millis; lastSuccess: Assignment["lastSuccess"] },
): Assignment {
  if (run.undelivered === null) throw new Error(`the lease token of run ${run.id} was delivered already`);
  const { runMs, silenceMs, graceMs } = timeoutsOf(job.brief);
  return {
    namespace: lane.namespace,
    deployment: lane.deployment,
    job: job.id,
    run: run.id,
    attempt: run.attempt,
    epoch: run.epoch,
    leaseToken: run.undelivered,
    leaseMs: LIMITS.leaseMs,
    acknowledgeMs: Math.max(0, run.leaseUntil - now),
    requestKey: run.requestKey,
    spec,
    teardown: job.teardown,
    ...(job.brief.stranger === undefined ? {} : { untrusted: true }),
    ...(lastSuccess === undefined ? {} : { lastSuccess }),
    taskSha256: job.taskSha256,
    configurationSha256: job.configurationSha256,
    ...(job.plan === undefined || job.plan.approved === null ? {} : { plan: { sha256: job.plan.sha256 } }),
    ...(mayExpand(job) ? { expands: true } : {}),
    limits: { logBytes: LIMITS.logBytes, runMs, silenceMs, graceMs },
    brokerTime: formatTime(now),
  };
}
