import type { Outcome, SubmitBody } from "@plumule/protocol";

/** A submit: its body, or a teardown, or the job of a stranger; `guarded`: with the revision that its sender has seen. */
export type Ask = Partial<SubmitBody> & { teardown?: true; guarded?: true; stranger?: true };

/** How much of the world is explored: every way to take these steps in any order. */
export type Scope = {
  name: string;
  runnerCount: number;
  attempts: number;
  /** For each job the bodies that it may be submitted with. */
  jobs: readonly (readonly Ask[])[];
  /** What people may ask for besides submits and approvals, and how often they ask at all. */
  people: readonly ("cancel" | "force" | "remove" | "stop a runner" | "resolve" | "mistake")[];
  peopleCount: number;
  /** Copies of messages that the network holds at once. */
  lateCount: number;
  /** Whether runs apply, and how they end when nobody stops them. */
  applies: boolean;
  outcomes: readonly Outcome[];
  /** Whether the processes of runners and their machines are killed, at rest and after each write. */
  crashes: boolean;
  /** Whether supervisors are killed. */
  isKilled: boolean;
  /** Whether disks refuse writes. */
  isDiskFull: boolean;
  /** Whether supervisors take time to be ready, and leases end by a runner's own clock before the broker's. */
  isSlow: boolean;
  /** Whether runners ask for work as soon as they have room, and are never between two polls. */
  isEager: boolean;
  /** Whether runs say how far they are, and answers to what they say are lost. */
  reports: boolean;
  /** Whether runs write logs, of two bytes at most. */
  logs: boolean;
  /** Whether runners say what they may not. */
  isWrong: boolean;
  /** Whether one of the runners tells something false. */
  lies: boolean;
  /** Whether everything that a dead lease left behind is cleared away at once (see `settle`). */
  settles: boolean;
  /** What was reached besides states of jobs. */
  seen: Set<string>;
};

const QUEUE: Ask = {};
const MODES: readonly Ask[] = [
  QUEUE,
  { mode: "replace" },
  { mode: "replace", interrupt: "always" },
  { mode: "replace", interrupt: "never" },
  { mode: "latest" },
];

/** A scope that is small but for what it says. */
function scope(name: string, over: Partial<Scope>): Scope {
  return {
    name,
    runnerCount: 2,
    attempts: 1,
    jobs: [[QUEUE]],
    people: [],
    peopleCount: 0,
    lateCount: 0,
    applies: false,
    outcomes: ["succeeded"],
    crashes: false,
    isKilled: false,
    isDiskFull: false,
    isSlow: false,
    isEager: false,
    reports: false,
    logs: false,
    isWrong: false,
    lies: false,
    settles: false,
    ...over,
    seen: new Set(),
  };
}

/** What a test explores in full: each scope has another side of the whole. */
export function defaultScopes(): Scope[] {
  return [
    scope("two jobs, two runners, two attempts, every way to replace, stopped by people", {
      attempts: 2,
      jobs: [[QUEUE], MODES],
      people: ["cancel"],
      peopleCount: 1,
      applies: true,
      outcomes: ["succeeded", "failed"],
      settles: true,
    }),
    scope("one job, one runner, two attempts, late copies", {
      attempts: 2,
      lateCount: 1,
      runnerCount: 1,
      outcomes: ["succeeded", "failed"],
    }),
    scope("one job that applies, two runners, two attempts, stopped by people", {
      attempts: 2,
      people: ["cancel", "force"],
      peopleCount: 1,
      applies: true,
    }),
    scope("two jobs, two runners that are killed, every way to replace", {
      jobs: [[QUEUE], MODES],
      applies: true,
      crashes: true,
      settles: true,
    }),
    scope("two jobs, one runner, one of them held", {
      runnerCount: 1,
      jobs: [[{ hold: true }], [QUEUE, { mode: "reject" }]],
      peopleCount: 2,
      people: ["cancel"],
      settles: true,
    }),
    scope("two jobs, one runner, removal", {
      runnerCount: 1,
      jobs: [[QUEUE], [QUEUE]],
      people: ["remove"],
      peopleCount: 1,
      settles: true,
    }),
    scope("one job, one runner, debounce, retry and removal", {
      runnerCount: 1,
      attempts: 2,
      jobs: [[{ retry: { onFailure: true }, debounce: { quietMs: 1_000, maxMs: 5_000 } }]],
      people: ["remove"],
      peopleCount: 1,
      outcomes: ["succeeded", "failed", "refused", "skipped"],
    }),
    scope("one job, one runner that is killed at any write, supervisors that work on", {
      runnerCount: 1,
      attempts: 2,
      crashes: true,
      isKilled: true,
      isSlow: true,
      people: ["cancel"],
      peopleCount: 1,
    }),
    scope("one job, one runner whose disk refuses writes", {
      runnerCount: 1,
      isDiskFull: true,
      isSlow: true,
    }),
    scope("one job that applies, two runners that are killed, two attempts", {
      attempts: 2,
      crashes: true,
      applies: true,
      settles: true,
    }),
    scope("one job, a runner that is told to stop, once, twice or three times", {
      runnerCount: 1,
      people: ["stop a runner"],
      peopleCount: 3,
    }),
    scope("one job, one runner, a log of two bytes, late copies, and words that it may not say", {
      runnerCount: 1,
      lateCount: 1,
      logs: true,
      isWrong: true,
    }),
    scope("one job that applies, one runner, reports that are lost, late or repeated", {
      runnerCount: 1,
      lateCount: 1,
      applies: true,
      reports: true,
    }),
    scope("one job that applies, one runner that is killed, a log of two bytes", {
      runnerCount: 1,
      applies: true,
      crashes: true,
      logs: true,
    }),
    scope("two jobs with mistakes of people: strangers, revisions, a teardown, and what nobody saw", {
      runnerCount: 1,
      jobs: [
        [{ guarded: true }, { hold: true, stranger: true }],
        [{ guarded: true, teardown: true }, { quorum: { replicas: 3, agree: 2 } }],
      ],
      people: ["cancel", "resolve", "mistake"],
      peopleCount: 2,
      applies: true,
      isKilled: true,
      settles: true,
    }),
    scope("an effect with a plan, one runner, two attempts, stopped by people or replaced", {
      runnerCount: 1,
      attempts: 2,
      jobs: [[{ task: { kind: "effect", installable: ".#deploy", plan: "true" } }], [{ mode: "replace" }]],
      people: ["cancel"],
      peopleCount: 2,
      applies: true,
      outcomes: ["succeeded", "skipped"],
      settles: true,
    }),
    scope("a task file of two steps that need each other, the first with a plan, stopped by people", {
      runnerCount: 1,
      attempts: 2,
      jobs: [[{ task: { kind: "repository", effects: true } }]],
      people: ["cancel"],
      peopleCount: 2,
      outcomes: ["succeeded", "failed", "skipped"],
      settles: true,
    }),
    scope("a quorum of two of three, one of them lies or is lost", {
      runnerCount: 3,
      jobs: [[{ quorum: { replicas: 3, agree: 2 } }]],
      lies: true,
      isEager: true,
      settles: true,
    }),
    scope("a quorum of two that is cancelled or replaced", {
      jobs: [[{ quorum: { replicas: 2, agree: 2 } }], [{ mode: "replace" }]],
      people: ["cancel"],
      peopleCount: 1,
      isEager: true,
      settles: true,
    }),
  ];
}

