import {
  CLOSE_CODES,
  EXEC_SUBPROTOCOL,
  type ExecBody,
  type ExecCall,
  type ExecPersonFrame,
  type ExecSession,
  type ExecSide,
  formatTime,
  isRefusal,
  LIMITS,
  type Millis,
  type PoolName,
  readExecFrame,
  refuse,
  type Refusal,
  type RunId,
  type RunnerId,
} from "@plumule/protocol";
import type { ExecNote } from "../namespace/calls.ts";
import { turnAway } from "../shared/handshake.ts";
import { within } from "../shared/within.ts";
import type { Answers } from "./answers.ts";
import { poolOf } from "./core/model.ts";
import { digestToken, mintToken } from "./pools.ts";

const SIDES: readonly ExecSide[] = ["person", "runner"];
const OTHER = { person: "runner", runner: "person" } as const;
const SPOKEN = { "Sec-WebSocket-Protocol": EXEC_SUBPROTOCOL };
/** A pool or namespace that does not answer within this is away, ms. */
const CALL_MS = 5_000;
/** How often the end of a session is told to a namespace that is away. */
const TELL_COUNT = 5;

/** A session between a person and a runner. In memory only: with this instance it ends, and both ends see that. */
type Session = {
  id: string;
  run: RunId;
  runner: RunnerId;
  actor: string;
  requestId: string;
  /** Digests of what each end shows. */
  tokens: Record<ExecSide, string>;
  sockets: Partial<Record<ExecSide, WebSocket>>;
  /** Bytes that a side has sent and the other has not confirmed. */
  unconfirmed: Record<ExecSide, number>;
  openedAt: Millis;
  /** What the command ended with, once its runner has said it. */
  exit: string | null;
  timer: ReturnType<typeof setTimeout> | null;
};

/** What relaying sessions needs of the object. */
export type ExecDeps = {
  deployment: string;
  answers: Answers;
  now: () => Millis;
  /** Tells the pool of a runner that somebody waits for it. */
  callIn: (pool: PoolName, call: { runner: RunnerId; call: ExecCall }) => Promise<Refusal | null>;
  /** A row of the audit log. Rejects when the namespace cannot be asked. */
  note: (note: ExecNote) => Promise<void>;
  waitUntil: (work: Promise<unknown>) => void;
};

/** Sessions in which people look into the workspaces of runs: opened here, joined by both ends, relayed and never stored. */
export type Execs = {
  open(call: { actor: string; requestId: string; run: RunId; body: ExecBody }): Promise<ExecSession | Refusal>;
  /** Answers the WebSocket upgrade of either end, whose token shows which one it is. */
  join(request: Request): Promise<Response>;
  /** Ends the sessions of a person whose right has ended, or about the runs of a runner that was revoked. */
  end(of: { actor: string } | { runner: RunnerId }): void;
};

/** Joins the ends of sessions, and ends them. */
type Relay = {
  /** Takes a session on, until its ends come. */
  begin(session: Session): void;
  accept(session: Session, side: ExecSide): Response;
  end(session: Session, why: string, code?: number): void;
};

function createRelay(deps: ExecDeps, sessions: Map<string, Session>): Relay {
  const end = (session: Session, why: string, code: number = CLOSE_CODES.normal): void => {
    if (!sessions.delete(session.id)) return;
    clearTimeout(session.timer);
    for (const side of SIDES) session.sockets[side]?.close(code, why.slice(0, 100));
    const { run, actor, requestId, openedAt } = session;
    const seconds = Math.round((deps.now() - openedAt) / 1_000);
    const detail = `${session.exit ?? why}, after ${seconds} s`;
    const { deployment } = deps;
    deps.waitUntil(tell(deps, { action: "exec.closed", actor, deployment, run, requestId, detail }));
  };
  /** The one timer of a session: until both ends are there, then for silence, and never beyond the whole time. */
  const wait = (session: Session): void => {
    clearTimeout(session.timer);
    const sinceMs = deps.now() - session.openedAt;
    const isJoined = SIDES.every((side) => session.sockets[side] !== undefined);
    const silenceMs = isJoined ? LIMITS.execIdleMs : LIMITS.execJoinMs - sinceMs;
    const leftMs = LIMITS.execTotalMs - sinceMs;
    const silent = isJoined ? "nothing was said for too long" : "one of its ends did not come";
    const why = leftMs < silenceMs ? "its time was over" : silent;
    session.timer = setTimeout(() => end(session, why), Math.max(0, Math.min(leftMs, silenceMs)));
  };
  const relay = (session: Session, side: ExecSide, data: string | ArrayBuffer): void => {
    const frame = readExecFrame(side, data);
    if ("fault" in frame) return end(session, `the ${side} sent ${frame.fault}`, CLOSE_CODES.badFrame);
    const { unconfirmed } = session;
    if ("payload" in frame) unconfirmed[side] += frame.payload.length;
    else if (frame.op === "ack") unconfirmed[OTHER[side]] = Math.max(0, unconfirmed[OTHER[side]] - frame.bytes);
    else if (frame.op === "exit") session.exit = `ended with ${frame.code}`;
    else if (frame.op === "refused") session.exit = `refused: ${frame.detail}`;
    if (unconfirmed[side] > LIMITS.execWindowBytes)
      return end(session, `the ${side} sent more than was confirmed`, CLOSE_CODES.tooSlow);
    wait(session);
    session.sockets[OTHER[side]]?.send(data);
  };
  const accept = (session: Session, side: ExecSide): Response => {
    const { 0: client, 1: server } = new WebSocketPair();
    server.accept();
    server.binaryType = "arraybuffer";
    session.sockets[side] = server;
    wait(session);
    server.addEventListener("message", ({ data }) => relay(session, side, data as string | ArrayBuffer));
    const left = (): void => end(session, side === "person" ? "the person left" : "the runner left");
    server.addEventListener("close", left);
    server.addEventListener("error", left);
    // What is said to somebody who is not there yet would be lost.
    if (SIDES.every((one) => session.sockets[one] !== undefined))
      session.sockets.runner?.send(JSON.stringify({ op: "begin" } satisfies ExecPersonFrame));
    return new Response(null, { status: 101, webSocket: client, headers: SPOKEN });
  };
  const begin = (session: Session): void => {
    sessions.set(session.id, session);
    wait(session);
  };
  return { begin, accept, end };
}

