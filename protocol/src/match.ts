import * as z from "zod";
import { UNTRUSTED_FEATURE } from "./approval.ts";
import { jobIdSchema, type Millis, type RunnerId, runnerIdSchema } from "./ids.ts";
import type { JobView } from "./job.ts";
import { isFinalJobState } from "./job.ts";
import { describeLockWait } from "./locks.ts";
import { UNNAMED_PROTOCOL } from "./older-peers.ts";
import type { Offer, RunnerView } from "./run.ts";
import { EFFECTS_FEATURE, ISOLATION_LEVELS, type Requires } from "./submit.ts";

/**
 * One thing that decides whether a job and a runner meet: what is needed, what there is, and whether that is enough. `name` is for programs:
 * of the job `state`, `lock` or a reason of its waiting, `queue-timeout`; of the runner `registration`, `pool`, `connection`, `offer`, `system`, `feature`,
 * `label`, `isolation`, `protocol`, `secrets`, `state`, `trust`, `quorum`, `attempt`, `drain`, `capacity`. Later brokers may know more.
 */
export const matchCheckSchema = z
  .object({ name: z.string(), needed: z.string(), has: z.string(), ok: z.boolean(), next: z.string().optional() })
  .meta({ id: "MatchCheck" });
export type MatchCheck = z.output<typeof matchCheckSchema>;

/** A runner beside a job. `ok`: nothing of the runner keeps them apart. */
export const runnerMatchSchema = z
  .object({ runner: runnerIdSchema, name: z.string(), ok: z.boolean(), checks: z.array(matchCheckSchema) })
  .meta({ id: "RunnerMatch" });
export type RunnerMatch = z.output<typeof runnerMatchSchema>;

/** A job beside the runners of its namespace, the nearest first: what of the job keeps it from all of them, and what each lacks. */
export const jobMatchSchema = z
  .object({
    job: jobIdSchema,
    checks: z.array(matchCheckSchema),
    runners: z.array(runnerMatchSchema),
    /** Runners that were looked at; fewer may be told. */
    runnerCount: z.int(),
  })
  .meta({ id: "JobMatch" });
export type JobMatch = z.output<typeof jobMatchSchema>;

/** What a job asks of a runner's abilities: what its submitter requires, and the least version of the wire in which it can be said. */
export type Wants = Requires & { protocol?: number };

/** What a runner can do, with the version of the wire that it speaks. */
export type Ability = Offer & { protocol?: number };

/** What is known of a job where it is to be matched. Null: any runner will do in this respect. */
export type MatchedJob = {
  wants: Wants;
  pool: string;
  /** Runners that its secrets are sealed to. */
  sealedTo: readonly RunnerId[] | null;
  /** Runners whose results count by the trust policy, and those of them whose operator has no part in the job's quorum yet. */
  trusted: readonly RunnerId[] | null;
  free: readonly RunnerId[] | null;
  /** Runners that have a part in it. */
  taken: readonly RunnerId[];
  /** The runner that keeps the state files which its effect has to have. */
  keeper?: RunnerId | null;
  /** Runners that lost or refused it. */
  avoid: readonly RunnerId[];
};

/** What is known of a runner where a job is to be matched. */
export type MatchedRunner = Pick<
  RunnerView,
  "id" | "name" | "pool" | "state" | "drained" | "drain" | "revoked" | "offer" | "protocol" | "busy" | "seenAt"
>;

/** Every system, feature and label that is needed, and least levels of isolation and protocol, each beside what is offered. */
export function abilityChecks(wants: Wants, offer: Ability): MatchCheck[] {
  const each = (name: "system" | "feature" | "label", needed: readonly string[] = []): MatchCheck[] => {
    const offered = name === "system" ? offer.systems : name === "feature" ? offer.features : offer.labels;
    const has = offered.join(", ") || `no ${name}`;
    return needed.map((one) => check(name, one, has, offered.includes(one), abilityFix(name, one)));
  };
  const { isolation } = wants;
  const [asked, spoken] = [wants.protocol ?? UNNAMED_PROTOCOL, offer.protocol ?? UNNAMED_PROTOCOL];
  return [
    ...each("system", wants.systems),
    ...each("feature", wants.features),
    ...each("label", wants.labels),
    ...(isolation === undefined
      ? []
      : [check("isolation", isolation, offer.isolation, level(offer.isolation) >= level(isolation), ISOLATION_FIX)]),
    ...(asked === UNNAMED_PROTOCOL
      ? []
      : [check("protocol", String(asked), String(spoken), spoken >= asked, "Update plumule on this machine.")]),
  ];
}