/** What `npm run model` explores besides. */
export function largeScopes(): Scope[] {
  const people = { people: ["cancel", "force"] as const, peopleCount: 1 };
  return [
    scope("an effect with a plan, two runners, two attempts, stopped by people or replaced", {
      attempts: 2,
      jobs: [[{ task: { kind: "effect", installable: ".#deploy", plan: "true" } }], [{ mode: "replace" }]],
      people: ["cancel"],
      peopleCount: 2,
      applies: true,
      outcomes: ["succeeded", "skipped"],
      settles: true,
    }),
    scope("two jobs, two runners, two attempts, stopped by people, late copies", {
      ...people,
      attempts: 2,
      jobs: [[QUEUE], MODES],
      lateCount: 1,
      applies: true,
      outcomes: ["succeeded", "refused"],
      settles: true,
    }),
    scope("three jobs, two runners, two attempts", {
      ...people,
      attempts: 2,
      jobs: [[QUEUE], MODES, MODES],
      applies: true,
      settles: true,
    }),
    scope("a quorum of two of three that is cancelled or replaced", {
      runnerCount: 3,
      jobs: [[{ quorum: { replicas: 3, agree: 2 } }], [{ mode: "replace" }]],
      people: ["cancel", "force"],
      peopleCount: 1,
      lies: true,
      isEager: true,
      settles: true,
    }),
    scope("two jobs, one runner, one of them held, in full", {
      runnerCount: 1,
      jobs: [[{ hold: true }], [QUEUE, { mode: "reject" }]],
      peopleCount: 2,
      people: ["cancel"],
    }),
    scope("two jobs, two runners, every way to replace", { jobs: [[QUEUE], MODES], applies: true }),
    scope("two jobs, two runners, late copies", { jobs: [[QUEUE], MODES], lateCount: 1, applies: true }),
  ];
}

/** Small scopes in which seeded bugs are looked for, one after the other. */
export function mutationScopes(): Scope[] {
  return [
    scope("one job", { attempts: 2, applies: true, people: ["cancel"], peopleCount: 1, lateCount: 1 }),
    scope("two jobs", { jobs: [[QUEUE], MODES], applies: true, lateCount: 1 }),
    scope("a held job", {
      runnerCount: 1,
      jobs: [[{ hold: true }], [QUEUE]],
      peopleCount: 2,
      people: ["cancel"],
      lateCount: 1,
    }),
    scope("an effect with a plan", {
      runnerCount: 1,
      jobs: [[{ task: { kind: "effect", installable: ".#deploy", plan: "true" } }]],
      people: ["cancel"],
      peopleCount: 2,
      applies: true,
      outcomes: ["succeeded", "skipped"],
    }),
    scope("one job, explored in full", { runnerCount: 1 }),
    scope("one job, one runner that is killed", { runnerCount: 1, attempts: 2, crashes: true, isKilled: true }),
    scope("one job, a runner that is told to stop", { runnerCount: 1, people: ["stop a runner"], peopleCount: 2 }),
  ];
}

/** A scope by its name. */
export function scopeNamed(name: string): Scope {
  const found = [...defaultScopes(), ...largeScopes(), ...mutationScopes()].find((one) => one.name === name);
  if (found === undefined) throw new Error(`no scope "${name}"`);
  return found;
}
