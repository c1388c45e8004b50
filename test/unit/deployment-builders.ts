import {
  defaultPolicy,
  expandedSteps,
  isRefusal,
  JOB_RESULT_PREDICATE_TYPE,
  jobOfRun,
  makeJobId,
  type ResultBody,
  runIdOf,
  type Claims,
  type Expansion,
  type JobId,
  type Outcome,
  type Phase,
  type Refusal,
  type SignedClaims,
  type Stranger,
  type SubmitBody,
  type TrustBasis,
} from "@plumule/protocol";
import { briefOf } from "#durable-objects/deployment/bodies.ts";
import { approve, cancel } from "#durable-objects/deployment/core/cancel.ts";
import { planSteps, type StepDraft } from "#durable-objects/deployment/core/expansion.ts";
import { claim, heartbeat, type LeaseProof } from "#durable-objects/deployment/core/lease.ts";
import { emptyState, liveRun, type Job, type Moment, type State } from "#durable-objects/deployment/core/model.ts";
import { report } from "#durable-objects/deployment/core/report.ts";
import { finish, type Reported } from "#durable-objects/deployment/core/result.ts";
import { recordStandalone, standaloneJob } from "#durable-objects/deployment/core/standalone.ts";
import { submit, type Submission } from "#durable-objects/deployment/core/submit.ts";
import type { Decided } from "#durable-objects/deployment/core/work.ts";

export const START = Date.UTC(2026, 0, 1);
export const KING = `did:key:z6Mk${"k".repeat(44)}`;
export const QUEEN = `did:key:z6Mk${"q".repeat(44)}`;
export const ROOK = `did:key:z6Mk${"r".repeat(44)}`;
export const PAWN = `did:key:z6Mk${"p".repeat(44)}`;
/** A commit, for jobs that are the same work: their tasks have one digest here. */
export const SOURCE = { repository: "https://example.org/garden.git", commit: "c".repeat(40) };
export const EMPTY = emptyState("garden", "web");

export function at(now: number, actor = "token:test"): Moment {
  return { now, actor, outputs: null };
}

/** The decision, or a failed test that shows the refusal. */
export function decided<T>(answer: Decided<T> | Refusal): Decided<T> {
  if (isRefusal(answer)) throw new Error(`${answer.refused}: ${answer.detail}`);
  return answer;
}

/** Nobody has put a policy: each of four runners stands for itself. */
export const BY_DEFAULT: TrustBasis = {
  at: new Date(START).toISOString(),
  policy: defaultPolicy([KING, QUEEN, ROOK, PAWN]),
  isDefault: true,
  revoked: [],
};

let seed = 0;
function drawn(): Uint8Array {
  seed += 1;
  const random = new Uint8Array(8);
  new DataView(random.buffer).setUint32(4, seed);
  return random;
}

/** What the shell of a deployment makes of a task file with these jobs, which a job with this body has read. */
export function draftsOf(
  jobs: Expansion["jobs"],
  body: Partial<SubmitBody> = {},
  stranger: Stranger | null = null,
): StepDraft[] {
  const spec: SubmitBody = { task: { kind: "repository" }, ...body };
  const steps = expandedSteps({ jobs });
  if ("fault" in steps) throw new Error(steps.fault);
  const digests = { taskSha256: "a".repeat(64), configurationSha256: null };
  return planSteps(spec, briefOf(spec, stranger), steps).map((one) => ({
    ...one,
    brief: briefOf(one.body),
    ...digests,
    random: drawn(),
  }));
}

/** A submission of a body, with a random part that is different every time. */
export function submission(
  body: Partial<SubmitBody> = {},
  over: Partial<Submission> = {},
  receivedAt = START,
): Submission {
  const random = drawn();
  const brief = briefOf({ task: { kind: "shell", script: "true" }, ...body });
  const digests = { taskSha256: "a".repeat(64), configurationSha256: null };
  return {
    receivedAt,
    random,
    brief,
    ...digests,
    rerunOf: null,
    teardown: false,
    ifMatch: null,
    lease: null,
    basis: body.quorum === undefined ? null : BY_DEFAULT,
    ...over,
  };
}

export function submitted(
  state: State,
  body: Partial<SubmitBody> = {},
  now = START,
  over: Partial<Submission> = {},
): { state: State; job: JobId } {
  const change = decided(submit(state, submission(body, over, now), at(now)));
  return { state: change.state, job: change.answer.job };
}

export function lease(
  runner = KING,
  requestKey = crypto.randomUUID(),
): { runner: string; requestKey: string; leaseToken: string; leaseSha256: string } {
  return { runner, requestKey, leaseToken: `token-${requestKey}`, leaseSha256: `sha-${requestKey}` };
}

/** A run of that commit that its runner did without the broker. */
export function filledIn(state: State, outcome: Outcome, now = START): ReturnType<typeof recordStandalone> {
  seed += 1;
  const random = new Uint8Array(8);
  new DataView(random.buffer).setUint32(4, seed);
  const job = makeJobId(now, random);
  const log = { bytes: 0, sha256: "e".repeat(64), truncated: false };
  const { brief, taskSha256, configurationSha256 } = submission({ source: SOURCE });
  const result: ResultBody = {
    epoch: 0,
    outcome,
    exitCode: 0,
    reason: null,
    finishedAt: new Date(now).toISOString(),
    isolation: null,
    survivorsKilled: 0,
    log,
    outputs: [],
    statements: [],
  };
  const work = { brief, taskSha256, configurationSha256 };
  const made = standaloneJob(state, { job, run: runIdOf(job, 1), runner: KING, ...work, result }, now);
  const sealed = { state: "complete" as const, bytes: 0, sha256: log.sha256 };
  return recordStandalone(state, { job: made.job, known: null, log: sealed, outputs: [] }, at(now));
}

