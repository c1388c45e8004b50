import {
  appendLog,
  appendStandaloneLog,
  type Assignment,
  call,
  type CallAnswer,
  type CallInput,
  type ClientDeps,
  createSession,
  type Endpoint,
  type Envelope,
  type ExecCall,
  findWork,
  type HeartbeatAnswer,
  type HeartbeatBody,
  type JobWork,
  heartbeatRun,
  LIMITS,
  type PollBody,
  pollWork,
  postResult,
  type Problem,
  putRecipient,
  recordStandalone,
  type ResultAnswer,
  type ResultBody,
  type RunnerEventsBody,
  type RunnerOrder,
  reportRunEvents,
  type Signer,
  signSession,
  type StandaloneAnswer,
  type StandaloneBody,
  type WorkAnswer,
} from "@plumule/protocol";
import { bodyOfLog } from "./pack-log.ts";

/** Which run a write belongs to, and the right to write it. */
export type Lease = Pick<Assignment, "namespace" | "deployment" | "run" | "epoch" | "leaseToken">;

/** An answer of the broker, or its problem. `retry` says whether the same request may succeed later. */
export type BrokerAnswer<T> =
  | { ok: true; value: T }
  | { ok: false; retry: boolean; problem: Problem; logSize: number | null };

/** What a runner asks of a broker. Network faults are answers with `retry`, never exceptions. */
export type Broker = {
  /** The pool that the session belongs to; asks for a session when there is none. */
  pool(): Promise<BrokerAnswer<string>>;
  /** Publishes where secrets for this runner are sealed to. */
  publish(recipient: Envelope): Promise<BrokerAnswer<null>>;
  poll(body: PollBody, signal: AbortSignal): Promise<BrokerAnswer<Assignment | null>>;
  heartbeat(
    lease: Lease,
    body: Omit<HeartbeatBody, "epoch">,
    signal?: AbortSignal,
  ): Promise<BrokerAnswer<HeartbeatAnswer>>;
  report(lease: Lease, body: Omit<RunnerEventsBody, "epoch">): Promise<BrokerAnswer<{ number: number }>>;
  /** Adds to a log as many of the bytes as the broker takes at once; the answer says how many it has. */
  appendLog(lease: Lease, offset: number, bytes: Uint8Array): Promise<BrokerAnswer<{ bytes: number }>>;
  result(lease: Lease, body: ResultBody): Promise<BrokerAnswer<ResultAnswer>>;
};

/** What a runner tells a broker about runs that it gave itself, in its own name: no lease gives it the right. */
export type StandaloneCalls = {
  /** The job of the same work in a deployment, if there is one. */
  findWork(deployment: string, work: JobWork): Promise<BrokerAnswer<WorkAnswer["job"]>>;
  recordStandalone(deployment: string, body: StandaloneBody): Promise<BrokerAnswer<StandaloneAnswer>>;
  appendStandaloneLog(
    place: { deployment: string; run: string },
    offset: number,
    bytes: Uint8Array,
  ): Promise<BrokerAnswer<{ bytes: number }>>;
};

/** How long one request may take beyond what it asked to be held, ms. */
const REQUEST_MS = 30_000;
/** A session is renewed this long before its end, so that no poll runs into it, ms. */
const RENEW_EARLY_MS = 60_000;

type Send = <E extends Endpoint>(
  bearer: string | undefined,
  endpoint: E,
  input: CallInput<E>,
  holdMs?: number,
) => Promise<CallAnswer<E>>;
type Session = { token: string; pool: string; endsAt: number };

