import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RepositoryStep, SubmitBody } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { StopOrder } from "../../runner/src/core/model.ts";
import { UNCONFINED } from "../../runner/src/isolation.ts";
import { withoutSecrets } from "../../runner/src/secrets/without-secrets.ts";
import { runSteps } from "../../runner/src/tasks/steps.ts";
import type { TaskContext, TaskEnd } from "../../runner/src/tasks/task.ts";

let checkout: string;
let log: string;
let stop: AbortController;
beforeEach(async () => {
  checkout = await mkdtemp(join(tmpdir(), "plumule-task-steps-"));
  await mkdir(join(checkout, ".radicle"));
  log = "";
  stop = new AbortController();
});
afterEach(() => rm(checkout, { recursive: true, force: true }));

/** Runs a task file with real processes, without Nix. */
async function run(
  file: string,
  over: Partial<TaskContext> = {},
  task?: string,
  spec: Partial<SubmitBody> = {},
  part: { step?: RepositoryStep; schedule?: string } = {},
): Promise<TaskEnd> {
  await writeFile(join(checkout, ".radicle/plumule.yaml"), file);
  const context = {
    machine: { isolation: "process-group", nix: null },
    workspace: { checkout },
    assignment: { limits: { graceMs: 1_000 }, spec },
    untrusted: false,
    commit: null,
    env: { PATH: process.env["PATH"] ?? "" },
    secrets: withoutSecrets(() => {}),
    reporter: { phase: () => {} },
    log: (chunk: Uint8Array | string) => (log += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString()),
    stop: stop.signal,
    kill: new AbortController().signal,
    survivors: { killedCount: 0, leftoverCount: 0 },
    ran: { isolation: null },
    within: UNCONFINED,
    silenceMs: 60_000,
    ...over,
  } as unknown as TaskContext;
  return runSteps(context, { kind: "repository", ...(task === undefined ? {} : { task }), ...part });
}

/** Runs one step of a task file alone. */
function runStep(file: string, step: RepositoryStep, over: Partial<TaskContext>): Promise<TaskEnd> {
  return run(file, over, undefined, {}, { step });
}