/** A check that failed, in a few words: `system aarch64-linux`, `isolation bwrap (has process-group)`. */
export function lackOf({ name, needed, has }: MatchCheck): string {
  const named = name === "system" || name === "feature" || name === "label";
  return named ? `${name} ${needed}` : `${name} ${needed} (has ${has})`;
}

/** What of a job itself keeps it from every runner. `queueUntil` is when its wait is over for good. */
export function jobChecks(
  { state, waiting, reason }: Pick<JobView, "state" | "waiting" | "reason">,
  queueUntil: Millis,
  now: Millis,
): MatchCheck[] {
  const isWaiting = state === "queued" || waiting !== null;
  const has = isFinalJobState(state) && reason !== null ? `${state} (${reason.detail})` : state;
  const checks = [check("state", "queued", has, isWaiting)];
  if (waiting?.lock !== undefined) {
    // Who has it is shown by the job, to those who may see that one too.
    const { name, ahead } = waiting.lock;
    checks.push(check("lock", name, describeLockWait({ name, ahead }), false));
  } else if (waiting !== null && !OF_RUNNERS.includes(waiting.reason))
    // What a pool says of runners is told of each of them.
    checks.push(check(waiting.reason, WAITING_NEEDS[waiting.reason] ?? "nothing in the way", waiting.detail, false));
  if (state === "queued") {
    const left = `${new Date(queueUntil).toISOString()} is the end of its time in the queue`;
    checks.push(check("queue-timeout", "time to wait", left, queueUntil > now));
  }
  return checks;
}

/** What of a runner decides whether it can take a job, label by label. */
export function runnerChecks(job: MatchedJob, runner: MatchedRunner): MatchCheck[] {
  const { id, name, offer } = runner;
  const isKnown = runner.state === "online";
  const seen = runner.seenAt === null ? "never seen" : `last seen ${runner.seenAt}`;
  const { note } = runner.drain ?? { note: null };
  return [
    check("registration", "a key in good standing", runner.revoked ? "revoked" : "registered", !runner.revoked),
    check("pool", job.pool, runner.pool ?? "none", runner.pool === job.pool, poolFix(job.pool)),
    check("connection", "online", isKnown ? "online" : `offline, ${seen}`, isKnown, `Start it: \`${START}\``),
    ...(offer === null
      ? [check("offer", "what it can do", "not known until it polls", false, `Start it: \`${START}\``)]
      : abilityChecks(job.wants, { ...offer, protocol: runner.protocol ?? UNNAMED_PROTOCOL })),
    ...keyChecks(job, id),
    ...(job.avoid.includes(id)
      ? [check("attempt", "another runner", "it lost or refused this job before", false)]
      : []),
    check(
      "drain",
      "leave to work",
      runner.drained ? `drained${note === null ? "" : `: ${note}`}` : "takes work",
      !runner.drained,
      `\`plumule runner undrain ${name}\``,
    ),
    ...(offer === null
      ? []
      : [check("capacity", "a free place", `${runner.busy} of ${offer.capacity} taken`, runner.busy < offer.capacity)]),
  ];
}

/**
 * Brings runners and a job together, the nearest first: those that lack least, by name where that is equal. That a runner lost the job before
 * counts only while another one could take it.
 */
