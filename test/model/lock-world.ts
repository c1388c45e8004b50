import type { JobId, SubmitBody } from "@plumule/protocol";
import { isWanted, type LockWord, lockWord } from "#durable-objects/deployment/core/locks.ts";
import { noteLocks, noteSaid } from "#durable-objects/deployment/core/lock-news.ts";
import { emptyState, type Job, type State } from "#durable-objects/deployment/core/model.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import type { LockAnswer, LocksCall } from "#durable-objects/namespace/calls.ts";
import { type LockRequest, type Settled, settleLocks } from "#durable-objects/namespace/core/locks.ts";
import { mix, type Digest } from "./encode.ts";
import { jobIndex, NOW, rebase } from "./world.ts";

/** The decisions about locks, of deployments and of their namespace; a seeded bug replaces one. */
export type LockCore = {
  settle: (requests: readonly LockRequest[], call: LocksCall, now: number) => Settled;
  said: typeof noteSaid;
  told: typeof noteLocks;
  isWanted: typeof isWanted;
  /** What is stored of a decision. */
  committed: (change: Change) => Change;
};

/** The code as it is. */
export const REAL_LOCKS: LockCore = {
  settle: settleLocks,
  said: noteSaid,
  told: noteLocks,
  isWanted,
  committed: (change) => change,
};

/** How much of the world of locks is explored. */
export type LockScope = {
  name: string;
  /** For each deployment the bodies of its jobs, one after the other. */
  lanes: readonly (readonly Partial<SubmitBody>[])[];
  /** Runs of a job that may be lost; with 0 none ever is. */
  attempts: number;
  /** The deployments of which messages are lost, and instances evicted. */
  faulty: readonly number[];
  /** Copies of messages that the network holds back, in all. */
  lateCount: number;
  /** Whether deployments are asked whether they still want what others wait for. */
  checks: boolean;
  /** Whether ends are unseen, until somebody says how they were. */
  isUnseen: boolean;
  /** How many jobs somebody cancels. */
  cancelCount: number;
};

/** A deployment. `underWay`: its word to the namespace, with the answer when that is on its way; lost with an eviction. */
export type LaneModel = {
  state: State;
  unseen: readonly Job[];
  submittedCount: number;
  underWay: { word: LockWord; answer: { told: LockAnswer | null } | null } | null;
};

/** A row of the namespace's outbox: a job whose deployment is to be told. `asked`: how the request stood when it was sent, with the reply when that is on its way. */
export type RowModel = { lane: number; job: JobId; asked: Question | null };
export type Question = { number: number; held: boolean; reply: boolean | null };

/** A copy of a message that the network still has. Nobody waits for its answer. */
export type LateWord =
  | { kind: "word"; lane: number; word: LockWord }
  | { kind: "question"; lane: number; job: JobId; number: number; held: boolean };

/** Deployments of one namespace, and its locks. */
export type LockWorld = {
  lanes: readonly LaneModel[];
  requests: readonly LockRequest[];
  rows: readonly RowModel[];
  late: readonly LateWord[];
  lateCount: number;
  cancelledCount: number;
};

/** Nothing has happened. */
export function emptyLocks({ lanes }: LockScope): LockWorld {
  return {
    lanes: lanes.map((_, index) => ({
      state: emptyState("garden", laneName(index)),
      unseen: [],
      submittedCount: 0,
      underWay: null,
    })),
    requests: [],
    rows: [],
    late: [],
    lateCount: 0,
    cancelledCount: 0,
  };
}

/** What the n-th deployment is called. */
export function laneName(index: number): string {
  return `lane-${index}`;
}

/** Changes a lane. */
export function withLane(world: LockWorld, index: number, change: Partial<LaneModel>): LockWorld {
  return { ...world, lanes: world.lanes.map((lane, at) => (at === index ? { ...lane, ...change } : lane)) };
}

/** A state with the clock taken back (`rebase`): whatever is due may come at any step. What it waits for is not told apart: nothing is decided by it. */
export function rebaseLocks(state: State): State {
  const { lane, jobs } = rebase(state);
  return {
    lane: { ...lane, releases: lane.releases.map((one) => ({ ...one, dueAt: NOW, tryCount: 0 })) },
    jobs: jobs.map((job) =>
      job.locks === undefined ? job : { ...job, locks: { ...job.locks, wait: null, dueAt: NOW, tryCount: 0 } },
    ),
  };
}

/** What a lane has to say now. */
export function wordOf({ state }: LaneModel): LockWord | null {
  return lockWord(state);
}

/** A state of the world as 64 bits: all that a later step can depend on. */
export function digestLocks(world: LockWorld): Digest {
  const lines = [
    ...world.lanes.map(laneText),
    world.requests.map((one) => `${one.deployment}${jobIndex(one.job)}#${one.number}${one.heldAt === null ? "" : "!"}`),
    world.rows.map((one) => `${one.lane}${jobIndex(one.job)}${one.asked === null ? "" : questionText(one.asked)}`),
    world.late
      .map((one) =>
        one.kind === "word"
          ? `${one.lane}${wordText(one.word)}`
          : `${one.lane}?${jobIndex(one.job)}#${one.number}${one.held}`,
      )
      .toSorted(),
    world.lateCount * 8 + world.cancelledCount,
  ];
  const text = lines.join("|");
  return mix(
    Array.from(text, (character) => character.charCodeAt(0)),
    text.length,
  );
}

function laneText({ state: { lane, jobs }, unseen, submittedCount, underWay }: LaneModel): string {
  const known = jobs.map(({ id, state, runs, ticket, ready, locks }) =>
    [
      jobIndex(id),
      state,
      runs.length,
      ticket?.number ?? "",
      ready === null ? "" : "rests",
      locks === undefined ? "" : `${locks.number}${locks.heldAt === null ? "" : "!"}`,
    ].join(" "),
  );
  const ended = unseen.map(({ id, locks }) => `${jobIndex(id)} ${locks?.number ?? ""}`);
  const releases = lane.releases.map(({ job, number }) => `${jobIndex(job)} ${number}`);
  const way = underWay === null ? "" : `${wordText(underWay.word)}${JSON.stringify(underWay.answer)}`;
  return [submittedCount, lane.epoch, known, "unseen", ended, "released", releases, way].join(",");
}

function wordText({ released, wanted }: LockWord): string {
  const given = released.map(({ job, number }) => `${jobIndex(job)} ${number}`).join(",");
  return `(${given};${wanted === null ? "" : `${jobIndex(wanted.job)} ${wanted.number}`})`;
}

function questionText({ number, held, reply }: Question): string {
  return `?${number}${held}${reply}`;
}
