import { createHash, randomBytes, randomUUID } from "node:crypto";
import {
  type Assignment,
  call,
  type CallInput,
  createNamespace,
  createRegistration,
  createSession,
  createTicket,
  createToken,
  didKeyOf,
  draftJobResult,
  type Endpoint,
  type HeartbeatAnswer,
  isolationSchema,
  type Offer,
  type Outcome,
  PROTOCOL_VERSION,
  registerRunner,
  type ResultBody,
  type Signer,
  signEnvelope,
  signerFromSeed,
  signRegistration,
  signSession,
  STATEMENT_PAYLOAD_TYPE,
  STREAM_SUBPROTOCOL,
  type SubmitAnswer,
} from "@plumule/protocol";
import { type Http, openHttp } from "./http.ts";
import { type Listening, listen } from "./socket.ts";

const NAMESPACE = "bench";
const ISOLATION = isolationSchema.enum["process-group"];
const EMPTY_SHA256 = createHash("sha256").digest("hex");
const OFFER: Offer = {
  name: "bench",
  systems: ["x86_64-linux"],
  features: [],
  labels: [],
  isolation: ISOLATION,
  version: "bench",
  capacity: 1,
};

/** A job that does nothing, about 200 bytes as people send it. */
export const JOB = {
  task: { kind: "shell", script: "true" },
  summary: "A job of the bench, which no runner ever executes; it is as long as a short real one.",
} as const;

/** A broker as one submitter and one runner see it, spoken to by the wire. Nothing is executed: what is measured is the broker. */
export type Broker = {
  http: Http;
  submit(deployment: string): Promise<SubmitAnswer>;
  /** Holds a poll until there is work. */
  poll(): Promise<Assignment>;
  /** A poll that finds nothing. */
  pollInVain(waitMs: number): Promise<void>;
  heartbeat(assignment: Assignment, waitMs?: number): Promise<HeartbeatAnswer>;
  finish(assignment: Assignment, outcome?: Outcome): Promise<void>;
  cancel(job: string): Promise<void>;
  ticketCount(): Promise<number>;
  /** A socket that is subscribed to a deployment and has caught up. */
  watch(deployment: string): Promise<Listening>;
  /** Begins a session; `openBroker` has begun one already. */
  beginSession(): Promise<void>;
};

