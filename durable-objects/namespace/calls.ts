import type {
  AuditItem,
  AuthorizerBody,
  AuthorizerView,
  DeliveryView,
  DeploymentId,
  DrainBody,
  DeploymentView,
  Event,
  EventsPage,
  JobId,
  JobSecret,
  JobState,
  JobView,
  LockName,
  LockView,
  LockWait,
  Login,
  MembersBody,
  MembersView,
  NamespaceView,
  PoolName,
  Principal,
  Refusal,
  RegistrationToken,
  RunnerId,
  RunnerView,
  RunId,
  Scope,
  SecretBody,
  SecretView,
  TokenBody,
  TokenCreated,
  TokenView,
  TriggersBody,
  TriggersTest,
  TriggersView,
  TrustBasis,
  TrustPolicy,
  WireEnvelope,
  WsTicket,
} from "@plumule/protocol";
import type { Actor } from "../deployment/calls.ts";

/** A page and where the next one starts. */
export type Page<T> = { items: T[]; nextCursor: string | null };

/** One webhook as it came: raw bytes and lower-case header names. Nothing of it is believed yet. */
export type RawHook = { hook: string | null; headers: Record<string, string>; body: Uint8Array; audience: string };

/**
 * What a Deployment tells its namespace: the views of what changed and the events since the last batch. `through` is the sequence of the last event; the
 * namespace remembers it per deployment, so that a repeated batch changes nothing.
 */
export type PublishCall = {
  deployment: DeploymentView;
  removed: boolean;
  jobs: JobView[];
  events: Event[];
  after: number;
  through: number;
  /** For the audit log, told once each; a batch may be about nothing else. */
  fenced?: FencedWrite[];
};

/** A write with the token of a lease that had been taken away: what a runner sent that was thought lost, or whose job was stopped. */
export type FencedWrite = { id: string; run: RunId; runner: RunnerId; epoch: number; write: string };

/** What a namespace answers to it. `judge`: ended jobs about whose results the trust policy has a rule, so that the broker signs its verdict. */
export type Published = { through: number; judge?: JobId[] };

/**
 * What a Deployment says of its jobs' locks: what it gives back, of each job up to a number, and what the job wants whose turn it is. Sent until it was
 * answered; said twice it changes nothing.
 */
export type LocksCall = {
  deployment: DeploymentId;
  released: { job: JobId; number: number }[];
  wanted: { job: JobId; number: number; locks: LockName[] } | null;
};

/** How what is wanted stands. `wait` null: the job holds all of its locks. `number` is that of the request which is meant. */
export type LockAnswer = { number: number; wait: LockWait | null };

/** Who was let into the workspace of a run, or has left it, for the audit log. */
export type ExecNote = {
  action: "exec.opened" | "exec.closed";
  actor: string;
  deployment: DeploymentId;
  run: RunId;
  requestId: string;
  detail: string;
};

