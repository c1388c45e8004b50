import {
  attemptOfRun,
  isRefusal,
  jobOfRun,
  LIMITS,
  refuse,
  type Assignment,
  type HeartbeatAnswer,
  type Refusal,
  type ResultAnswer,
  type ResultBody,
  type RunId,
} from "@plumule/protocol";
import type { DeploymentCalls } from "./calls.ts";
import type { StepDraft } from "./core/expansion.ts";
import { type Beat, claim, heartbeat, type LeaseProof, liveLease } from "./core/lease.ts";
import { differingBytes, placeBytes } from "./core/log.ts";
import { liveRuns, type Moment } from "./core/model.ts";
import { flushProgress, PROGRESS_MS, report } from "./core/report.ts";
import { isReplicated } from "./core/replicas.ts";
import { type Ballot, finish } from "./core/result.ts";
import { BROKER } from "./ledger.ts";
import { unpack } from "./native.ts";
import type { Parts } from "./parts.ts";
import { digestToken, mintLease } from "./pools.ts";
import { draftSteps } from "./steps.ts";
import { checkResult, digestOfResult, type Sealed, sealRun, type Stated } from "./results.ts";

type CallOf<Name extends keyof DeploymentCalls> = Parameters<DeploymentCalls[Name]>[0];

/** What runners write with a lease, and the claim that gives one. */
export class Runs {
  readonly #parts: Parts;
  readonly #waitUntil: (work: Promise<unknown>) => void;
  #flushing = false;

  constructor(parts: Parts, waitUntil: (work: Promise<unknown>) => void) {
    this.#parts = parts;
    this.#waitUntil = waitUntil;
  }

  async claim({ job, runner, requestKey, ticket }: CallOf<"claim">): Promise<Assignment | null> {
    const { answers, ledger, store } = this.#parts;
    const lease = await mintLease(runner, requestKey);
    const moment = ledger.moment(BROKER);
    const leased = ledger.commit(claim(ledger.state(), { job, ticket, lease }, moment), moment);
    const spec = leased === null ? null : store.spec(job);
    return leased === null || spec === null ? null : answers.assignment(leased, spec, moment.now);
  }

  /** A long poll for commands. The first heartbeat of a run is answered at once: its runner waits for it before it begins. */
  async heartbeat({ run, leaseToken, body }: CallOf<"heartbeat">): Promise<HeartbeatAnswer | Refusal> {
    const { held, ledger } = this.#parts;
    const proof = { run, leaseSha256: await digestToken(leaseToken), epoch: body.epoch };
    const moment = this.#moment(run);
    const beat = heartbeat(ledger.state(), { ...proof, isolation: body.isolation ?? null }, moment);
    if (isRefusal(beat)) return this.#fence(beat, proof, "heartbeat");
    const { first } = ledger.commit(beat, moment);
    const newest = (): Beat | Refusal => liveLease(ledger.state().jobs, proof, body.seenCommand ?? 0);
    const hasNews = (): boolean => {
      const lease = newest();
      return isRefusal(lease) || lease.command !== null;
    };
    if (!first && !hasNews()) await held.hold(run, body.waitMs ?? 0, hasNews);
    const lease = newest();
    return isRefusal(lease) ? lease : { leaseMs: Math.max(0, lease.leaseUntil - Date.now()), command: lease.command };
  }

  async report({ run, leaseToken, body }: CallOf<"report">): Promise<{ number: number } | Refusal> {
    const { bytes, ledger } = this.#parts;
    const proof = { run, leaseSha256: await digestToken(leaseToken), epoch: body.epoch };
    const moment = this.#moment(run);
    const reported = report(ledger.state(), { ...proof, number: body.number, events: body.events }, moment);
    if (isRefusal(reported)) return this.#fence(reported, proof, "events");
    const { number, batch } = reported.answer;
    ledger.commit(reported, moment, batch === null ? {} : { rows: () => bytes.addBatch(batch) });
    if (ledger.state().jobs.some((job) => liveRuns(job).some(({ progressUntold }) => progressUntold)))
      this.#flushSoon();
    return { number };
  }

  /** Bytes at an offset: one row each, and nothing else, because how long a log is can be read from its last row. More than a row holds are for the next request. */
  async appendLog({
    run,
    leaseToken,
    epoch,
    offset,
    ...body
  }: CallOf<"appendLog">): Promise<{ bytes: number } | Refusal> {
    const { bytes, ledger, watchers } = this.#parts;
    const leaseSha256 = await digestToken(leaseToken);
    const proof = { run, leaseSha256, epoch };
    const lease = liveLease(ledger.state().jobs, proof, 0);
    if (isRefusal(lease)) return this.#fence(lease, proof, "log");
    const packed = "packed" in body ? body.packed : null;
    const sent = "bytes" in body ? body.bytes : unpack(body.packed, LIMITS.logUnpackedBytes);
    if (isRefusal(sent)) return sent;
    const size = bytes.output(epoch)?.bytes ?? 0;
    const placed = placeBytes(size, offset, sent.length);
    if (isRefusal(placed)) return placed;
    const { repeatedBytes, newBytes } = placed;
    if (!bytes.holds(epoch, offset, sent.subarray(0, repeatedBytes))) return differingBytes(offset);
    if (newBytes === 0) return { bytes: size };
    const fresh = sent.subarray(repeatedBytes);
    const added = bytes.append(epoch, size, fresh, ledger.moment(BROKER).now, repeatedBytes === 0 ? packed : null);
    watchers.logGrew(run);
    return { bytes: size + added };
  }

