import { appendFileSync, mkdirSync } from "node:fs";
import {
  type Assignment,
  ISOLATION_LEVELS,
  type IsolationLevel,
  LIMITS,
  type Problem,
  type RunnerEvent,
} from "@plumule/protocol";
import type { Admission } from "./admission/admission.ts";
import type { Broker, BrokerAnswer } from "./broker.ts";
import { ownLimits, radiclePolicy, type RunnerConfig, type RunnerFolders } from "./config.ts";
import type { Input, StopOrder, Supervisor } from "./core/model.ts";
import { followRun } from "./follow-run.ts";
import { createHeartbeat } from "./heartbeat.ts";
import { killRun } from "./leftovers.ts";
import { least } from "./limits/limits.ts";
import type { Machine } from "./machine.ts";
import { readLease, type RunFiles, runFiles, writeLease, writeOrder, writeTaken } from "./supervisor/files.ts";
import type { SupervisorOrder } from "./supervisor/order.ts";
import type { EventBatch } from "./supervisor/records.ts";
import type { Supervisors, WaitingSupervisor } from "./supervisors.ts";

/** What carrying out a run's effects needs of its runner. */
export type AttendDeps = {
  config: RunnerConfig;
  folders: RunnerFolders;
  machine: Machine;
  broker: Broker;
  supervisors: Supervisors;
  admission: Admission;
  say: (line: string) => void;
  tell: (input: Input) => void;
};

/** How long after its grace a run may take to say that it has ended, ms: its tree is killed and proved empty by then. */
const OVERDUE_MS = 15_000;

/**
 * The hands of one run, whose assignment came now or was in the journal: each method does what the core said, and tells what came of it. It
 * decides nothing but when to wait.
 */
export class AttendedRun {
  readonly assignment: Assignment;
  /** Sends one, and tells of its answer. */
  readonly heartbeat: ReturnType<typeof createHeartbeat>;
  /** When it began, RFC 3339; null before that. */
  startedAt: string | null;
  /** Up to which number the broker has its events. */
  reportedNumber = 0;
  readonly #deps: AttendDeps;
  readonly #files: RunFiles;
  readonly #left = new AbortController();
  /** Aborted when there is no more time to wait for memory. */
  readonly #hurry = new AbortController();
  #isOver = false;
  #hasBegun: boolean;
  #waiting: WaitingSupervisor | null = null;
  #follower: ReturnType<typeof followRun> | null = null;
  #overdue: NodeJS.Timeout | null = null;