describe("a task file whose jobs ask for something of their own", () => {
  const file = `jobs:
  lint: { shell: echo LINTING }
  test: { shell: echo TESTING, needs: lint, matrix: { os: [a, b] }, requires: { labels: ["os-{os}"] }, secrets: KEY }
  deploy: { effect: { installable: .#deploy, plan: cat plan }, locks: host }
`;
  const given = (spec: Partial<SubmitBody> = {}, more: object = {}): Partial<TaskContext> => ({
    assignment: { expands: true, limits: { graceMs: 1_000 }, spec, ...more } as unknown as TaskContext["assignment"],
  });

  it("is read, not run: the end says what is to be queued, and no script", async () => {
    expect(await run(file, given())).toEqual({
      outcome: "succeeded",
      exitCode: 0,
      reason: null,
      targets: [],
      expansion: {
        jobs: {
          lint: { kind: "shell" },
          test: {
            kind: "shell",
            needs: ["lint"],
            matrix: { os: ["a", "b"] },
            requires: { labels: ["os-{os}"] },
            secrets: ["KEY"],
          },
          deploy: { kind: "effect", locks: ["host"], planned: true },
        },
      },
    });
    expect(log).toContain("each of the 4 steps becomes a job");
    expect(log).not.toContain("LINTING");
  });

  it("is run as ever where what is asked for needs none of it", async () => {
    expect(await run(file, given(), "lint")).not.toHaveProperty("expansion");
    expect(log).toContain("[plumule] .radicle/plumule.yaml: lint\nLINTING\n");
    expect((await run(file, given(), "test")).expansion?.jobs).toHaveProperty("lint");
    expect((await run(file, given(), "test")).expansion?.jobs).not.toHaveProperty("deploy");
  });

  it.each<[string, Partial<TaskContext>, string]>([
    ["a quorum", given({ quorum: { replicas: 2, agree: 2 } }), "a quorum compares one run with another"],
    ["a teardown", given({}, { teardown: true }), "a teardown cannot become jobs"],
    [
      "a body that is too large as often",
      given({ configuration: "x".repeat(2_100_000) }),
      "4 jobs, each with what was",
    ],
  ])("fails for %s, and is never green without being done", async (_, over, detail) => {
    const end = await run(file, over);
    expect(end).toMatchObject({ outcome: "failed", reason: { code: "task-invalid" } });
    expect(end.reason?.detail).toContain(detail);
    expect(end).not.toHaveProperty("expansion");
  });

  it("is left to others where it was given by nobody who would make jobs of it", async () => {
    expect(await run(file, given({}, { expands: undefined }))).toMatchObject({
      outcome: "refused",
      reason: { code: "refused", detail: expect.stringContaining("only a broker that knows of it") },
    });
  });

  const step = { job: "test", matrix: { os: "b" }, kind: "shell" as const };
  const boxed = { name: "KEY", box: "AAAA", runners: [] };
  const fitting = { requires: { labels: ["os-b"] }, secrets: [boxed] };

  it("is done a step at a time, alone, in the matrix of that step", async () => {
    const end = await runStep(file.replace("TESTING", "$MATRIX_OS"), step, given(fitting));
    expect(end.outcome).toBe("succeeded");
    expect(log).toBe("[plumule] .radicle/plumule.yaml: test (os=b)\nb\n");
  });

  it.each<[string, RepositoryStep, Partial<SubmitBody>, string]>([
    ["has no such step", { ...step, matrix: { os: "c" } }, fitting, "has no step `test (os=c)`"],
    ["is of another kind", { ...step, kind: "effect" }, fitting, "what kind of work it is"],
    ["has a plan", { job: "deploy", kind: "effect" }, { locks: ["host"] }, "what kind of work it is"],
    [
      "is an effect that nobody allowed",
      { job: "deploy", kind: "effect", planned: true },
      { task: { kind: "repository" }, locks: ["host"] },
      "an effect, which the job was not submitted for",
    ],
    ["names no such secret", step, { ...fitting, secrets: [boxed, { ...boxed, name: "OTHER" }] }, "no secret OTHER"],
    ["names a secret that is missing", step, { requires: fitting.requires }, "names the secret KEY"],
    ["requires more", step, { secrets: [boxed] }, "it requires os-b"],
  ])("is not done where the file %s", async (_, wanted, spec, detail) => {
    const end = await runStep(file, wanted, given(spec));
    expect(end).toMatchObject({ outcome: "failed", reason: { code: "task-invalid" } });
    expect(end.reason?.detail).toContain(detail);
    expect(log).not.toContain("TESTING");
  });
});

describe("the schedules of a task file", () => {
  const file = `schedules:
  nightly: { cron: 0 3 * * *, jobs: deep }
  weekly: { cron: 0 4 * * sun, branches: [trunk, release/1] }
jobs: { a: { shell: "test ! -v BREAK" }, deep: { shell: echo DEEP, on: schedule } }
`;
  const on = (ref: string): Partial<SubmitBody> => ({
    source: { repository: "https://example.org/x", commit: "a".repeat(40), ref },
  });
  const main = on("refs/heads/main");
  const stated = async (over?: Partial<TaskContext>, task?: string, spec?: Partial<SubmitBody>) =>
    (await run(file, over, task, spec)).schedules;

  it("are stated by a run of all that is for a push, as far as they are for its branch", async () => {
    expect(await stated({}, undefined, main)).toEqual([{ name: "nightly", cron: "0 3 * * *" }]);
    expect(log).not.toContain("DEEP");
    expect(await stated({}, undefined, on("refs/heads/release/1"))).toEqual([{ name: "weekly", cron: "0 4 * * sun" }]);
    expect(await stated({}, undefined, on("refs/tags/main"))).toEqual([]);
  });

  it("are not stated by a run that failed, of one job, without a ref, or of a schedule, which is the one whose jobs are run", async () => {
    expect(await stated({ env: { BREAK: "x", PATH: process.env["PATH"] ?? "" } }, undefined, main)).toBeUndefined();
    expect(await stated({}, "a", main)).toBeUndefined();
    expect(await stated()).toBeUndefined();
    expect(await run(file, {}, undefined, main, { schedule: "nightly" })).not.toHaveProperty("schedules");
    expect(log).toContain("[plumule] .radicle/plumule.yaml, schedule nightly: deep\nDEEP\n");
  });
});

