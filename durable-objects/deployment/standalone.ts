import {
  digestsOf,
  eligibleSigners,
  isRefusal,
  type JobWork,
  type Millis,
  quorumPolicy,
  refuse,
  type Refusal,
  type RunnerId,
  type StandaloneAnswer,
  type SubmitBody,
  type TrustBasis,
  votesNeeded,
  type WorkAnswer,
} from "@plumule/protocol";
import { readVote } from "./ballots.ts";
import { briefOf } from "./bodies.ts";
import type { DeploymentCalls } from "./calls.ts";
import { differingBytes, placeBytes, sealLog } from "./core/log.ts";
import { emptyState, type Job, type Moment } from "./core/model.ts";
import { refOf } from "./core/replicas.ts";
import { hasDone, isSameWork, recordStandalone, type Standalone, standaloneJob, workOf } from "./core/standalone.ts";
import type { Decided } from "./core/work.ts";
import type { Identity, Parts } from "./parts.ts";
import { checkResult, digestOfResult, sealRun } from "./results.ts";

type CallOf<Name extends keyof DeploymentCalls> = Parameters<DeploymentCalls[Name]>[0];

/** A run that its runner gave itself, whose result was verified and counts. */
export type Admitted = { input: Standalone; startedAt: Millis; bodySha256: string; spec: SubmitBody };

/**
 * Checks a run that its runner gave itself: that this runner signed it, for this deployment and about this very work, and that the namespace believes
 * its word alone. Before this nothing is stored, so that what is refused brings no deployment into being (P12).
 */
export async function admitStandalone(
  identity: Identity,
  { runner, body }: CallOf<"recordStandalone">,
  trustBasis: () => Promise<TrustBasis>,
): Promise<Admitted | Refusal> {
  const { spec, result } = body;
  const input = { job: body.job, run: body.run, runner, brief: briefOf(spec), ...(await digestsOf(spec)), result };
  const state = emptyState(identity.namespace, identity.deployment);
  const { job, run } = standaloneJob(state, input, Date.parse(result.finishedAt));
  const stated = await checkResult(state.lane, job, run, result);
  if (isRefusal(stated)) return stated;
  const { claims } = await readVote(result.statements[0], runner);
  if (!countsAlone(runner, await trustBasis(), refOf(job.brief)))
    return refuse("forbidden", `The word of ${runner} alone does not count by the trust policy.`, {
      next: "Name its key in the trust policy, or let the broker order such work.",
    });
  const bodySha256 = await digestOfResult(result);
  return { input, startedAt: Date.parse(claims.startedAt), bodySha256, spec };
}

/** Whether one runner is believed about a ref without another that says the same. */
function countsAlone(runner: RunnerId, basis: TrustBasis, ref: string): boolean {
  const policy = quorumPolicy(basis, ref, { replicas: 1, agree: 1 });
  const signers = eligibleSigners(policy, Date.now());
  return signers.some(({ key }) => key === runner) && policy.rules.every((rule) => votesNeeded(rule) <= 1);
}

/** What runners tell of runs that they gave themselves. */
export class StandaloneRuns {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** The job that stands for some work: done, or to be done; else the newest that was to do it. */
  find({ work }: CallOf<"findWork">): WorkAnswer {
    const jobs = this.#parts.store.jobsOfWork(work);
    const job = jobs.find((one) => hasDone(one) || one.finishedAt === null) ?? jobs[0];
    return { job: job === undefined ? null : { id: job.id, state: job.state } };
  }

  /** The job that was recorded for this work, for a submit that asks for it again; null where there is none. A result of a broker's own run is not taken for another. */
  doneBy(work: JobWork): Job | null {
    const { ledger, store } = this.#parts;
    if (ledger.state().lane.standaloneCount === 0) return null;
    return store.jobsOfWork(work).find((job) => job.standalone === true && hasDone(job)) ?? null;
  }

  /** Keeps what was admitted, or answers which job was first. Nothing is waited for but the digest of its log. */
  async record({ input, startedAt, bodySha256, spec }: Admitted): Promise<StandaloneAnswer | Refusal> {
    const { bytes, ledger, store } = this.#parts;
    const draft = standaloneJob(ledger.state(), input, startedAt);
    const sealed = await sealRun(bytes, draft.run, input.result);
    const { job } = standaloneJob(ledger.state(), input, startedAt);
    const before = store.job(job.id) ?? store.jobAt(job.createdAt);
    if (before !== null) return this.#again(before, job, bodySha256);
    const work = workOf(job);
    const same = work === null ? [] : store.jobsOfWork(work);
    const known = same.find((one) => isSameWork(one, job) && hasDone(one)) ?? null;
    const moment = ledger.moment(input.runner);
    const { outputs } = input.result;
    const decided = recordStandalone(ledger.state(), { job, known, log: sealed.log, outputs }, moment);
    return isRefusal(decided) ? decided : this.#keep(decided, moment, { input, spec, bodySha256, rest: sealed.rest });
  }

