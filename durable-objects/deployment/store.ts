import {
  jobCreatedAt,
  LIMITS,
  type DeploymentId,
  type EquivocationView,
  type JobId,
  type JobWork,
  type Millis,
  type NamespaceId,
  type Output,
  type ResultAnswer,
  type SubmitBody,
  type VerdictView,
  type WireEnvelope,
} from "@plumule/protocol";
import { emptyState, type Job, type Lane, type State } from "./core/model.ts";
import { isFinal } from "./core/views.ts";
import type { Change } from "./core/work.ts";
import { readJob, readLane } from "./records.ts";

/** The answer that an idempotency key got, with what it was asked. */
export type StoredRequest = { fingerprint: string; answer: string };

/** A result as it is kept, by the epoch of its run. `late`: its lease was gone, so it changed nothing. */
export type StoredResult = {
  epoch: number;
  bodySha256: string;
  late: boolean;
  answer: ResultAnswer;
  outputs: readonly Output[];
  statements: readonly WireEnvelope[];
};

/** What the broker said of a job's statements: the verdict, the statement that it signed about it, and keys that it caught contradicting themselves. */
export type StoredVerdict = {
  verdict: VerdictView;
  summary: WireEnvelope;
  equivocations: readonly EquivocationView[];
};

type Row = Record<string, SqlStorageValue>;

/** Jobs, results and answers of one deployment as rows. Nothing here decides. */
export class Store {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** The lane and its jobs that are not final: one scan, when the object comes into memory. */
  load(namespace: NamespaceId, deployment: DeploymentId): State {
    const empty = emptyState(namespace, deployment);
    const lane = this.#first<{ record: string }>("SELECT record FROM lane");
    return {
      lane: lane === null ? empty.lane : readLane(lane.record, empty.lane),
      jobs: this.#jobs("WHERE final = 0 ORDER BY created_at"),
    };
  }

  /** Writes what a decision changed: one row per touched job, one for the lane if it changed. New jobs come with their bodies. */
  save(before: State, change: Change, bodies: readonly { job: JobId; spec: SubmitBody }[]): void {
    if (change.state.lane !== before.lane) this.#saveLane(change.state.lane);
    for (const job of change.jobs) {
      const body = bodies.find((one) => one.job === job.id);
      if (body === undefined) this.putJob(job);
      else this.#insertJob(job, body.spec);
    }
  }

  job(id: JobId): Job | null {
    return this.#jobs("WHERE created_at = ? AND id = ?", jobCreatedAt(id), id)[0] ?? null;
  }

  /** The job of a millisecond, in which a lane has one at most. */
  jobAt(createdAt: Millis): Job | null {
    return this.#jobs("WHERE created_at = ?", createdAt)[0] ?? null;
  }