/** Opens a namespace with a token, a runner and its session. */
export async function openBroker(url: string, adminToken: string): Promise<Broker> {
  const ask = async <E extends Endpoint>(endpoint: E, bearer: string | undefined, input: CallInput<E>) => {
    const answered = await call({ fetch, baseUrl: url, bearer }, endpoint, input);
    if (!answered.ok) throw new Error(`${endpoint.name}: ${answered.problem.detail}`);
    return answered.answer;
  };
  const params = { ns: NAMESPACE };
  await ask(createNamespace, adminToken, { params: {}, body: { id: NAMESPACE } });
  const token = await ask(createToken, adminToken, { params, body: { name: "bench", scopes: ["operate"] } });
  const submitter = token.body.token;
  const signer = await signerFromSeed(randomBytes(32));
  const runner = didKeyOf(signer.publicKey);
  const registration = (await ask(createRegistration, adminToken, { params, body: {} })).body.token;
  const proof = await signRegistration(
    {
      audience: `${url}/v1/${NAMESPACE}`,
      tokenSha256: createHash("sha256").update(registration).digest("hex"),
      issuedAt: new Date().toISOString(),
    },
    signer,
  );
  await ask(registerRunner, undefined, { params, body: { token: registration, name: "bench", proof } });

  let session = { token: "", pool: "" };
  const beginSession = async (): Promise<void> => {
    const asked = await ask(createSession, undefined, { params, body: { runner } });
    if (asked.status !== 200) throw new Error("a session without a challenge");
    const answer = await signSession(asked.body, signer);
    const begun = await ask(createSession, undefined, { params, body: { runner, proof: answer } });
    if (begun.status !== 201) throw new Error("a proof was answered with another challenge");
    session = begun.body;
  };
  await beginSession();

  const http = openHttp(url);
  const poll = (waitMs: number) =>
    http.send<Assignment | null>("POST", `/v1/${NAMESPACE}/poll`, {
      bearer: session.token,
      body: { requestKey: randomUUID(), protocol: PROTOCOL_VERSION, pool: session.pool, offer: OFFER, busy: 0, waitMs },
    });
  const runPath = ({ deployment, run }: Assignment): string => `/v1/${NAMESPACE}/deployments/${deployment}/runs/${run}`;
  return {
    http,
    beginSession,
    submit: (deployment) =>
      http.send("POST", `/v1/${NAMESPACE}/deployments/${deployment}/jobs`, {
        bearer: submitter,
        headers: { "idempotency-key": randomUUID() },
        body: JOB,
      }),
    async poll() {
      const assignment = await poll(25_000);
      if (assignment === null) throw new Error("a poll that should get a job got none");
      return assignment;
    },
    async pollInVain(waitMs) {
      if ((await poll(waitMs)) !== null) throw new Error("a poll that should get nothing got a job");
    },
    heartbeat: (assignment, waitMs) =>
      http.send("POST", `${runPath(assignment)}/heartbeat`, {
        bearer: assignment.leaseToken,
        body:
          waitMs === undefined
            ? { epoch: assignment.epoch, isolation: ISOLATION }
            : { epoch: assignment.epoch, waitMs },
      }),
    async finish(assignment, outcome = "succeeded") {
      const body = await resultOf(assignment, outcome, signer);
      await http.send("POST", `${runPath(assignment)}/result`, { bearer: assignment.leaseToken, body });
    },
    async cancel(job) {
      await http.send("POST", `/v1/${NAMESPACE}/jobs/${job}/cancel`, { bearer: submitter, body: {} });
    },
    async ticketCount() {
      const queue = await http.send<{ ticketCount: number }>("GET", `/v1/${NAMESPACE}/queue`, { bearer: submitter });
      return queue.ticketCount;
    },
    async watch(deployment) {
      const { ticket } = (await ask(createTicket, submitter, { params })).body;
      const watching = await listen(`${url}/v1/${NAMESPACE}/deployments/${deployment}/stream`, [
        STREAM_SUBPROTOCOL,
        `ticket.${ticket}`,
      ]);
      watching.send({ op: "subscribe", id: "bench" });
      await watching.next((frame) => (frame as { op: string }).op === "live");
      return watching;
    },
  };
}

/** The result of a run that did nothing, with the events and the empty end of a log that a real runner sends along. */
async function resultOf(assignment: Assignment, outcome: Outcome, signer: Signer): Promise<ResultBody> {
  const at = new Date().toISOString();
  const { namespace, deployment, job, run, epoch, taskSha256, configurationSha256, spec } = assignment;
  const reason = outcome === "cancelled" ? ({ code: "cancelled", detail: "The bench cancelled it." } as const) : null;
  const log = { bytes: 0, sha256: EMPTY_SHA256, truncated: false };
  const draft = draftJobResult({
    source: null,
    namespace,
    deployment,
    job,
    run,
    epoch,
    taskSha256,
    configurationSha256,
    outputs: [],
    log,
    reason,
    kind: spec.task.kind,
    result: outcome,
    exitCode: outcome === "succeeded" ? 0 : null,
    startedAt: at,
    finishedAt: at,
    runner: { did: didKeyOf(signer.publicKey), version: "bench", isolation: ISOLATION, system: "x86_64-linux" },
  });
  if (!draft.ok) throw new Error(draft.detail);
  return {
    epoch,
    outcome,
    exitCode: outcome === "succeeded" ? 0 : null,
    reason,
    finishedAt: at,
    isolation: ISOLATION,
    survivorsKilled: 0,
    log,
    logTail: { offset: 0, base64: "" },
    outputs: [],
    statements: [await signEnvelope(STATEMENT_PAYLOAD_TYPE, draft.value.bytes, signer)],
    events: {
      number: 1,
      events: [
        { type: "phase", phase: "setup", at },
        { type: "phase", phase: "signing", at },
      ],
    },
  };
}