/** What the edge and the other objects may ask of a Namespace. Refusals are values. */
export type NamespaceCalls = {
  // Installation (the directory object) and existence
  createNamespace(call: { id: string }): Promise<{ created: boolean; namespace: NamespaceView }>;
  listNamespaces(call: { cursor: string | null; limit: number }): Promise<Page<NamespaceView> | Refusal>;
  /** The did:key that the broker signs with; null as long as there is none. `make`: then make it, for somebody who was let in. */
  brokerKey(call: { make: boolean }): Promise<string | null>;
  /** From a Deployment: signs what the broker says in its own name. */
  signAsBroker(call: { payloadType: string; payload: Uint8Array }): Promise<WireEnvelope>;
  /** Makes this object a namespace; idempotent. Everything else refuses `not-found` before it. */
  open(call: { id: string }): Promise<NamespaceView>;
  /** Whether this namespace was opened; the admin token, which no namespace knows, is checked with it. */
  isOpen(): Promise<boolean>;

  // Who is calling: a token, a login, or a runner's session. `until`: how long the edge may cache it (ms epoch).
  authenticate(call: { credential: string }): Promise<{ principal: Principal; until: number } | Refusal>;
  /** Admits a watcher of a deployment, or of the namespace (null). A ticket is used up by it. `until`: when it has to be admitted anew (ms epoch). */
  admit(call: {
    show: { credential: string } | { ticket: string; origin: string | null };
    deployment: DeploymentId | null;
  }): Promise<{ principal: Principal; until: number } | Refusal>;
  /** What an edge of protocol 1 asks instead of `admit`, while a deploy is under way. */
  redeemTicket(call: { ticket: string; origin: string | null }): Promise<Principal | Refusal>;
  createTicket(call: {
    actor: Actor;
    scopes: readonly Scope[];
    deployments?: readonly string[] | undefined;
    origin: string | null;
  }): Promise<WsTicket | Refusal>;
  createToken(call: { requestId?: string | undefined; actor: Actor; body: TokenBody }): Promise<TokenCreated | Refusal>;
  listTokens(): Promise<TokenView[] | Refusal>;
  revokeToken(call: { requestId?: string | undefined; actor: Actor; id: string }): Promise<true | Refusal>;
  getMembers(): Promise<MembersView | Refusal>;
  putMembers(call: {
    requestId?: string | undefined;
    actor: Actor;
    body: MembersBody;
    ifMatch: string | null;
  }): Promise<MembersView | Refusal>;
  createLoginChallenge(call: {
    key: string;
    audience: string;
  }): Promise<{ challenge: string; audience: string; expiresAt: string } | Refusal>;
  createLogin(call: {
    requestId?: string | undefined;
    key: string;
    proof: WireEnvelope;
    audience: string;
  }): Promise<Login | Refusal>;
  endLogin(call: { requestId?: string | undefined; credential: string }): Promise<true | Refusal>;
  getAuthorizer(): Promise<AuthorizerView | Refusal>;
  putAuthorizer(call: {
    actor: Actor;
    body: AuthorizerBody;
    ifMatch: string | null;
  }): Promise<AuthorizerView | Refusal>;
  /** Whether somebody whom the panel named may do this. A job is in one deployment, which is looked up. */
  mayAct(call: {
    actor: Actor;
    action: string;
    about: { deployment: DeploymentId } | { job: JobId } | null;
  }): Promise<boolean>;

  // Runners
  createRegistration(call: {
    requestId?: string | undefined;
    actor: Actor;
    pool: PoolName;
  }): Promise<RegistrationToken | Refusal>;
  registerRunner(call: {
    requestId?: string | undefined;
    token: string;
    name: string;
    proof: WireEnvelope;
    audience: string;
  }): Promise<RunnerView | Refusal>;
  createChallenge(call: {
    runner: RunnerId;
    audience: string;
  }): Promise<{ challenge: string; audience: string; expiresAt: string } | Refusal>;
  createSession(call: {
    runner: RunnerId;
    proof: WireEnvelope;
    audience: string;
  }): Promise<{ token: string; pool: PoolName; expiresAt: string } | Refusal>;
  /** From a Deployment. Rejects for a namespace that was not opened. */
  noteExec(call: ExecNote): Promise<void>;
  /** The fleet, joined with what the pools see now. */
  listRunners(call: { cursor: string | null; limit: number }): Promise<Page<RunnerView> | Refusal>;
  drainRunner(call: {
    requestId?: string | undefined;
    actor: Actor;
    runner: RunnerId;
    drained: boolean;
    /** How it is to be drained; older edges do not say. */
    how?: DrainBody;
  }): Promise<RunnerView | Refusal>;
  revokeRunner(call: { requestId?: string | undefined; actor: Actor; runner: RunnerId }): Promise<RunnerView | Refusal>;

  /** Keeps where secrets for a runner are sealed to. The edge has checked that the runner itself asks; its signature is checked here. */
  putRecipient(call: {
    requestId?: string | undefined;
    runner: RunnerId;
    recipient: WireEnvelope;
  }): Promise<true | Refusal>;

  // Secrets: boxes that nobody here can open
  listSecrets(): Promise<SecretView[] | Refusal>;
  putSecret(call: {
    requestId?: string | undefined;
    actor: Actor;
    name: string;
    body: SecretBody;
  }): Promise<SecretView | Refusal>;
  removeSecret(call: { requestId?: string | undefined; actor: Actor; name: string }): Promise<true | Refusal>;
  /** Fills the boxes of stored secrets into those that a job names; pointers of a refusal are into the job's body. */
  fillSecrets(call: { secrets: readonly JobSecret[] }): Promise<JobSecret[] | Refusal>;

  // Settings; `ifMatch` null means the header was missing
  getTrust(): Promise<TrustPolicy | Refusal>;
  putTrust(call: {
    requestId?: string | undefined;
    actor: Actor;
    policy: TrustPolicy;
    ifMatch: string | null;
  }): Promise<TrustPolicy | Refusal>;
  /** From a Deployment: whom this namespace trusts now, and which of the given runners, where nobody put a policy. */
  trustBasis(call: { runners: RunnerId[] }): Promise<TrustBasis>;
  getTriggers(): Promise<TriggersView | Refusal>;
  putTriggers(call: {
    requestId?: string | undefined;
    actor: Actor;
    body: TriggersBody;
    ifMatch: string | null;
  }): Promise<TriggersView | Refusal>;

  /** The audit log, oldest rows first. */
  listAudit(call: { cursor: string | null; limit: number }): Promise<Page<AuditItem> | Refusal>;

  // Locks
  /** From a Deployment. Null when it wants nothing. */
  settleLocks(call: LocksCall): Promise<LockAnswer | null>;
  listLocks(call: { cursor: string | null; limit: number }): Promise<Page<LockView> | Refusal>;

  // Webhooks
  testTriggers(call: { event: Record<string, unknown>; audience: string }): Promise<TriggersTest | Refusal>;
  receiveHook(call: RawHook): Promise<{ status: 200 | 202; delivery: DeliveryView } | Refusal>;
  listDeliveries(call: { cursor: string | null; limit: number }): Promise<Page<DeliveryView> | Refusal>;
  redeliver(call: { actor: Actor; id: string }): Promise<DeliveryView | Refusal>;

  // Index and feed
  publish(call: PublishCall): Promise<Published>;
  /** Which deployment a job belongs to. A young job that is not indexed yet is waited for, at most 2 s. */
  locate(job: JobId): Promise<DeploymentId | null>;
  listDeployments(call: {
    state: string | null;
    prefix: string | null;
    cursor: string | null;
    limit: number;
  }): Promise<Page<DeploymentView> | Refusal>;
  listJobs(call: {
    state: JobState | null;
    deployment: DeploymentId | null;
    commit: string | null;
    cursor: string | null;
    limit: number;
  }): Promise<Page<JobView> | Refusal>;
  history(call: { since: string | null; limit: number; waitMs: number }): Promise<EventsPage | Refusal>;
  /** WebSocket upgrades only; the edge has authenticated the caller. */
  fetch(request: Request): Promise<Response>;
};
