import type {
  Assignment,
  CancelAnswer,
  CancelBody,
  DeleteBody,
  DeploymentSnapshot,
  DeploymentView,
  Envelope,
  Derivation,
  EventsPage,
  ExecBody,
  ExecSession,
  HeartbeatAnswer,
  HeartbeatBody,
  JobDetail,
  JobId,
  JobMatch,
  JobView,
  JobWork,
  Offer,
  Refusal,
  ResultAnswer,
  ResultBody,
  RunId,
  RunnerEventsBody,
  RunnerId,
  RunView,
  StandaloneAnswer,
  StandaloneBody,
  Stranger,
  SubmitAnswer,
  SubmitBody,
  Waiting,
  WireEnvelope,
  WorkAnswer,
} from "@plumule/protocol";

/** Who acts: shown in events. `token:<id>`, a did:key, `hook:<id>` or `admin`. */
export type Actor = string;

/** How a request protects itself: an idempotency key with the hash of its body, and the revision that it expects. */
export type Guard = { idempotencyKey: string | null; bodySha256: string; ifMatch: string | null };

/** What a pool asks for when it hands a ticket to a runner. The same `requestKey` gets the same lease. */
export type ClaimCall = { job: JobId; runner: RunnerId; offer: Offer; requestKey: string; ticket: number };

/** A slice of a log: raw bytes from `offset`, with where the log stands. */
export type LogSlice = { bytes: Uint8Array; offset: number; size: number; complete: boolean; sha256: string | null };

/**
 * What the edge and the other objects may ask of a Deployment. Every method answers a refusal as a value. Bodies are parsed at the edge;
 * the object trusts their shape, never their claims (lease token, epoch, signature are checked here).
 */
export type DeploymentCalls = {
  /** `stranger` comes from trigger rules alone, never from a request. */
  submit(call: {
    actor: Actor;
    body: SubmitBody;
    guard: Guard;
    dryRun: boolean;
    stranger?: Stranger | null;
  }): Promise<SubmitAnswer | Refusal>;
  read(): Promise<DeploymentSnapshot | Refusal>;
  remove(call: { actor: Actor; body: DeleteBody; guard: Guard }): Promise<SubmitAnswer | DeploymentView | Refusal>;
  cancelAll(call: { actor: Actor; body: CancelBody; guard: Guard }): Promise<CancelAnswer | Refusal>;
  cancelJob(call: { actor: Actor; job: JobId; body: CancelBody; guard: Guard }): Promise<CancelAnswer | Refusal>;
  approve(call: {
    actor: Actor;
    job: JobId;
    commit: string | null;
    /** Signed by a delegate, for this broker and namespace (`audience`). */
    approval?: { envelope: Envelope; audience: string };
    /** SHA-256 of the plan that is approved, for a job that has made one. */
    plan?: string;
  }): Promise<JobView | Refusal>;
  resolve(call: {
    actor: Actor;
    job: JobId;
    outcome: "succeeded" | "failed" | "cancelled";
    reason: string | null;
  }): Promise<JobView | Refusal>;
  /** Pauses or resumes the schedules of a name. */
  setSchedule(call: { actor: Actor; name: string; paused: boolean }): Promise<DeploymentView | Refusal>;
  rerun(call: { actor: Actor; job: JobId; guard: Guard }): Promise<SubmitAnswer | Refusal>;
  job(id: JobId): Promise<JobDetail | Refusal>;
  /** Why the job and the runners of the namespace, or one of them, do not meet: the nearest `limit`. */
  match(call: { job: JobId; runner: RunnerId | null; limit: number }): Promise<JobMatch | Refusal>;
  run(id: RunId): Promise<RunView | Refusal>;
  derivations(job: JobId): Promise<{ nodes: Derivation[]; edges: [string, string][] } | Refusal>;
  statements(job: JobId): Promise<WireEnvelope[] | Refusal>;
  readLog(call: { run: RunId; offset: number; limit: number }): Promise<LogSlice | Refusal>;
  /** Lets somebody into the workspace of a run, where the owner of its runner allows it. Both ends then come to `fetch`. */
  openExec(call: { actor: Actor; requestId: string; run: RunId; body: ExecBody }): Promise<ExecSession | Refusal>;
  /** Waits at most `waitMs` for events after `since`; without `since` from the start of what is kept. */
  history(call: { since: string | null; limit: number; waitMs: number }): Promise<EventsPage | Refusal>;
  /** From the Pool, for a ticket that it matched. Null: the ticket is stale, drop it. */
  claim(call: ClaimCall): Promise<Assignment | null>;
  /** From the Pool, when the reason why a ticket waits has changed. */
  waiting(call: { changes: { job: JobId; waiting: Waiting }[] }): Promise<void>;
  heartbeat(call: { run: RunId; leaseToken: string; body: HeartbeatBody }): Promise<HeartbeatAnswer | Refusal>;
  report(call: { run: RunId; leaseToken: string; body: RunnerEventsBody }): Promise<{ number: number } | Refusal>;
  /** `packed` are the bytes as they came, packed with zstd: an object of older code has to fail on them rather than to store them as they are. */
  appendLog(
    call: { run: RunId; leaseToken: string; epoch: number; offset: number } & (
      | { bytes: Uint8Array }
      | { packed: Uint8Array }
    ),
  ): Promise<{ bytes: number } | Refusal>;
  result(call: { run: RunId; leaseToken: string; body: ResultBody }): Promise<ResultAnswer | Refusal>;
  /** The job that stands for some work, for a runner that would do it by itself. */
  findWork(call: { work: JobWork }): Promise<WorkAnswer | Refusal>;
  /** A run that its runner gave itself; `runner` is who sends it. */
  recordStandalone(call: { runner: RunnerId; body: StandaloneBody }): Promise<StandaloneAnswer | Refusal>;
  appendStandaloneLog(call: {
    run: RunId;
    runner: RunnerId;
    offset: number;
    bytes: Uint8Array;
  }): Promise<{ bytes: number } | Refusal>;
  /** From the Namespace: how a request for the locks of a job stands. False: it is not wanted any more, and never again under this number. */
  locks(call: { job: JobId; number: number; held: boolean }): Promise<boolean>;
  /** From the Namespace: a runner was revoked, so that its leases end. */
  dismiss(call: { actor: Actor; runner: RunnerId }): Promise<void>;
  /** Closes the sockets of a caller whose right has ended. */
  endWatchers(call: { actor: Actor }): Promise<void>;
  /** WebSocket upgrades only; the edge has admitted the caller. */
  fetch(request: Request): Promise<Response>;
};
