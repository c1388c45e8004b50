import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { checkHistory } from "./check.ts";
import type { Evidence, History, Note, Promised, SeenEvent, StoredJob, StoredRun } from "./history.ts";

const PRINTED = "one\ntwo\nthree\n";
const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
const event = (sequence: number, type: string, job = "job-1"): SeenEvent => ({
  sequence,
  type,
  job,
  digest: `${type} of ${job}`,
});
const told = (seen: SeenEvent): Note => ({ kind: "event", ...seen });
const wrote = (run: string, what: Evidence["what"], value = 0): Evidence => ({
  deployment: "lane",
  job: "job-1",
  run,
  what,
  value,
});

const run: StoredRun = {
  id: "run-1",
  epoch: 1,
  state: "succeeded",
  reason: null,
  log: { state: "complete", bytes: PRINTED.length },
  text: PRINTED,
  textSha256: sha256(PRINTED),
  signed: [{ bytes: PRINTED.length, sha256: sha256(PRINTED) }],
};
const job: StoredJob = {
  id: "job-1",
  deployment: "lane",
  key: "lane.1",
  state: "succeeded",
  printed: PRINTED,
  runs: [run],
};
const EVENTS = [event(1, "job.queued"), event(2, "job.assigned"), event(3, "job.running"), event(4, "job.succeeded")];
const accepted = { status: 202, digest: "accepted", code: null, job: "job-1", superseded: [] };
const busy = { status: 409, digest: "", code: "busy", job: null, superseded: [] };

/** One job that ran once and was watched, with nothing wrong. */
const GOOD: History = {
  submits: [
    { key: "lane.1", deployment: "lane", joinable: false, tryCount: 3, answers: [accepted, accepted], otherBody: 422 },
  ],
  cancels: [],
  watches: [
    {
      name: "early",
      source: "/ns/deployments/lane",
      notes: [{ kind: "begin", after: 0 }, ...EVENTS.map(told)],
      states: { "job-1": "succeeded" },
    },
    {
      name: "late",
      source: "/ns/deployments/lane",
      notes: [{ kind: "begin", after: 2 }, ...EVENTS.slice(2).map(told)],
      states: null,
    },
  ],
  logWatches: [
    {
      name: "early",
      run: "run-1",
      pieces: [
        { offset: 0, text: "one\n" },
        { offset: 8, text: "three\n" },
      ],
      skippedBytes: 4,
      endBytes: 14,
    },
  ],
  streams: [{ source: "/ns/deployments/lane", events: EVENTS }],
  jobs: [job],
  evidence: [
    wrote("run-1", "start"),
    wrote("run-1", "line", 1),
    wrote("run-1", "daemon", 1),
    wrote("run-1", "line", 3),
    wrote("run-1", "end"),
  ],
  faults: [],
  leftovers: [],
  memory: { maxBytes: 1, limitBytes: 1 },
};

const [submit, watch, logWatch, stream] = [GOOD.submits[0]!, GOOD.watches[0]!, GOOD.logWatches[0]!, GOOD.streams[0]!];
const withJob = (change: Partial<StoredJob>, more: readonly StoredJob[] = []): Partial<History> => ({
  jobs: [{ ...job, ...change }, ...more],
});
const withRun = (change: Partial<StoredRun>): Partial<History> => withJob({ runs: [{ ...run, ...change }] });
const logged = (text: string): Partial<StoredRun> => ({
  text,
  textSha256: sha256(text),
  log: { state: "complete", bytes: text.length },
  signed: [{ bytes: text.length, sha256: sha256(text) }],
});
const watched = (...notes: Note[]): Partial<History> => ({ watches: [{ ...watch, notes, states: null }] });
const withEvents = (...events: SeenEvent[]): Partial<History> => ({ streams: [{ ...stream, events }], watches: [] });
/** A second attempt that a first one, which was lost, came before. */
const retried = (evidence: readonly Evidence[]): Partial<History> => ({
  ...withJob({
    runs: [
      {
        ...run,
        id: "run-0",
        epoch: 1,
        state: "lost",
        text: "one\n",
        log: { state: "truncated", bytes: 4 },
        signed: [],
      },
      { ...run, epoch: 2 },
    ],
  }),
  evidence: [...evidence, wrote("run-1", "end")],
});

it("finds nothing in a history in which every promise was kept", () => {
  expect(checkHistory(GOOD)).toEqual([]);
});