describe("the steps of a task file", () => {
  it("come after what they need, otherwise in the order of the file, and each end is said", async () => {
    const end = await run("jobs:\n  b: { shell: echo B, needs: a }\n  a: { shell: echo A }\n  c: { shell: echo C }\n");
    expect(end).toEqual({ outcome: "succeeded", exitCode: 0, reason: null, targets: [] });
    expect(log).toBe(
      "[plumule] .radicle/plumule.yaml: a, b, c\n" +
        "[plumule] a\nA\n[plumule] a: succeeded\n[plumule] b\nB\n[plumule] b: succeeded\n[plumule] c\nC\n[plumule] c: succeeded\n",
    );
  });

  it("go on after one that failed, without those that need it", async () => {
    const end = await run(
      "jobs:\n  a: { shell: exit 3 }\n  b: { shell: echo B, needs: [a] }\n  c: { shell: echo C, needs: [b] }\n  d: { shell: exit 4 }\n  e: { shell: echo E }\n",
    );
    expect(end).toEqual({
      outcome: "failed",
      exitCode: 3,
      reason: {
        code: "exit-code",
        detail: "`a`: The script ended with exit code 3. Failed too: `d`. Not run: `b`, `c`.",
      },
      targets: [],
    });
    expect(log).toContain("[plumule] a: failed\n[plumule] b: not run, because it needs a\n");
    expect(log).toContain("[plumule] c: not run, because it needs b\n");
    expect(log).toContain("E\n[plumule] e: succeeded\n");
  });

  it("are one for each combination of a matrix, which the script finds in its environment", async () => {
    const end = await run(
      'jobs:\n  t:\n    matrix: { os: [a, "b c"], node: ["3.10"] }\n    shell: \'test "$MATRIX_OS" != a; echo "$MATRIX_OS on $MATRIX_NODE"\'\n  after: { shell: echo never, needs: t }\n',
    );
    expect(log).toContain("[plumule] t (os=b c, node=3.10)\nb c on 3.10\n");
    expect(end.reason?.detail).toBe("`t (os=a, node=3.10)`: The script ended with exit code 1. Not run: `after`.");
  });

  it("have their own environment, in which whoever submits has the last word", async () => {
    await run("jobs: { a: { shell: 'echo $ONE $TWO', env: { ONE: file, TWO: file } } }", {
      env: { PATH: process.env["PATH"] ?? "", TWO: "submit" },
    });
    expect(log).toContain("file submit\n");
  });

  it("are those of one job by its name, with all that it needs", async () => {
    await run("jobs: { a: { shell: echo A }, b: { shell: echo B, needs: a }, c: { shell: echo C } }", {}, "b");
    expect(log).toContain("[plumule] .radicle/plumule.yaml: a, b\n");
    expect(log).not.toContain("C");
  });

  it("are stopped by their own time-outs, and the run goes on", async () => {
    const end = await run(
      "jobs:\n  long: { shell: sleep 60, timeouts: { runMs: 100 } }\n  quiet: { shell: echo x; sleep 60, timeouts: { silenceMs: 100 } }\n  next: { shell: echo next }\n",
    );
    expect(end).toMatchObject({
      outcome: "failed",
      reason: { code: "run-timeout", detail: "`long`: The step took longer than 100 ms. Failed too: `quiet`." },
    });
    expect(log).toContain("next\n[plumule] next: succeeded\n");
  });

  it("are not compared with the last success, which says nothing about scripts", async () => {
    const end = await run("jobs: { a: { shell: echo A }, b: { shell: echo B } }", { lastSuccess: null });
    expect(end.outcome).toBe("succeeded");
    expect(log.match(/not compared with the last success/g)).toHaveLength(1);
  });

  it("end with the run when it is stopped, whatever they have still to do", async () => {
    const order: StopOrder = { reason: { code: "cancelled", detail: "by a person" }, graceMs: null, leaseLost: false };
    const ended = run("jobs: { a: { shell: 'echo ready; sleep 60' }, b: { shell: echo B } }");
    await expect.poll(() => log).toContain("ready");
    stop.abort(order);
    expect(await ended).toMatchObject({ outcome: "cancelled", reason: order.reason });
    expect(log).not.toContain("B\n");
  });
});