  /** The jobs of some work, newest first. There is no index, which every submit would have to pay for: only runners that work without the broker ask. */
  jobsOfWork({ repository, commit, taskSha256, configurationSha256 }: JobWork): Job[] {
    return this.#jobs(
      `WHERE record ->> '$.taskSha256' = ? AND record ->> '$.configurationSha256' IS ? AND record ->> '$.brief.source.repository' = ?
       AND record ->> '$.brief.source.commit' = ? ORDER BY created_at DESC`,
      taskSha256,
      configurationSha256,
      repository,
      commit,
    );
  }

  /** What was asked for, whole. */
  spec(id: JobId): SubmitBody | null {
    const row = this.#first<{ spec: string }>(
      "SELECT spec FROM jobs WHERE created_at = ? AND id = ?",
      jobCreatedAt(id),
      id,
    );
    return row === null ? null : (JSON.parse(row.spec) as SubmitBody);
  }

  /** Ended jobs, newest first. */
  finalJobs(limit: number): Job[] {
    return this.#jobs("WHERE final = 1 ORDER BY created_at DESC LIMIT ?", limit);
  }

  putJob(job: Job): void {
    this.#sql.exec(
      "UPDATE jobs SET record = ?, final = ? WHERE created_at = ?",
      JSON.stringify(job),
      isFinal(job) ? 1 : 0,
      job.createdAt,
    );
  }

  /** Removes a job with its results. */
  deleteJob(job: Job): void {
    this.#sql.exec("DELETE FROM jobs WHERE created_at = ?", job.createdAt);
    this.#sql.exec("DELETE FROM verdicts WHERE created_at = ?", job.createdAt);
    for (const run of job.runs) this.#sql.exec("DELETE FROM results WHERE epoch = ?", run.epoch);
  }

  request(key: string, now: Millis): StoredRequest | null {
    return this.#first(
      "SELECT fingerprint, answer FROM requests WHERE key = ? AND at > ?",
      key,
      now - LIMITS.idempotencyMs,
    );
  }

  putRequest(key: string, { fingerprint, answer }: StoredRequest, now: Millis): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO requests (key, fingerprint, answer, at) VALUES (?, ?, ?, ?)",
      key,
      fingerprint,
      answer,
      now,
    );
  }

  /** Forgets answers that were given up to a time. */
  pruneRequests(until: Millis): void {
    this.#sql.exec("DELETE FROM requests WHERE at <= ?", until);
  }

  /** True when answers are kept that were given after a time. */
  keepsRequests(after: Millis): boolean {
    return this.#first("SELECT 1 AS present FROM requests WHERE at > ? LIMIT 1", after) !== null;
  }

  result(epoch: number): StoredResult | null {
    const row = this.#first<{ body_sha256: string; late: number; answer: string; outputs: string; statements: string }>(
      "SELECT body_sha256, late, answer, outputs, statements FROM results WHERE epoch = ?",
      epoch,
    );
    if (row === null) return null;
    return {
      epoch,
      bodySha256: row.body_sha256,
      late: row.late === 1,
      answer: JSON.parse(row.answer) as ResultAnswer,
      outputs: JSON.parse(row.outputs) as Output[],
      statements: JSON.parse(row.statements) as WireEnvelope[],
    };
  }

  putResult({ epoch, bodySha256, late, answer, outputs, statements }: StoredResult): void {
    this.#sql.exec(
      "INSERT INTO results (epoch, body_sha256, late, answer, outputs, statements) VALUES (?, ?, ?, ?, ?, ?)",
      epoch,
      bodySha256,
      late ? 1 : 0,
      JSON.stringify(answer),
      JSON.stringify(outputs),
      JSON.stringify(statements),
    );
  }

  /** What the broker signed about a job, or null. */
  verdict(job: Job): StoredVerdict | null {
    const row = this.#first<{ verdict: string; summary: string; equivocations: string }>(
      "SELECT verdict, summary, equivocations FROM verdicts WHERE created_at = ?",
      job.createdAt,
    );
    if (row === null) return null;
    return {
      verdict: JSON.parse(row.verdict) as VerdictView,
      summary: JSON.parse(row.summary) as WireEnvelope,
      equivocations: JSON.parse(row.equivocations) as EquivocationView[],
    };
  }

  putVerdict(job: Job, { verdict, summary, equivocations }: StoredVerdict): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO verdicts (created_at, verdict, summary, equivocations) VALUES (?, ?, ?, ?)",
      job.createdAt,
      JSON.stringify(verdict),
      JSON.stringify(summary),
      JSON.stringify(equivocations),
    );
  }

  #saveLane(lane: Lane): void {
    this.#sql.exec(
      "INSERT INTO lane (id, record) VALUES (0, ?) ON CONFLICT DO UPDATE SET record = excluded.record",
      JSON.stringify(lane),
    );
  }

  #insertJob(job: Job, spec: SubmitBody): void {
    this.#sql.exec(
      "INSERT INTO jobs (created_at, id, final, record, spec) VALUES (?, ?, ?, ?, ?)",
      job.createdAt,
      job.id,
      isFinal(job) ? 1 : 0,
      JSON.stringify(job),
      JSON.stringify(spec),
    );
  }

  #jobs(where: string, ...bindings: (string | number | null)[]): Job[] {
    const rows = this.#sql.exec<{ record: string }>(`SELECT record FROM jobs ${where}`, ...bindings).toArray();
    return rows.map(({ record }) => readJob(record));
  }

  #first<R extends Row>(query: string, ...bindings: (string | number)[]): R | null {
    const [row] = this.#sql.exec<R>(query, ...bindings).toArray();
    return row ?? null;
  }
}