/** Claims the job with the ticket that it has. */
export function claimed(state: State, job: JobId, now = START, offer = lease()): Decided<{ job: Job } | null> {
  return claim(state, { job, ticket: jobIn(state, job).ticket?.number ?? -1, lease: offer }, at(now));
}

export function jobIn(state: State, id: JobId): Job {
  const job = state.jobs.find((one) => one.id === id);
  if (job === undefined) throw new Error(`job ${id} is final or unknown`);
  return job;
}

/** What the runner of a job shows with its writes. */
export function proofOf(state: State, id: JobId): LeaseProof {
  const run = liveRun(jobIn(state, id));
  if (run === null) throw new Error(`job ${id} has no live run`);
  return { run: run.id, leaseSha256: run.leaseSha256, epoch: run.epoch };
}

export function resultOf(proof: LeaseProof, outcome: Outcome, over: Partial<Reported> = {}): Reported {
  const log = { state: "complete" as const, bytes: 0, sha256: "e".repeat(64) };
  const rest = {
    exitCode: 0,
    reason: null,
    isolation: null,
    survivorsKilled: 0,
    outputs: [],
    statementCount: 1,
    log,
    events: null,
  };
  return { ...proof, outcome, ...rest, ...over };
}

const votesSaid = new Map<string, SignedClaims>();

/** A result as `resultOf`, with the ballot that a quorum needs: what the job's earlier votes said, and that this run built these bytes. */
export function voteOf(
  state: State,
  proof: LeaseProof,
  outcome: Outcome = "succeeded",
  { nar = "a", basis = BY_DEFAULT, claims = {} }: { nar?: string; basis?: TrustBasis; claims?: Partial<Claims> } = {},
  over: Partial<Reported> = {},
): Reported {
  const job = state.jobs.find(({ id }) => id === jobOfRun(proof.run));
  const run = job?.runs.find(({ id }) => id === proof.run);
  if (job?.quorum === undefined || run === undefined) return resultOf(proof, outcome, over);
  votesSaid.set(run.id, {
    signer: run.runner,
    sha256: `${run.id} ${nar}`,
    claims: {
      predicateType: JOB_RESULT_PREDICATE_TYPE,
      repository: null,
      namespace: "garden",
      deployment: "web",
      job: job.id,
      run: run.id,
      epoch: run.epoch,
      commit: null,
      taskSha256: job.taskSha256,
      configurationSha256: null,
      flakeLockSha256: null,
      result: outcome,
      system: "x86_64-linux",
      runner: run.runner,
      builderId: `${run.runner}#bwrap-v1`,
      untrusted: false,
      log: { sha256: "b".repeat(64), bytes: 10 },
      outputs:
        outcome === "succeeded"
          ? [{ name: "out", path: "/nix/store/x-out", narHash: nar.repeat(64), narSize: 120 }]
          : [],
      startedAt: new Date(START).toISOString(),
      finishedAt: new Date(START + 1_000).toISOString(),
      ...claims,
    },
  });
  const heard = [...job.runs.filter(({ vote }) => vote !== undefined), run];
  const statements = heard.flatMap(({ id }) => votesSaid.get(id) ?? []);
  return resultOf(proof, outcome, { ballot: { basis, statements }, ...over });
}

/** The live states a job can be in, told apart by what they answer to inputs. */
export const SITUATIONS = [
  "held",
  "queued",
  "assigned",
  "running",
  "applying",
  "cancelling",
  "cancelling while applying",
] as const;
export type Situation = (typeof SITUATIONS)[number];

/** A lane with one job in a situation, brought there by decisions. `proof` is what its runner shows. */
export function laneWith(
  situation: Situation,
  body: Partial<SubmitBody> = {},
): { state: State; job: JobId; proof: LeaseProof } {
  const none: LeaseProof = { run: "", leaseSha256: "none", epoch: 1 };
  const first = submitted(EMPTY, { ...body, ...(situation === "held" ? { hold: true } : {}) });
  const { job } = first;
  let { state } = first;
  if (situation === "held" || situation === "queued") return { state, job, proof: none };
  state = claimed(state, job).state;
  const proof = proofOf(state, job);
  if (situation === "assigned") return { state, job, proof };
  state = decided(heartbeat(state, { ...proof, isolation: null }, at(START))).state;
  const phase = (name: Phase): void => {
    state = decided(
      report(
        state,
        { ...proof, number: 1, events: [{ type: "phase", phase: name, at: new Date(START).toISOString() }] },
        at(START),
      ),
    ).state;
  };
  if (situation === "applying" || situation === "cancelling while applying") phase("applying");
  const why = { code: "cancelled" as const, detail: "asked for" };
  if (situation === "cancelling" || situation === "cancelling while applying")
    state = decided(cancel(state, { job, force: situation !== "cancelling", why, ifMatch: null }, at(START))).state;
  return { state, job, proof };
}

export { approve, cancel, claim, finish, heartbeat, report, submit };
