import { expandedSteps, type Expansion, type JobId, LIMITS, type Stranger, type SubmitBody } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import type { State } from "#durable-objects/deployment/core/model.ts";
import { offerable } from "#durable-objects/deployment/core/tickets.ts";
import { waitingOf } from "#durable-objects/deployment/core/views.ts";
import {
  approve,
  at,
  cancel,
  claimed,
  decided,
  draftsOf,
  EMPTY,
  finish,
  jobIn,
  proofOf,
  resultOf,
  START,
  submitted,
} from "./deployment-builders.ts";
import { begun, ended, expanded, FILE, JOBS, kept, STRANGER } from "./deployment-expanded.ts";

const WHY = { code: "cancelled" as const, detail: "asked for" };

describe("a task file that becomes jobs of the lane", () => {
  it("is queued in the order of its needs, in the decision that ends the job that read it", () => {
    const { state, parent, steps } = expanded();
    expect(state.jobs.map(({ step }) => step?.name)).toEqual([
      "lint",
      "test (node=20)",
      "test (node=22)",
      "site",
      "docs",
    ]);
    expect(steps.map(({ brief }) => [brief.kind, brief.requires?.labels])).toEqual([
      ["shell", undefined],
      ["shell", ["node-20"]],
      ["shell", ["node-22"]],
      ["nix-build", undefined],
      ["shell", undefined],
    ]);
    // Only a runner that can do one step of a file is given one.
    for (const { brief } of steps) expect(brief.requires?.features).toContain("expansion");
    // Whoever read a file has made nothing that could be live.
    expect(state.lane).toMatchObject({ currentJob: null, lastResult: { job: parent, state: "succeeded" } });
  });

  it("keeps the place of the job that read it: what was submitted later comes after all of it", () => {
    const { state, job: first } = submitted(EMPTY, FILE);
    const { state: two, job: second } = submitted(state, {}, START + 1);
    const running = begun(two, first);
    const input = resultOf(proofOf(running, first), "succeeded", { steps: draftsOf(JOBS, FILE) });
    const after = decided(finish(running, input, at(START + 2))).state;
    expect(offerable(after.jobs, START + 2)?.step?.name).toBe("lint");
    expect(waitingOf(after.jobs, jobIn(after, second), START + 2)).toMatchObject({ reason: "position", position: 5 });
  });

  it("skips what needs a step that failed, and says which, and what needs that; the others go on", () => {
    const { state, named } = expanded();
    const lint = named("lint");
    const { state: after, jobs } = ended(begun(state, lint.id), lint.id, "failed");
    const skipped = jobs.filter(({ state: one }) => one === "skipped");
    expect(skipped.map(({ step, reason }) => [step?.name, reason?.need])).toEqual([
      ["test (node=20)", "lint"],
      ["test (node=22)", "lint"],
      ["site", "test"],
    ]);
    expect(skipped[0]?.reason?.detail).toContain("it needs `lint`, which ended failed");
    expect(after.jobs.map(({ step }) => step?.name)).toEqual(["docs"]);
  });

  it("takes a step that was skipped because nothing has changed for one that is done", () => {
    const { state, named } = expanded();
    const lint = named("lint");
    const { state: after } = ended(begun(state, lint.id), lint.id, "skipped");
    expect(offerable(after.jobs, START)?.step?.name).toBe("test (node=20)");
  });

  it("waits for a step whose plan has to be approved, and lets others go first meanwhile", () => {
    const { state, named } = expanded(
      {
        deploy: { kind: "effect", planned: true },
        smoke: { kind: "shell", needs: ["deploy"] },
        docs: { kind: "shell" },
      },
      { ...FILE, task: { kind: "repository", effects: true } },
    );
    const [deploy, smoke, docs] = ["deploy", "smoke", "docs"].map((name) => named(name).id) as [JobId, JobId, JobId];
    const plan = "c".repeat(64);
    const running = begun(state, deploy);
    const held = decided(finish(running, resultOf(proofOf(running, deploy), "skipped", { plan }), at(START))).state;
    expect(jobIn(held, deploy).state).toBe("held");
    expect(offerable(held.jobs, START)?.id).toBe(docs);
    expect(waitingOf(held.jobs, jobIn(held, smoke), START)?.detail).toBe(`It needs \`deploy\`: job ${deploy} is held.`);
    expect(waitingOf(held.jobs, jobIn(held, docs), START)?.position).toBe(0);
    // To grant it all the same would be a fault of the code.
    const stolen = {
      ...held,
      jobs: held.jobs.map((job) => (job.id === smoke ? { ...job, ticket: jobIn(held, docs).ticket } : job)),
    };
    expect(claimed(stolen, smoke).answer).toBeNull();
    const approved = decided(approve(held, { job: deploy, commit: null, plan }, at(START))).state;
    expect(offerable(approved.jobs, START)?.id).toBe(deploy);
  });

  it.each([
    ["one step, with what needs it", "lint", ["cancelled", "skipped", "skipped", "skipped", "queued"]],
    [
      "all steps by the job that read the file",
      null,
      ["cancelled", "cancelled", "cancelled", "cancelled", "cancelled"],
    ],
  ])("is cancelled: %s", (_, name, states) => {
    const { state, parent, steps, named } = expanded();
    const job = name === null ? parent : named(name).id;
    const change = kept(state, decided(cancel(state, { job, force: false, why: WHY, ifMatch: null }, at(START))));
    const after = new Map([...steps, ...change.jobs].map((one) => [one.id, one.state]));
    expect(steps.map(({ id }) => after.get(id))).toEqual(states);
  });

  it("is superseded by a newer job that replaces, like everything that waits", () => {
    const { state, steps } = expanded();
    const newer = submitted(state, { ...FILE, mode: "replace" }, START + 1);
    expect(newer.state.jobs.map(({ id }) => id)).toEqual([newer.job]);
    expect(steps).toHaveLength(5);
  });

  it.each(["replace", "cancel"])("is not queued when the job that read it was stopped meanwhile: %s", (how) => {
    const { state, job } = submitted(EMPTY, FILE);
    const running = begun(state, job);
    const stopping =
      how === "replace"
        ? submitted(running, { ...FILE, mode: "replace" }, START + 1).state
        : decided(cancel(running, { job, force: false, why: WHY, ifMatch: null }, at(START))).state;
    const input = resultOf(proofOf(running, job), "succeeded", { steps: draftsOf(JOBS, FILE) });
    const { answer, state: after } = decided(finish(stopping, input, at(START + 2)));
    expect(answer).toMatchObject({ state: how === "replace" ? "superseded" : "cancelled", queued: [] });
    expect(after.jobs.filter(({ step }) => step !== undefined)).toEqual([]);
    // Nor twice, by a result that comes with a lease that is over.
    expect(finish(after, input, at(START + 3))).toMatchObject({ refused: "stale-lease" });
  });

  it("has failed when there is no room for all of it, or its deployment is being removed", () => {
    const { state, job } = submitted(EMPTY, FILE);
    const running = begun(state, job);
    const input = resultOf(proofOf(running, job), "succeeded", { steps: draftsOf(JOBS, FILE) });
    const other = submitted(running, {}, START + 1);
    const template = jobIn(other.state, other.job);
    const full: State = {
      ...other.state,
      jobs: [
        jobIn(other.state, job),
        ...Array.from({ length: LIMITS.pendingJobs - 4 }, (_, at) => ({ ...template, id: `x${at}` })),
      ],
    };
    const removing: State = { ...running, lane: { ...running.lane, removing: true } };
    for (const [lane, detail] of [
      [full, `The task file asks for 5 jobs, ${LIMITS.pendingJobs - 4} wait in this deployment`],
      [removing, "The deployment is being removed"],
    ] as const) {
      const { answer, jobs } = decided(finish(lane, input, at(START + 2)));
      expect(answer).toMatchObject({ state: "failed", queued: [] });
      expect(jobs.find(({ id }) => id === job)?.reason?.detail).toContain(detail);
    }
  });
});