export function matchRunners(job: MatchedJob, runners: readonly MatchedRunner[]): RunnerMatch[] {
  const matches = runners.map((runner) => ({
    runner: runner.id,
    name: runner.name,
    checks: runnerChecks(job, runner),
  }));
  const isAble = ({ checks }: { checks: MatchCheck[] }): boolean =>
    checks.every(({ name, ok }) => ok || name === "capacity");
  const hasAnother = matches.some(isAble);
  const settled = matches.map((match) => {
    const checks = match.checks.map((one) => (one.name === "attempt" && !hasAnother ? { ...one, ok: true } : one));
    return { ...match, ok: checks.every(({ ok }) => ok), checks };
  });
  return settled.toSorted(
    (a, b) =>
      (lackCount(a) === lackCount(b) ? 0 : lackCount(a) - lackCount(b)) ||
      (`${a.name} ${a.runner}` < `${b.name} ${b.runner}` ? -1 : 1),
  );
}

/** What a runner lacks for a job, in a few words each. */
export function lacksOf({ checks }: Pick<RunnerMatch, "checks">): string[] {
  return checks.filter(({ ok }) => !ok).map(lackOf);
}

function keyChecks({ sealedTo, trusted, free, taken, keeper = null }: MatchedJob, id: RunnerId): MatchCheck[] {
  const isTaken = taken.includes(id);
  const isTrusted = trusted?.includes(id) ?? true;
  const operatorHas = !isTaken && isTrusted && free?.includes(id) === false;
  const part = isTaken ? "a part" : operatorHas ? "an operator with a part" : "none";
  return [
    ...(sealedTo === null
      ? []
      : [
          check(
            "secrets",
            "a key that the job's secrets are sealed to",
            sealed(sealedTo, id),
            sealedTo.includes(id),
            SEAL_FIX,
          ),
        ]),
    ...(keeper === null
      ? []
      : [
          check(
            "state",
            "the state files of the deployment's effects",
            keeper === id ? "it keeps them" : "another runner keeps them",
            keeper === id,
            STATE_FIX,
          ),
        ]),
    ...(trusted === null
      ? []
      : [
          check("trust", "a vote that counts", isTrusted ? "trusted" : "not in the trust policy", isTrusted, TRUST_FIX),
        ]),
    ...(trusted === null && taken.length === 0
      ? []
      : [check("quorum", "no part in its quorum yet", part, !isTaken && !operatorHas)]),
  ];
}

const STATE_FIX = "To have another runner keep them: `plumule submit --effect … --move-state`, after they were copied.";

function sealed(runners: readonly RunnerId[], id: RunnerId): string {
  if (runners.includes(id)) return "one of them";
  return runners.length === 1 ? "sealed to another runner" : `sealed to ${runners.length} other runners`;
}

function check(name: string, needed: string, has: string, ok: boolean, next?: string): MatchCheck {
  return { name, needed, has, ok, ...(ok || next === undefined ? {} : { next }) };
}

function abilityFix(name: string, value: string): string {
  if (name === "feature" && value === EFFECTS_FEATURE)
    return "A runner has it where Nix and bubblewrap work: `plumule doctor`.";
  if (name === "feature" && value === UNTRUSTED_FEATURE)
    return `It takes no jobs of strangers. On a machine that holds nothing else: \`${START} --untrusted\``;
  return `\`${START} --${name} ${value}\``;
}

function poolFix(pool: string): string {
  return `Register it for that pool: \`plumule runner token --pool ${pool}\``;
}

/** How far a runner is from a job. One that nothing is known of is farther than any. */
function lackCount({ checks }: { checks: readonly MatchCheck[] }): number {
  return checks.some(({ name }) => name === "offer") ? Infinity : checks.filter(({ ok }) => !ok).length;
}

function level(isolation: Offer["isolation"]): number {
  return ISOLATION_LEVELS.indexOf(isolation);
}

const START = "plumule runner start";
const ISOLATION_FIX = "See which levels work on its machine: `plumule runner doctor`";
const SEAL_FIX = "Seal them to it too: `plumule secret set`.";
const TRUST_FIX = "Name its key in the trust policy of the namespace.";
/** What pools say of runners. */
const OF_RUNNERS: readonly string[] = ["no-runner", "runners-busy", "runners-drained"];
const WAITING_NEEDS: Readonly<Record<string, string>> = {
  position: "the first place",
  approval: "an approval",
  debounce: "a settled burst",
  backoff: "a rest after the last attempt",
  "stopping-previous": "a free lane",
};
