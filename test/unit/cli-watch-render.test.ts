import { type Derivation, initialWatch, type JobView, type WatchState } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { changeLine, derivationLines, endLine, hintFor, jobBlock, lastLines } from "../../cli/src/watch-render.ts";
import { at, deployment, event, job, JOB_ID, plain, run, RUN_ID, RUNNER_ID } from "./cli-fixtures.ts";

const NAMES = new Map([[RUNNER_ID, "king"]]);
const PROGRESS = { total: 312, done: 290, running: 4, failed: 0, cached: 250, queued: 18 };
const SCREEN = { columns: 80, rows: 24 };
const waiting = {
  reason: "position" as const,
  detail: "1 job comes first.",
  needs: null,
  nearest: null,
  position: 1,
  etaMs: 94_000,
};

function derivation(name: string, changes: Partial<Derivation> = {}): Derivation {
  return { drv: `/nix/store/${name}.drv`, name, state: "building", phase: "buildPhase", startedAt: at(24), ...changes };
}

function watched(
  view: JobView,
  derivations: readonly Derivation[] = [],
  phase: WatchState["phase"] = "live",
): WatchState {
  return {
    ...initialWatch(),
    phase,
    deployment: deployment(),
    jobs: { [JOB_ID]: view },
    derivations: { [JOB_ID]: Object.fromEntries(derivations.map((one) => [one.drv, one])) },
  };
}

function block(state: WatchState, screen = SCREEN): string {
  return plain(jobBlock({ state, job: JOB_ID, names: NAMES, now: Date.parse(at(72)) }, screen));
}

describe("a change as a line", () => {
  const running = { state: "running" as const, run: RUN_ID, runner: RUNNER_ID, startedAt: at(2) };
  it.each<[string, Parameters<typeof event>[1], string]>([
    ["job.queued", { job: job({ waiting }) }, "0199c0de-7a11  queued     1 job comes first."],
    ["job.held", { job: job({ state: "held" }) }, "0199c0de-7a11  held"],
    ["job.waiting", { job: job({ waiting }) }, "0199c0de-7a11  waiting    1 job comes first."],
    ["job.assigned", { job: job({ ...running, state: "assigned" }) }, "0199c0de-7a11  assigned   king"],
    [
      "job.phase",
      { job: job({ ...running, phase: "building", progress: PROGRESS }) },
      "0199c0de-7a11  building   40/62  250 cached",
    ],
    [
      "job.cancelling",
      { job: job({ ...running, state: "cancelling", reason: { code: "cancelled", detail: "enough" } }) },
      "0199c0de-7a11  cancelling enough",
    ],
    [
      "run.lost",
      { job: job({ attempt: 1 }), run: run({ state: "lost" }) },
      "0199c0de-7a11  lost       king was not heard of; attempt 1 ended",
    ],
    [
      "job.succeeded",
      { job: job({ ...running, state: "succeeded", finishedAt: at(74), progress: PROGRESS }) },
      "0199c0de-7a11  ✓ succeeded  1:12  40/62  250 cached",
    ],
    [
      "job.failed",
      {
        job: job({
          ...running,
          state: "failed",
          finishedAt: at(11),
          reason: { code: "build-failed", detail: "gems:\nexit code 1" },
        }),
      },
      "0199c0de-7a11  ✗ failed  0:09  gems: exit code 1",
    ],
    [
      "job.superseded",
      {
        job: job({
          state: "superseded",
          supersededBy: "0199c0de-7a22-7000-8000-000000000001",
          reason: { code: "superseded", detail: "took its place" },
        }),
      },
      "0199c0de-7a11  • superseded  by 0199c0de-7a22",
    ],
  ])("%s", (type, data, line) => expect(plain(changeLine(event(type, data), NAMES))).toBe(line));

  it("is nothing for progress, for other things than jobs, and for types of later versions", () => {
    expect(changeLine(event("job.progress", { job: job({ progress: PROGRESS }) }), NAMES)).toBeNull();
    expect(changeLine(event("deployment.state", { deployment: deployment() }), NAMES)).toBeNull();
    expect(changeLine(event("job.dreaming", { job: job() }), NAMES)).toBeNull();
  });

  it("names a runner by its key when nobody knows its name", () => {
    expect(plain(changeLine(event("job.assigned", { job: job({ runner: RUNNER_ID }) }), new Map()))).toContain(
      "z6MkvXqB…dNbd",
    );
  });

  it("tells which derivations were built and which broke", () => {
    const derivations = [
      derivation("gems", { state: "built", endedAt: at(72) }),
      derivation("docs", { state: "hash-mismatch", endedAt: at(33), reason: "got sha256-x" }),
      derivation("assets"),
      derivation("libc", { state: "cached" }),
    ];
    const changed = event("derivation.changed", { job: job(), derivations });
    expect(plain(derivationLines(changed, { onlyFailed: true }))).toBe(
      "0199c0de-7a11  hash-mismatch docs  0:09  got sha256-x",
    );
    expect(plain(derivationLines(changed, { onlyFailed: false }))).toBe(
      "0199c0de-7a11  built      gems  0:48\n0199c0de-7a11  hash-mismatch docs  0:09  got sha256-x",
    );
  });
});