describe("what a task file may ask for", () => {
  const secrets = [{ name: "KEY", box: "AAAA", runners: [] }];
  const wants: Expansion["jobs"] = {
    deploy: { kind: "shell", secrets: ["KEY"] },
    apply: { kind: "effect" },
    lock: { kind: "shell", locks: ["host:king"] },
  };
  const refusals = (body: Partial<SubmitBody>, stranger: Stranger | null = null): (string | undefined)[] =>
    draftsOf(wants, body, stranger).map(({ refusal }) => refusal?.detail);

  it("is what was submitted, secrets and effects, and any lock", () => {
    const body: Partial<SubmitBody> = {
      ...FILE,
      task: { kind: "repository", effects: true },
      secrets,
      locks: ["tf"],
    };
    const [deploy, apply, lock] = draftsOf(wants, body);
    expect(refusals(body)).toEqual([undefined, undefined, undefined]);
    expect(deploy?.body).toMatchObject({ secrets, locks: ["tf"], task: { step: { job: "deploy", kind: "shell" } } });
    expect(apply).toMatchObject({ brief: { kind: "effect" } });
    expect(apply?.brief.requires?.features).toEqual(["expansion", "nix", "effects"]);
    expect(apply?.body).not.toHaveProperty("secrets");
    expect(lock?.body.locks).toEqual(["tf", "host:king"]);
  });

  it("is refused where it is more, each step for itself, and the lane says so", () => {
    expect(refusals(FILE)).toEqual([
      expect.stringContaining("asks for the secret KEY, which the job was not submitted with"),
      expect.stringContaining("asks for an effect, which the job was not submitted for"),
      undefined,
    ]);
    const { state, steps } = expanded({ ...wants, after: { kind: "shell", needs: ["deploy"] } });
    expect(state.jobs.map(({ step }) => step?.name)).toEqual(["lock"]);
    expect(steps.map(({ state: one }) => one)).toEqual(["failed", "failed", "queued", "skipped"]);
  });

  it("is nothing for the commit of a stranger, but the locks of the rule", () => {
    const body: Partial<SubmitBody> = { ...FILE, task: { kind: "repository", effects: true }, locks: ["host:king"] };
    expect(refusals(body, STRANGER)).toEqual([
      expect.stringContaining("the secret KEY, which the commit of a stranger does not get"),
      expect.stringContaining("an effect, which the commit of a stranger does not get"),
      undefined,
    ]);
    expect(refusals(FILE, STRANGER)[2]).toContain("the lock host:king");
  });

  it("narrows which runners may take it, and never widens", () => {
    const requires = { systems: ["x86_64-linux"], isolation: "userns" as const, pool: "tests" };
    const jobs: Expansion["jobs"] = {
      weaker: { kind: "shell", requires: { isolation: "cgroup", labels: ["kvm"] } },
      stronger: { kind: "shell", requires: { isolation: "bwrap" } },
      much: { kind: "shell", requires: { systems: Array.from({ length: 8 }, (_, at) => `s${at}`) } },
    };
    const [weaker, stronger, much] = draftsOf(jobs, { ...FILE, requires });
    expect(weaker?.body.requires).toEqual({ ...requires, labels: ["kvm"] });
    expect(stronger?.body.requires?.isolation).toBe("bwrap");
    expect(much?.refusal?.detail).toContain("requires more than a job can");
  });
});

describe("an expansion that no task file says", () => {
  it.each<[string, Expansion["jobs"], string]>([
    ["a need that is not there", { a: { kind: "shell", needs: ["b"] } }, "job a needs b, which is not there"],
    ["a circle", { a: { kind: "shell", needs: ["b"] }, b: { kind: "shell", needs: ["a"] } }, "circle"],
    [
      "too many combinations",
      { a: { kind: "shell", matrix: { x: range(64), y: range(5) } } },
      `more than ${LIMITS.taskFileSteps} steps`,
    ],
    ["a lock that is no name", { a: { kind: "shell", locks: ["Host"] } }, "is no such name"],
  ])("has a fault: %s", (_, jobs, detail) => {
    expect(expandedSteps({ jobs })).toEqual({ fault: expect.stringContaining(detail) as string });
  });
});

function range(count: number): string[] {
  return Array.from({ length: count }, (_, at) => String(at));
}