/** Makes the sessions of a deployment. */
export function createExecs(deps: ExecDeps): Execs {
  const sessions = new Map<string, Session>();
  const relay = createRelay(deps, sessions);

  return {
    async open({ actor, requestId, run: id, body: { argv = [], terminal = null } }) {
      const found = deps.answers.findRun(id);
      if (isRefusal(found)) return found;
      const { job, run } = found;
      const tokens = { person: mintToken(), runner: mintToken() };
      const digests = { person: await digestToken(tokens.person), runner: await digestToken(tokens.runner) };
      const refused = run.state === "assigned" ? notBegun(id) : refuseAnother([...sessions.values()], id);
      if (refused !== null) return refused;
      const session = newSession({
        run: id,
        runner: run.runner,
        actor,
        requestId,
        tokens: digests,
        openedAt: deps.now(),
      });
      relay.begin(session);
      const { deployment } = deps;
      const limits = { idleMs: LIMITS.execIdleMs, endsMs: LIMITS.execTotalMs };
      const call = { exec: session.id, deployment, run: id, token: tokens.runner, argv, terminal, ...limits };
      const command = argv.length === 0 ? "a shell" : JSON.stringify(argv);
      const detail = `on ${run.runner}: ${command}`.slice(0, LIMITS.textCharacters);
      // Nobody is let in whom the audit log does not name.
      const refusal = await available(async () => {
        await within(CALL_MS, deps.note({ action: "exec.opened", actor, deployment, run: id, requestId, detail }));
        return within(CALL_MS, deps.callIn(poolOf(job.brief), { runner: run.runner, call }));
      });
      if (refusal !== null) {
        relay.end(session, refusal.detail);
        return refusal;
      }
      const joinBefore = formatTime(session.openedAt + LIMITS.execJoinMs);
      const endsBefore = formatTime(session.openedAt + LIMITS.execTotalMs);
      return { session: session.id, run: id, deployment, token: tokens.person, joinBefore, endsBefore };
    },

    async join(request) {
      const token = tokenOf(request);
      const digest = token === null ? null : await digestToken(token);
      for (const session of sessions.values())
        for (const side of SIDES)
          if (session.tokens[side] === digest && session.sockets[side] === undefined)
            return relay.accept(session, side);
      return turnAway(CLOSE_CODES.unauthenticated, "no session waits for this token", SPOKEN);
    },

    end(of) {
      for (const session of sessions.values())
        if ("actor" in of ? session.actor === of.actor : session.runner === of.runner)
          relay.end(session, "the right to it has ended", CLOSE_CODES.forbidden);
    },
  };
}

function newSession(begun: Pick<Session, "run" | "runner" | "actor" | "requestId" | "tokens" | "openedAt">): Session {
  const unconfirmed = { person: 0, runner: 0 };
  return { ...begun, id: crypto.randomUUID(), sockets: {}, unconfirmed, exit: null, timer: null };
}

function notBegun(run: RunId): Refusal {
  return refuse("wrong-state", `Run ${run} has not begun.`, { next: "Wait until it works, then ask again." });
}

function refuseAnother(open: readonly Session[], run: RunId): Refusal | null {
  const next = "Wait until it has ended; there is one session about a run at a time.";
  const same = open.find((one) => one.run === run);
  if (same !== undefined) return refuse("busy", `${same.actor} is in a session about run ${run}.`, { next });
  if (open.length < LIMITS.execSessions) return null;
  return refuse("busy", `${LIMITS.execSessions} sessions are open in this deployment, which is the limit.`, { next });
}

async function available(work: () => Promise<Refusal | null>): Promise<Refusal | null> {
  try {
    return await work();
  } catch {
    return refuse("unavailable", "The namespace or the pool of the runner does not answer.");
  }
}

/** Tells the audit log of an end. What fails for long is missing there, where the beginning stands. */
async function tell({ note }: ExecDeps, told: ExecNote): Promise<void> {
  for (let count = 1; count <= TELL_COUNT; count += 1) {
    try {
      return await within(CALL_MS, note(told));
    } catch {
      await scheduler.wait(1_000 * 2 ** count);
    }
  }
}

/** The credential of an end, beside the subprotocol that it speaks. */
function tokenOf(request: Request): string | null {
  const offered = (request.headers.get("sec-websocket-protocol") ?? "").split(",").map((one) => one.trim());
  return offered.find((one) => one.startsWith("exec."))?.slice("exec.".length) ?? null;
}