describe("the block of a job that goes on", () => {
  const building = job({
    state: "running",
    phase: "building",
    runner: RUNNER_ID,
    startedAt: at(0),
    progress: PROGRESS,
  });

  it("shows phase, counters, runner, clock and what is being built", () => {
    const derivations = [
      derivation("mastodon-gems"),
      derivation("mastodon-assets", { phase: "unpackPhase", startedAt: at(69) }),
      derivation("mastodon-docs", { state: "failed", endedAt: at(33) }),
      derivation("libc", { state: "built" }),
    ];
    expect(block(watched(building, derivations))).toBe(
      [
        "site r18  building  40/62  250 cached  king  1:12",
        "  ✗ mastodon-docs    failed after 0:09",
        "  ▸ mastodon-gems    buildPhase     0:48",
        "  ▸ mastodon-assets  unpackPhase    0:03",
      ].join("\n"),
    );
  });

  it("says why it waits, and how long that may take", () => {
    expect(block(watched(job({ waiting })))).toBe("site r18  queued  1 job comes first.  1:12  eta 1:34");
  });

  it("says that the connection is gone", () => {
    expect(block(watched(building, [], "offline"))).toBe(
      "site r18  building  40/62  250 cached  king  1:12  reconnecting…",
    );
  });

  it("never has more lines or columns than the screen, however much goes on", () => {
    const many = Array.from({ length: 50 }, (_, index) => derivation(`a-derivation-with-quite-a-long-name-${index}`));
    const lines = block(watched(building, many), { columns: 40, rows: 10 }).split("\n");
    expect(lines).toHaveLength(8);
    expect(lines.at(-1)).toBe("    and 44 more");
    expect(lines.every((line) => line.length < 40)).toBe(true);
  });

  it("is empty once the job has ended, and for a job that is not known", () => {
    expect(block(watched(job({ state: "succeeded" })))).toBe("");
    expect(jobBlock({ state: initialWatch(), job: JOB_ID, names: NAMES, now: 0 }, SCREEN)).toEqual([]);
  });
});

it("has an end line for jobs that never ran", () => {
  expect(plain(endLine(job({ state: "cancelled", reason: { code: "cancelled", detail: "" } })))).toBe(
    "0199c0de-7a11  • cancelled  cancelled",
  );
});

it.each([
  ["succeeded", "plumule verify 0199c0de-7a11"],
  ["failed", "plumule why 0199c0de-7a11"],
  ["held", "plumule approve 0199c0de-7a11"],
  ["running", "plumule watch 0199c0de-7a11"],
  ["cancelled", "plumule rerun 0199c0de-7a11"],
  ["unknown", "plumule resolve 0199c0de-7a11 succeeded|failed|cancelled"],
] as const)("names the next command after %s", (state, next) => expect(hintFor(job({ state }))).toBe(next));

it("shows the last lines of what failed first, and of nothing else", () => {
  const reason = {
    code: "build-failed" as const,
    detail: "lab-c: builder failed with exit code 3",
    derivation: "/nix/store/0rrfkq03ir42my3d8xvzx317gginfq2b-lab-c.drv",
    lines: ["compiling", "boom\u001b[2J in c"],
  };
  expect(lastLines(job({ reason })).map(plain)).toEqual(["last lines of lab-c:", "  compiling", "  boom in c"]);
  expect(lastLines(job({ reason: { code: "cancelled", detail: "" } }))).toEqual([]);
  expect(lastLines(job())).toEqual([]);
});