  async result({ run: id, leaseToken, body }: CallOf<"result">): Promise<ResultAnswer | Refusal> {
    const { answers, ballots, bytes, ledger, store } = this.#parts;
    const [leaseSha256, bodySha256] = await Promise.all([digestToken(leaseToken), digestOfResult(body)]);
    const found = answers.findRun(id);
    if (isRefusal(found)) return found;
    const { job, run } = found;
    if (run.leaseSha256 !== leaseSha256 || run.epoch !== body.epoch)
      return refuse("stale-lease", `The token or the epoch is not that of run ${id}.`);
    const known = this.#known(run.epoch, bodySha256);
    if (known !== null) return known;
    const stated = await checkResult(ledger.state().lane, job, run, body);
    if (isRefusal(stated)) return stated;
    const steps = await draftSteps(job, store.spec(job.id), { ...body, ...stated });
    if (isRefusal(steps)) return steps;
    for (;;) {
      const ballot = isReplicated(job) ? await ballots.draw(id, body) : null;
      if (isRefusal(ballot)) return ballot;
      const sealed = await sealRun(bytes, run, body);
      // Bytes that came while the digest was made belong to the log too, and votes that came while others were read to the ballot.
      if ((bytes.output(run.epoch)?.bytes ?? 0) !== sealed.size || !ballots.isWhole(id, ballot)) continue;
      return (
        this.#known(run.epoch, bodySha256) ??
        this.#finish(
          { run: id, leaseSha256, epoch: run.epoch },
          { ...body, ...stated, steps, ballot },
          bodySha256,
          sealed,
        )
      );
    }
  }

  /** The answer that this run's result got before; another result than that is refused. Null when there was none. */
  #known(epoch: number, bodySha256: string): ResultAnswer | Refusal | null {
    const known = this.#parts.store.result(epoch);
    if (known === null || known.bodySha256 === bodySha256) return known?.answer ?? null;
    return refuse("conflict", "Another result of this run was accepted.");
  }

  /** Ends the run with a result that was verified. Without its lease the result is kept, so that the runner can stop sending it, and changes nothing. */
  #finish(
    proof: LeaseProof,
    body: ResultBody & Stated & { steps: readonly StepDraft[]; ballot: Ballot | null },
    bodySha256: string,
    { log, size, rest }: Sealed,
  ): ResultAnswer | Refusal {
    const { answers, bytes, ledger, store, watchers } = this.#parts;
    const { epoch, outputs, statements } = body;
    const moment = this.#moment(proof.run);
    const reported = { ...proof, ...body, log, statementCount: statements.length, events: body.events ?? null };
    const decided = finish(ledger.state(), reported, moment);
    if (isRefusal(decided)) {
      const job = answers.find(jobOfRun(proof.run));
      if (decided.refused !== "stale-lease" || isRefusal(job)) return decided;
      const late: ResultAnswer = { accepted: false, late: true, state: job.state };
      store.putResult({ epoch, bodySha256, late: true, answer: late, outputs, statements });
      this.#fence(decided, proof, "result");
      return late;
    }
    const { batch, state } = decided.answer;
    const answer: ResultAnswer = { accepted: true, late: false, state };
    const rows = (): void => {
      if (rest.length > 0) bytes.append(epoch, size, rest, moment.now);
      if (batch !== null) bytes.addBatch(batch);
      store.putResult({ epoch, bodySha256, late: false, answer, outputs, statements });
    };
    ledger.commit(decided, moment, { rows, bodies: decided.answer.queued });
    watchers.logGrew(proof.run);
    return answer;
  }

  /** A refusal, and a note of it when the lease was real and had been taken away: a made-up token is nobody's, and a run that ended by its own result needs no fence. */
  #fence(refusal: Refusal, { run: id, leaseSha256, epoch }: LeaseProof, write: string): Refusal {
    const { answers, publisher } = this.#parts;
    const found = refusal.refused === "stale-lease" ? answers.findRun(id) : refusal;
    if (isRefusal(found) || found.run.leaseSha256 !== leaseSha256) return refusal;
    const { runner, state } = found.run;
    if (state === "lost" || state === "cancelled") publisher.fenced({ run: id, runner, epoch, write });
    return refusal;
  }

  /** A moment in which the run's own runner acts. */
  #moment(run: RunId): Moment {
    const { ledger } = this.#parts;
    const job = ledger.state().jobs.find(({ id }) => id === jobOfRun(run));
    return ledger.moment(job?.runs.at(attemptOfRun(run) - 1)?.runner ?? BROKER);
  }

  /** Tells progress that came too soon after the last, once it may be told. */
  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    const flush = async (): Promise<void> => {
      await scheduler.wait(PROGRESS_MS);
      this.#flushing = false;
      const { ledger } = this.#parts;
      const moment = ledger.moment(BROKER);
      ledger.commit(flushProgress(ledger.state(), moment), moment);
    };
    this.#waitUntil(flush());
  }
}
