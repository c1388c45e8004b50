import { mkdirSync } from "node:fs";
import { type Assignment, LIMITS } from "@plumule/protocol";
import { createBackoff, pause } from "./backoff.ts";
import type { Broker } from "./broker.ts";
import type { RunnerConfig, RunnerFolders } from "./config.ts";
import type { Effect, Input, StopOrder, Supervisor } from "./core/model.ts";
import { followRun } from "./follow-run.ts";
import { killRun } from "./leftovers.ts";
import type { Machine } from "./machine.ts";
import { monotonicMs } from "./process-identity.ts";
import { readLease, runFiles, writeLease, writeOrder } from "./supervisor/files.ts";
import type { Supervisors, WaitingSupervisor } from "./supervisors.ts";

/** What carrying out a run's effects needs of its runner. */
export type AttendDeps = {
  config: RunnerConfig;
  folders: RunnerFolders;
  machine: Machine;
  broker: Broker;
  supervisors: Supervisors;
  say: (line: string) => void;
  tell: (input: Input) => void;
};

/** The hands of one run: each does what the core said, and tells what came of it. It decides nothing but when to wait. */
export type AttendedRun = {
  readonly assignment: Assignment;
  /** When it began, RFC 3339; null before that. */
  startedAt: string | null;
  /** Up to which number the broker has its events. */
  reportedNumber: number;
  heartbeat(effect: Extract<Effect, { do: "heartbeat" }>): Promise<void>;
  prepare(): Promise<void>;
  begin(): void;
  attach(supervisor: Supervisor): void;
  renew(untilMs: number): void;
  stop(order: StopOrder): void;
  kill(supervisor: Supervisor | null): Promise<void>;
  /** Sends and watches nothing any more. The supervisor lives on. */
  leave(): void;
};

/** A short job ends before this, and so costs no long poll, ms. */
const QUIET_START_MS = 400;
/** How long after its grace a run may take to say that it has ended, ms: its tree is killed and proved empty by then. */
const OVERDUE_MS = 15_000;

/** Attends a run, whose assignment came now or was in the journal. */
export function attendRun(deps: AttendDeps, assignment: Assignment, startedAt: string | null): AttendedRun {
  const { broker, tell, say, supervisors } = deps;
  const { run, limits } = assignment;
  const files = runFiles(deps.folders.runs, run);
  const left = new AbortController();
  const backoff = createBackoff(100, 2_000);
  // What an earlier process was granted counts; before the first word of the broker it is the time to acknowledge.
  let leaseUntil =
    startedAt === null ? monotonicMs() + assignment.acknowledgeMs : (readLease(files.control)?.untilMs ?? 0);
  let hasBegun = startedAt !== null;
  let isQuiet = !hasBegun;
  let waiting: WaitingSupervisor | null = null;
  let follower: ReturnType<typeof followRun> | null = null;
  let overdue: NodeJS.Timeout | null = null;

  const leave = (): void => {
    left.abort();
    follower?.close();
    if (!hasBegun) waiting?.dismiss();
    if (overdue !== null) clearTimeout(overdue);
  };
  const follow = (supervisor: Supervisor): void => {
    hasBegun = true;
    follower = followRun({
      files,
      supervisor,
      sendLog: (offset, bytes) => broker.appendLog(assignment, offset, bytes),
      sendEvents: (batch) => broker.report(assignment, batch),
      onEnd: ({ seen, reportedNumber }) => {
        attended.reportedNumber = reportedNumber;
        tell({ type: "supervisor ended", run, seen });
      },
    });
  };
  const attended: AttendedRun = {
    assignment,
    startedAt,
    reportedNumber: 0,
    async heartbeat({ first, seenCommand }) {
      // Work that has just begun is usually quicker than a held request.
      if (!first && isQuiet) await pause(QUIET_START_MS, left.signal);
      if (!first) isQuiet = false;
      const sentAt = monotonicMs();
      const leftMs = leaseUntil - sentAt;
      if (left.signal.aborted) return;
      if (leftMs <= 0) return tell({ type: "lease ended", run });
      // A request that hangs must not outlive the lease unnoticed.
      const signal = AbortSignal.any([left.signal, AbortSignal.timeout(Math.ceil(leftMs))]);
      const waitMs = Math.min(LIMITS.heartbeatHoldMs, Math.floor(leftMs / 3));
      const body = first ? { isolation: deps.machine.isolation } : { seenCommand, waitMs };
      const answer = await broker.heartbeat(assignment, body, signal);
      if (left.signal.aborted) return;
      if (answer.ok) {
        backoff.reset();
        // The lease counts from when the broker answered; what is known for sure is when this request was sent.
        leaseUntil = first ? sentAt + answer.value.leaseMs : Math.max(leaseUntil, sentAt + answer.value.leaseMs);
        return tell({ type: "heartbeat accepted", run, untilMs: leaseUntil, command: answer.value.command });
      }
      if (!answer.retry) {
        if (first) say(`run ${run}: not started: ${answer.problem.detail}`);
        return tell({ type: "heartbeat refused", run, detail: answer.problem.detail });
      }
      await pause(Math.min(backoff.next(), Math.max(leaseUntil - monotonicMs(), 0)), left.signal);
      tell({ type: "heartbeat failed", run });
    },
    async prepare() {
      try {
        waiting = await supervisors.take();
      } catch (error) {
        say(`run ${run}: ${String(error)}`);
        return tell({ type: "supervisor ended", run, seen: false });
      }
      if (left.signal.aborted) return waiting.dismiss();
      void waiting.ended.then(() =>
        follower === null ? tell({ type: "supervisor ended", run, seen: false }) : follower.look(),
      );
      tell({ type: "supervisor ready", run, supervisor: waiting.supervisor });
    },
    begin() {
      if (waiting === null) throw new Error(`run ${run} has no supervisor`);
      const { leaseToken: _, ...withoutToken } = assignment;
      const { isolation, nix, variables, path } = deps.machine;
      follow(waiting.supervisor);
      waiting.begin({
        assignment: withoutToken,
        machine: { isolation, nix, variables, path },
        runs: deps.folders.runs,
        workspaces: deps.folders.workspaces,
        mirrors: deps.folders.mirrors,
        allowLocal: deps.config.allowLocal,
        logLimitBytes: Math.min(limits.logBytes, deps.config.logBytes ?? Infinity),
        derivationCount: LIMITS.derivations,
        edgeCount: LIMITS.derivationEdges,
        outlives: deps.config.outlive,
      });
      supervisors.refill();
    },
    attach(supervisor) {
      say(`run ${run}: goes on; it is followed again`);
      follow(supervisor);
      follower?.look();
    },
    renew(untilMs) {
      mkdirSync(files.control, { recursive: true, mode: 0o700 });
      writeLease(files.control, untilMs);
    },
    stop(order) {
      writeOrder(files.control, order);
      if (overdue !== null) clearTimeout(overdue);
      overdue = setTimeout(() => tell({ type: "stop overdue", run }), (order.graceMs ?? limits.graceMs) + OVERDUE_MS);
    },
    async kill(supervisor) {
      leave();
      if (!hasBegun) return;
      const leftoverCount = await killRun(run, supervisor);
      if (leftoverCount > 0) say(`run ${run}: ${leftoverCount} processes could not be killed`);
    },
    leave,
  };
  return attended;
}