  #keep(
    decided: Decided<{ recorded: boolean; job: Job }>,
    moment: Moment,
    { input, spec, bodySha256, rest }: Omit<Admitted, "startedAt"> & { rest: Uint8Array },
  ): StandaloneAnswer {
    const { bytes, ledger, publisher, store } = this.#parts;
    const { recorded, job } = decided.answer;
    const [run] = job.runs;
    const { outputs, statements } = input.result;
    if (!recorded || run === undefined) {
      publisher.fenced({
        run: input.run,
        runner: input.runner,
        epoch: 0,
        write: "result",
      });
      return { recorded: false, job: job.id, state: job.state, logBytes: 0 };
    }
    const answer = { accepted: true, late: false, state: job.state };
    ledger.commit(decided, moment, {
      bodies: [{ job: job.id, spec }],
      rows: () => {
        if (rest.length > 0) bytes.append(run.epoch, 0, rest, moment.now);
        store.putResult({ epoch: run.epoch, bodySha256, late: false, answer, outputs, statements });
      },
    });
    return { recorded: true, job: job.id, state: job.state, logBytes: rest.length };
  }

  /** What was recorded before is answered again; another job under the same id, or of the same millisecond, is no place for it. */
  #again(before: Job, { id }: Job, bodySha256: string): StandaloneAnswer | Refusal {
    const { bytes, store } = this.#parts;
    const [run] = before.runs;
    if (before.id !== id || run === undefined || store.result(run.epoch)?.bodySha256 !== bodySha256)
      return refuse("conflict", `There is another job ${before.id} in the place of ${id}.`);
    const logBytes = bytes.output(run.epoch)?.bytes ?? 0;
    return {
      recorded: true,
      job: id,
      state: before.state,
      logBytes: run.log.state === "expired" ? run.log.bytes : logBytes,
    };
  }

  /** Bytes of the log at an offset, until it is as long as its runner has signed; then it is compared with that (P9). */
  async appendLog({
    run: id,
    runner,
    offset,
    bytes: sent,
  }: CallOf<"appendStandaloneLog">): Promise<{ bytes: number } | Refusal> {
    const { answers, bytes, store } = this.#parts;
    const found = answers.findRun(id);
    if (isRefusal(found)) return found;
    const { job, run } = found;
    if (job.standalone !== true || run.runner !== runner)
      return refuse("forbidden", `Run ${id} is not one that ${runner} gave itself.`);
    if (run.log.state === "expired") return refuse("wrong-state", `The log of run ${id} is no longer kept.`);
    const { claims } = await readVote(store.result(run.epoch)?.statements[0], runner);
    const size = bytes.output(run.epoch)?.bytes ?? 0;
    if (offset + sent.length > claims.log.bytes)
      return refuse("wrong-state", `The log of run ${id} has ${claims.log.bytes} bytes, as was signed.`);
    const placed = placeBytes(size, offset, sent.length);
    if (isRefusal(placed)) return placed;
    const { repeatedBytes, newBytes } = placed;
    if (!bytes.holds(run.epoch, offset, sent.subarray(0, repeatedBytes))) return differingBytes(offset);
    if (newBytes === 0) return { bytes: size };
    const fresh = sent.subarray(repeatedBytes);
    const sha256 = size + newBytes === claims.log.bytes ? await bytes.digest(run.epoch, fresh) : null;
    // Others may have sent the same bytes while these were hashed.
    if ((bytes.output(run.epoch)?.bytes ?? 0) !== size) return { bytes: bytes.output(run.epoch)?.bytes ?? 0 };
    this.#append(job, { offset: size, bytes: fresh, sha256, signed: claims.log });
    return { bytes: size + newBytes };
  }

  #append(
    job: Job,
    {
      offset,
      bytes: fresh,
      sha256,
      signed,
    }: { offset: number; bytes: Uint8Array; sha256: string | null; signed: { bytes: number; sha256: string } },
  ): void {
    const { bytes, ledger, store, watchers } = this.#parts;
    const [run] = job.runs;
    if (run === undefined) return;
    const moment = ledger.moment(run.runner);
    const unchanged = { state: ledger.state(), jobs: [], events: [], answer: null };
    const size = offset + fresh.length;
    ledger.commit(unchanged, moment, {
      rows: () => {
        bytes.append(run.epoch, offset, fresh, moment.now);
        if (sha256 === null) return;
        const log = sealLog({ bytes: size, sha256, sound: true }, { ...signed, truncated: false });
        store.putJob({ ...job, runs: [{ ...run, log }] });
      },
    });
    watchers.logGrew(run.id);
  }
}