/** A broker at `baseUrl`, spoken to as the runner that holds `signer`. */
export function connectBroker({
  baseUrl,
  namespace,
  runner,
  signer,
  fetch,
  obey,
  called,
}: {
  baseUrl: string;
  namespace: string;
  runner: string;
  signer: Signer;
  fetch: ClientDeps["fetch"];
  /** Told of each order of the broker, once. Without it the broker gives none. */
  obey?: (order: RunnerOrder) => void;
  /** Told when somebody waits for it in a session. */
  called?: (call: ExecCall) => void;
}): Broker & StandaloneCalls {
  let seenOrder = 0;
  const send: Send = async (bearer, endpoint, input, holdMs = 0) => {
    const timeout = AbortSignal.timeout(holdMs + REQUEST_MS);
    const signal = input.signal === undefined ? timeout : AbortSignal.any([timeout, input.signal]);
    try {
      return await call({ fetch, baseUrl, bearer }, endpoint, { ...input, signal });
    } catch (error) {
      return unreachable(error);
    }
  };
  const session = keepSession(send, { baseUrl, namespace, runner, signer });
  return {
    async pool() {
      const begun = await session.get();
      return begun.ok ? { ok: true, value: begun.value.pool } : begun;
    },
    async publish(recipient) {
      const begun = await session.get();
      if (!begun.ok) return begun;
      const answer = await send(begun.value.token, putRecipient, {
        params: { ns: namespace, runner },
        body: { recipient },
      });
      return answer.ok ? { ok: true, value: null } : failed(answer);
    },
    async poll(asked, signal) {
      const body = obey === undefined ? asked : { ...asked, seenOrder };
      const begun = await session.get();
      if (!begun.ok) return begun;
      const answer = await send(
        begun.value.token,
        pollWork,
        { params: { ns: namespace }, body, signal },
        body.waitMs ?? 0,
      );
      // A broker that forgot the session (revoked, or another installation) gets a new one at the next poll.
      if (!answer.ok && answer.status === 401) session.forget();
      if (!answer.ok) return failed(answer, answer.status === 401 || mayPass(answer));
      if (answer.answer.status !== 202) return { ok: true, value: answer.answer.body };
      const word = answer.answer.body;
      if ("exec" in word) called?.(word);
      else {
        seenOrder = word.number;
        obey?.(word);
      }
      return { ok: true, value: null };
    },
    ...leaseCalls(send),
    ...standaloneCalls(send, session, namespace),
  };
}

/** The session's bearer, asked for again when it is about to end. */
function keepSession(
  send: Send,
  { baseUrl, namespace, runner, signer }: { baseUrl: string; namespace: string; runner: string; signer: Signer },
): { get(): Promise<BrokerAnswer<Session>>; forget(): void } {
  const ownAudience = `${baseUrl}/v1/${namespace}`;
  let session: Session | null = null;
  let asking: Promise<BrokerAnswer<Session>> | null = null;
  const ask = async (): Promise<BrokerAnswer<Session>> => {
    const asked = await send(undefined, createSession, { params: { ns: namespace }, body: { runner } });
    if (!asked.ok) return failed(asked);
    if (asked.answer.status !== 200) return failed(unreachable("the broker answered a session without a challenge"));
    const { audience, challenge } = asked.answer.body;
    // A broker that passed on the challenge of another one would get a session there with this signature.
    if (audience !== ownAudience)
      return failed(unreachable(`the broker calls itself ${audience}, but is polled as ${ownAudience}`));
    const proof = await signSession({ audience, challenge }, signer);
    const begun = await send(undefined, createSession, { params: { ns: namespace }, body: { runner, proof } });
    if (!begun.ok) return failed(begun);
    if (begun.answer.status !== 201) return failed(unreachable("the broker answered a proof with another challenge"));
    // The life of the session is measured here: this clock and the broker's need not agree.
    const date = begun.headers.get("date");
    const lifeMs = date === null ? LIMITS.sessionMs : Date.parse(begun.answer.body.expiresAt) - Date.parse(date);
    session = { token: begun.answer.body.token, pool: begun.answer.body.pool, endsAt: performance.now() + lifeMs };
    return { ok: true, value: session };
  };
  return {
    forget: () => {
      session = null;
    },
    get() {
      if (session !== null && session.endsAt - RENEW_EARLY_MS > performance.now())
        return Promise.resolve({ ok: true, value: session });
      // One at a time: a challenge serves once, and two who ask at the same moment get the same one.
      asking ??= ask().finally(() => {
        asking = null;
      });
      return asking;
    },
  };
}