  constructor(deps: AttendDeps, assignment: Assignment, startedAt: string | null) {
    this.#deps = deps;
    this.assignment = assignment;
    this.startedAt = startedAt;
    this.#hasBegun = startedAt !== null;
    this.#files = runFiles(deps.folders.runs, assignment.run);
    this.heartbeat = createHeartbeat({
      broker: deps.broker,
      assignment,
      isolation: deps.machine.isolation,
      leaseUntil: startedAt === null ? null : (readLease(this.#files.control)?.untilMs ?? 0),
      left: this.#left.signal,
      tell: deps.tell,
    });
  }

  /** Whether its supervisor is at work, as far as is known here. */
  get isWorking(): boolean {
    return this.#hasBegun && !this.#isOver;
  }

  /** Takes a supervisor that waits. */
  async prepare(): Promise<void> {
    const { tell, supervisors, say } = this.#deps;
    const { run } = this.assignment;
    try {
      this.#waiting = await supervisors.take();
    } catch (error) {
      say(`run ${run}: ${String(error)}`);
      return tell({ type: "supervisor ended", run, seen: false });
    }
    if (this.#left.signal.aborted) return this.#waiting.dismiss();
    void this.#waiting.ended.then(() =>
      this.#follower === null ? tell({ type: "supervisor ended", run, seen: false }) : this.#follower.look(),
    );
    tell({ type: "supervisor ready", run, supervisor: this.#waiting.supervisor });
  }

  /** Lets the supervisor work, as soon as there is memory for its run. */
  begin(): void {
    const waiting = this.#waiting;
    if (waiting === null) throw new Error(`run ${this.assignment.run} has no supervisor`);
    const { admission, supervisors } = this.#deps;
    this.#follow(waiting.supervisor);
    // An order to stop is read by the supervisor alone, so that it has to begin then.
    void admission
      .admit(this.assignment, this.#hurry.signal, () => this.#sayThatItWaits())
      .then(() => {
        if (this.#isOver) return admission.ended(this.assignment.run, false);
        admission.begun(this.assignment, waiting.supervisor.pid);
        waiting.begin(orderOf(this.#deps, this.assignment));
      });
    supervisors.refill();
  }

  /** Begins the log, which the supervisor goes on with: whoever looks at the run sees why nothing happens. */
  #sayThatItWaits(): void {
    const line = "[plumule] waits until there is memory for this run beside the others on its machine\n";
    try {
      appendFileSync(this.#files.log, line, { mode: 0o600 });
    } catch (error) {
      this.#deps.say(`run ${this.assignment.run}: ${String(error)}`);
    }
  }

  /** Follows a supervisor of an earlier process. */
  attach(supervisor: Supervisor): void {
    this.#deps.say(`run ${this.assignment.run}: goes on; it is followed again`);
    this.#deps.admission.begun(this.assignment, supervisor.pid);
    this.#follow(supervisor).look();
  }

  #follow(supervisor: Supervisor): ReturnType<typeof followRun> {
    const { broker, tell } = this.#deps;
    this.#hasBegun = true;
    this.#follower = followRun({
      files: this.#files,
      supervisor,
      sendLog: (offset, bytes) => broker.appendLog(this.assignment, offset, bytes),
      sendEvents: (batch) => this.#report(batch),
      onEnd: ({ seen, reportedNumber }) => {
        this.reportedNumber = reportedNumber;
        this.#isOver = true;
        this.#deps.admission.ended(this.assignment.run, seen);
        tell({ type: "supervisor ended", run: this.assignment.run, seen });
      },
    });
    return this.#follower;
  }

  /** Sends a batch, and tells the run what it may be waiting for: also that later ones were taken, which an earlier process may have sent. */
  async #report(batch: EventBatch): Promise<BrokerAnswer<{ number: number }>> {
    const answer = await this.#deps.broker.report(this.assignment, batch);
    if (!answer.ok || !(batch.events.some(isWish) || answer.value.number > batch.number)) return answer;
    try {
      writeTaken(this.#files.control, answer.value.number);
      return answer;
    } catch (error) {
      return { ok: false, retry: true, logSize: null, problem: untold(String(error)) };
    }
  }

  /** Writes until when the lease is held. */
  renew(untilMs: number): void {
    mkdirSync(this.#files.control, { recursive: true, mode: 0o700 });
    writeLease(this.#files.control, untilMs);
  }

  /** Writes an order to stop. */
  stop(order: StopOrder): void {
    const { run, limits } = this.assignment;
    writeOrder(this.#files.control, order);
    this.#hurry.abort();
    if (this.#overdue !== null) clearTimeout(this.#overdue);
    const dueMs = (order.graceMs ?? limits.graceMs) + OVERDUE_MS;
    this.#overdue = setTimeout(() => this.#deps.tell({ type: "stop overdue", run }), dueMs);
  }

  /** Ends it, whatever is left of it. */
  async kill(supervisor: Supervisor | null): Promise<void> {
    const { run } = this.assignment;
    this.#isOver = true;
    this.leave();
    this.#deps.admission.ended(run, false);
    if (!this.#hasBegun) return;
    const leftoverCount = await killRun(run, supervisor);
    if (leftoverCount > 0) this.#deps.say(`run ${run}: ${leftoverCount} processes could not be killed`);
  }

  /** Sends and watches nothing any more. A supervisor that has begun lives on. */
  leave(): void {
    this.#left.abort();
    this.#hurry.abort();
    this.#follower?.close();
    if (!this.#hasBegun) this.#waiting?.dismiss();
    if (this.#overdue !== null) clearTimeout(this.#overdue);
  }
}

/** The disk is full: the batch is sent again until the run can be told. The broker knows it by its number. */
function untold(detail: string): Problem {
  const next = "Make room where the runner keeps its state.";
  return {
    type: "about:blank",
    title: "The disk takes no word for a run",
    status: 0,
    code: "unavailable",
    detail,
    next,
  };
}

/** Whether a run goes on only after the broker has taken this. */
function isWish(event: RunnerEvent): boolean {
  return event.type === "state" || (event.type === "phase" && event.phase === "applying");
}

/** What the supervisor gets to know. */
function orderOf({ config, folders, machine }: AttendDeps, assignment: Assignment): SupervisorOrder {
  const { leaseToken: _, ...withoutToken } = assignment;
  const { isolation, limits, container, privacy, overlay, nix, variables, path } = machine;
  const runMs = Math.min(assignment.limits.runMs, config.runMs ?? Infinity);
  return {
    assignment: { ...withoutToken, limits: { ...assignment.limits, runMs } },
    machine: {
      isolation,
      limits,
      overlay,
      nix,
      variables,
      path,
      ...(container === undefined ? {} : { container }),
      ...(privacy === undefined ? {} : { privacy }),
    },
    unmet: weakerThanAsked(assignment.spec.requires?.isolation, isolation),
    runs: folders.runs,
    workspaces: folders.workspaces,
    warm: folders.warm,
    mirrors: folders.mirrors,
    effectStates: folders.effectStates,
    allowLocal: config.allowLocal,
    radicle: radiclePolicy(config),
    secrets: folders.secrets,
    logLimitBytes: least(assignment.limits.logBytes, config.logBytes, assignment.spec.limits?.logBytes) ?? 0,
    limits: ownLimits(config),
    derivationCount: LIMITS.derivations,
    edgeCount: LIMITS.derivationEdges,
    outlives: config.outlive,
  };
}

/**
 * Why a job must not be run at a level, though the broker sent it here: it matched an offer that this runner made before it was started anew, or
 * it means harm. Null when it may.
 */
function weakerThanAsked(asked: IsolationLevel | undefined, level: IsolationLevel): string | null {
  if (asked === undefined || ISOLATION_LEVELS.indexOf(level) >= ISOLATION_LEVELS.indexOf(asked)) return null;
  return `The job asks for isolation ${asked}, and this runner has ${level}.`;
}