it.each<[string, Partial<History>]>([
  [
    "a job that was retried, each run after the other",
    retried([wrote("run-0", "start"), wrote("run-0", "line", 1), wrote("run-1", "start")]),
  ],
  [
    "a run that went on after its runner was killed and came back",
    {
      evidence: [wrote("run-1", "start"), wrote("run-1", "line", 1), wrote("run-1", "line", 3), wrote("run-1", "end")],
    },
  ],
  [
    "a refused submit that made no job",
    { submits: [submit, { ...submit, key: "lane.2", answers: [busy], otherBody: null }] },
  ],
  ["a submit that joined another's job", { submits: [submit, { ...submit, key: "lane.2", joinable: true }] }],
  [
    "a run that its restarted runner ended, with what it had printed and a word of its own",
    {
      ...withJob({
        state: "failed",
        runs: [{ ...run, ...logged("one\ntw[plumule] restarted\n"), state: "failed", reason: "runner-stopped" }],
      }),
      streams: [{ ...stream, events: [event(1, "job.failed")] }],
      watches: [],
      logWatches: [],
    },
  ],
])("allows %s", (_, change) => {
  expect(checkHistory({ ...GOOD, ...change })).toEqual([]);
});

const BROKEN: readonly [string, Promised, Partial<History>][] = [
  ["an accepted job is not there", "P2 no submit lost", { jobs: [] }],
  [
    "nobody ever answered a submit",
    "P2 no submit lost",
    { submits: [submit, { ...submit, key: "lane.2", answers: [] }] },
  ],
  ["a refused submit is a job", "P2 no submit lost", { submits: [{ ...submit, answers: [busy] }] }],
  ["one wish became two jobs", "P2 no submit lost", withJob({}, [{ ...job, id: "job-2" }])],
  ["a submit was answered with another's job", "P2 no submit lost", withJob({ key: "lane.9" })],
  ["a job is in another deployment", "P2 no submit lost", withJob({ deployment: "elsewhere" })],
  [
    "a key was answered otherwise the second time",
    "P8 idempotency",
    { submits: [{ ...submit, answers: [accepted, { ...accepted, digest: "other" }] }] },
  ],
  ["a key was refused the second time", "P8 idempotency", { submits: [{ ...submit, answers: [accepted, busy] }] }],
  ["a key was taken with another body", "P8 idempotency", { submits: [{ ...submit, otherBody: 202 }] }],
  ["a number is missing in what is stored", "P3 sequences", withEvents(EVENTS[0]!, EVENTS[1]!, EVENTS[3]!)],
  ["a number is stored twice", "P3 sequences", withEvents(EVENTS[0]!, ...EVENTS)],
  [
    "a watcher missed an event",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 0 }, told(EVENTS[0]!), told(EVENTS[2]!), told(EVENTS[3]!)),
  ],
  [
    "a watcher got an event twice",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 2 }, told(EVENTS[2]!), told(EVENTS[2]!), told(EVENTS[3]!)),
  ],
  [
    "a watcher got events out of order",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 2 }, told(EVENTS[3]!), told(EVENTS[2]!)),
  ],
  [
    "a watcher got another event than is stored",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 3 }, told(event(4, "job.failed"))),
  ],
  [
    "a watcher saw an event that is not stored",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 4 }, told(event(5, "job.queued"))),
  ],
  [
    "a watcher never got the last event",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 0 }, ...EVENTS.slice(0, 3).map(told)),
  ],
  [
    "a watcher was told to start over",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 4 }, { kind: "reset", why: "cursor-unknown" }),
  ],
  [
    "a watcher was sent a snapshot where it should have resumed",
    "P7 watchers miss nothing",
    watched({ kind: "begin", after: 0 }, told(EVENTS[0]!), { kind: "begin", after: 4 }),
  ],
  [
    "a watcher holds a job for something else",
    "P7 watchers miss nothing",
    { watches: [{ ...watch, states: { "job-1": "running" } }] },
  ],
  ["the stream of a watcher is not there", "P7 watchers miss nothing", { streams: [] }],
  [
    "an earlier run went on after the next had started",
    "P1 one live lease",
    retried([wrote("run-0", "start"), wrote("run-1", "start"), wrote("run-0", "line", 2), wrote("run-1", "line", 1)]),
  ],
  [
    "a daemon of an earlier run outlived it",
    "P1 one live lease",
    retried([wrote("run-0", "start"), wrote("run-1", "start"), wrote("run-0", "daemon", 9)]),
  ],
  [
    "a run was started twice",
    "P1 one live lease",
    { evidence: [wrote("run-1", "start"), wrote("run-1", "start"), wrote("run-1", "end")] },
  ],
  [
    "a run worked that was never granted",
    "P1 one live lease",
    { evidence: [...GOOD.evidence, wrote("run-9", "start")] },
  ],
  [
    "a superseded job is green",
    "P4 stopped is not green",
    {
      submits: [
        submit,
        { ...submit, key: "lane.2", joinable: true, answers: [{ ...accepted, superseded: ["job-1"] }] },
      ],
    },
  ],
  ["a cancelled job is green", "P4 stopped is not green", { cancels: [{ jobs: ["job-1"] }] }],
  ["a green job did nothing", "P4 stopped is not green", { evidence: [] }],
  [
    "a green job ended with another code",
    "P4 stopped is not green",
    { evidence: [wrote("run-1", "start"), wrote("run-1", "end", 3)] },
  ],
  ["a job never ended", "P6 one final state", withJob({ state: "running" })],
  ["a run of an ended job never ended", "P6 one final state", withRun({ state: "running" })],
  ["a job ended twice", "P6 one final state", withEvents(...EVENTS, event(5, "job.failed"))],
  ["a job's end was never told", "P6 one final state", withEvents(...EVENTS.slice(0, 3))],
  [
    "a job was told to have ended otherwise",
    "P6 one final state",
    withEvents(...EVENTS.slice(0, 3), event(4, "job.failed")),
  ],
  ["a log has a line that was never printed", "P9 logs", { ...withRun(logged("one\nTWO\nthree\n")), logWatches: [] }],
  ["a log has a line twice", "P9 logs", { ...withRun(logged("one\none\ntwo\nthree\n")), logWatches: [] }],
  ["a log lacks the end of what was printed", "P9 logs", { ...withRun(logged("one\ntwo\n")), logWatches: [] }],
  [
    "a log is not the one that was signed",
    "P9 logs",
    withRun({ signed: [{ bytes: PRINTED.length, sha256: sha256("other") }] }),
  ],
  ["a log is shorter than it says", "P9 logs", withRun({ log: { state: "complete", bytes: 99 } })],
  ["a signed log is not complete", "P9 logs", withRun({ log: { state: "mismatch", bytes: PRINTED.length } })],
  ["nobody signed a green run", "P9 logs", withRun({ signed: [] })],
  [
    "a watcher of a log got bytes twice",
    "P9 logs",
    {
      logWatches: [
        {
          ...logWatch,
          pieces: [
            { offset: 0, text: "one\n" },
            { offset: 0, text: "one\n" },
          ],
        },
      ],
    },
  ],
  [
    "a watcher of a log got other bytes",
    "P9 logs",
    { logWatches: [{ ...logWatch, pieces: [{ offset: 0, text: "ONE\n" }] }] },
  ],
  ["a watcher of a log was told a wrong length", "P9 logs", { logWatches: [{ ...logWatch, endBytes: 99 }] }],
  ["a watcher of a log missed bytes without a word", "P9 logs", { logWatches: [{ ...logWatch, skippedBytes: 0 }] }],
  ["a process is left", "P15 nothing is left", { leftovers: ["sleep 600"] }],
  ["the broker took too much memory", "P14 bounded memory", { memory: { maxBytes: 2, limitBytes: 1 } }],
  ["the broker answered 500", "a 500 is a bug", { faults: ["submitJob: internal"] }],
];

describe("the check", () => {
  it.each(BROKEN)("finds that %s", (_, promise, change) => {
    const findings = checkHistory({ ...GOOD, ...change });
    expect(findings.map((finding) => finding.promise)).toContain(promise);
  });

  it("says once that a run went on, however long it did", () => {
    const lines = Array.from({ length: 50 }, (_, index) => wrote("run-0", "line", index));
    const findings = checkHistory({
      ...GOOD,
      ...retried([wrote("run-0", "start"), wrote("run-1", "start"), ...lines]),
    });
    expect(findings.filter(({ promise }) => promise === "P1 one live lease")).toHaveLength(1);
  });
});