/** The writes of a run, which need its lease alone. */
function leaseCalls(send: Send): Omit<Broker, "pool" | "publish" | "poll"> {
  /** Whether the broker takes logs as version 1 did alone: it was rolled back. */
  let isOld = false;
  const target = (lease: Lease): { ns: string; deployment: string; run: string } => ({
    ns: lease.namespace,
    deployment: lease.deployment,
    run: lease.run,
  });
  return {
    async heartbeat(lease, body, signal) {
      const answer = await send(
        lease.leaseToken,
        heartbeatRun,
        { params: target(lease), body: { epoch: lease.epoch, ...body }, ...(signal === undefined ? {} : { signal }) },
        body.waitMs ?? 0,
      );
      return answer.ok ? { ok: true, value: answer.answer.body } : failed(answer);
    },
    async report(lease, body) {
      const answer = await send(lease.leaseToken, reportRunEvents, {
        params: target(lease),
        body: { epoch: lease.epoch, ...body },
      });
      return answer.ok ? { ok: true, value: answer.answer.body } : failed(answer);
    },
    async appendLog(lease, offset, bytes) {
      const put = (body: Uint8Array, headers: Record<string, string> = {}): Promise<CallAnswer<typeof appendLog>> =>
        send(lease.leaseToken, appendLog, {
          params: target(lease),
          query: { offset, epoch: lease.epoch },
          body,
          headers,
        });
      const taken = (answer: CallAnswer<typeof appendLog>): BrokerAnswer<{ bytes: number }> =>
        answer.ok ? { ok: true, value: answer.answer.body } : failed(answer);
      if (!isOld) {
        const { body, isPacked } = bodyOfLog(bytes);
        const answer = await put(body, isPacked ? { "content-encoding": "zstd" } : {});
        isOld = !answer.ok && (answer.status === 415 || answer.status === 413);
        if (!isOld) return taken(answer);
      }
      return taken(await put(bytes.subarray(0, LIMITS.logChunkBytes)));
    },
    async result(lease, body) {
      const answer = await send(lease.leaseToken, postResult, { params: target(lease), body });
      return answer.ok ? { ok: true, value: answer.answer.body } : failed(answer);
    },
  };
}

function standaloneCalls(send: Send, session: ReturnType<typeof keepSession>, ns: string): StandaloneCalls {
  const asRunner: Send = async (_, endpoint, input) => {
    const begun = await session.get();
    if (!begun.ok)
      return {
        ok: false,
        status: begun.retry ? 0 : begun.problem.status,
        headers: new Headers(),
        problem: begun.problem,
      };
    const answer = await send(begun.value.token, endpoint, input);
    if (!answer.ok && answer.status === 401) session.forget();
    return answer;
  };
  // A session that the broker forgot is asked for anew at the next attempt.
  const isPassing = (answer: Failure): boolean => answer.status === 401 || mayPass(answer);
  return {
    async findWork(deployment, { configurationSha256, ...work }) {
      const query = { ...work, ...(configurationSha256 === null ? {} : { configurationSha256 }) };
      const answer = await asRunner(undefined, findWork, { params: { ns, deployment }, query });
      return answer.ok ? { ok: true, value: answer.answer.body.job } : failed(answer, isPassing(answer));
    },
    async recordStandalone(deployment, body) {
      const answer = await asRunner(undefined, recordStandalone, { params: { ns, deployment }, body });
      return answer.ok ? { ok: true, value: answer.answer.body } : failed(answer, isPassing(answer));
    },
    async appendStandaloneLog(place, offset, bytes) {
      const input = { params: { ns, ...place }, query: { offset }, body: bytes };
      const answer = await asRunner(undefined, appendStandaloneLog, input);
      return answer.ok ? { ok: true, value: answer.answer.body } : failed(answer, isPassing(answer));
    },
  };
}

type Failure = Extract<CallAnswer<Endpoint>, { ok: false }>;

function unreachable(error: unknown): Failure {
  const detail =
    error instanceof Error
      ? `${error.message}${error.cause instanceof Error ? `: ${error.cause.message}` : ""}`
      : String(error);
  return {
    ok: false,
    status: 0,
    headers: new Headers(),
    problem: {
      type: "about:blank",
      title: "The broker cannot be reached",
      status: 0,
      code: "unavailable",
      detail,
      next: "Check the broker's URL and the network; the runner tries again by itself.",
    },
  };
}

/** A proxy's error page (status 502 here, even when it came with 200), a fault and a full queue may pass; a refusal will not. */
function mayPass({ status }: Failure): boolean {
  return status === 0 || status >= 500 || status === 429 || status === 408;
}

function failed(answer: Failure, retry: boolean = mayPass(answer)): Extract<BrokerAnswer<never>, { ok: false }> {
  const size = answer.headers.get("plumule-log-size");
  return { ok: false, retry, problem: answer.problem, logSize: size === null ? null : Number(size) };
}
