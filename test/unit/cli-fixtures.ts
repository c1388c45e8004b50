import type { DeploymentView, Event, JobView, RunnerView, RunView } from "@plumule/protocol";

export const JOB_ID = "0199c0de-7a11-7000-8000-000000000001";
export const RUN_ID = "0199c0de-7a11-7001-8000-000000000001";
export const RUNNER_ID = "did:key:z6MkvXqBsnj3nFG3Gzihxosmauw1cqBrVduEzed6yQhodNbd";
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** Noon of the day on which everything in these tests happens; `at(90)` is a minute and a half later. */
export function at(seconds: number): string {
  return new Date(Date.parse("2026-11-20T12:00:00.000Z") + seconds * 1000).toISOString();
}

/** A job that waits, changed as told. */
export function job(changes: Partial<JobView> = {}): JobView {
  return {
    id: JOB_ID,
    namespace: "local",
    deployment: "site",
    state: "queued",
    phase: "queued",
    kind: "nix-build",
    type: null,
    mode: "queue",
    interrupt: "before-apply",
    priority: "normal",
    teardown: false,
    summary: null,
    labels: {},
    source: null,
    actor: "token:abc",
    createdAt: at(0),
    startedAt: null,
    finishedAt: null,
    attempt: 0,
    run: null,
    runner: null,
    reason: null,
    supersededBy: null,
    rerunOf: null,
    waiting: null,
    progress: null,
    ...changes,
  };
}

/** A run that succeeded, changed as told. */
export function run(changes: Partial<RunView> = {}): RunView {
  return {
    id: RUN_ID,
    job: JOB_ID,
    deployment: "site",
    attempt: 1,
    epoch: 1,
    state: "succeeded",
    phase: null,
    runner: RUNNER_ID,
    isolation: "bwrap",
    assignedAt: at(1),
    startedAt: at(2),
    finishedAt: at(72),
    exitCode: 0,
    reason: null,
    survivorsKilled: 0,
    log: { state: "complete", bytes: 2048, sha256: "00".repeat(32) },
    outputs: [],
    statementCount: 1,
    ...changes,
  };
}

/** A deployment, changed as told. */
export function deployment(changes: Partial<DeploymentView> = {}): DeploymentView {
  return {
    id: "site",
    namespace: "local",
    state: "deploying",
    revision: 18,
    activeJob: JOB_ID,
    currentJob: null,
    pendingCount: 0,
    lastResult: null,
    createdAt: at(-60),
    updatedAt: at(0),
    ...changes,
  };
}

/** A runner that is there, changed as told. */
export function runner(changes: Partial<RunnerView> = {}): RunnerView {
  const offer = {
    name: "king",
    systems: ["x86_64-linux"],
    features: [],
    labels: [],
    isolation: "bwrap" as const,
    version: "0.1.0",
    capacity: 2,
  };
  return {
    id: RUNNER_ID,
    name: "king",
    pool: "default",
    state: "online",
    drained: false,
    revoked: false,
    offer,
    busy: 1,
    registeredAt: at(-60),
    seenAt: at(0),
    ...changes,
  };
}

/** An event of the deployment, a second after noon. */
export function event(type: string, data: Event["data"]): Event {
  return {
    specversion: "1.0",
    id: "00000000-0000-7000-8000-000000000001",
    source: "/local/deployments/site",
    type,
    subject: `jobs/${JOB_ID}`,
    time: at(1),
    sequence: "0000000000000001",
    actor: "broker",
    datacontenttype: "application/json",
    data,
  };
}

/** Lines as they look without colours. */
export function plain(lines: string | readonly string[] | null): string {
  const text = typeof lines === "string" ? lines : (lines ?? []).join("\n");
  // oxlint-disable-next-line no-control-regex -- colours are control sequences
  return text.replaceAll(/\u001b\[[0-9;]*m/g, "");
}
