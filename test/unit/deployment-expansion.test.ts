import { expandedSteps, type Expansion, type JobId, LIMITS, type Stranger, type SubmitBody } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import type { Job, State } from "#durable-objects/deployment/core/model.ts";
import { comingBack } from "#durable-objects/deployment/core/rerun.ts";
import { planSweep } from "#durable-objects/deployment/core/retention.ts";
import { comparedWith, withBuilt } from "#durable-objects/deployment/core/unchanged.ts";
import { offerable } from "#durable-objects/deployment/core/tickets.ts";
import { waitingOf } from "#durable-objects/deployment/core/views.ts";
import type { Decided } from "#durable-objects/deployment/core/work.ts";
import {
  approve,
  at,
  cancel,
  claimed,
  decided,
  draftsOf,
  EMPTY,
  finish,
  heartbeat,
  jobIn,
  proofOf,
  resultOf,
  START,
  submission,
  submit,
  submitted,
} from "./deployment-builders.ts";

const SOURCE = { repository: "https://example.org/garden.git", commit: "a".repeat(40) };
const FILE: Partial<SubmitBody> = { task: { kind: "repository" }, source: SOURCE };
const STRANGER: Stranger = { author: "did:key:stranger", why: "a stranger", approvers: [] };
const WHY = { code: "cancelled" as const, detail: "asked for" };

/** lint → test (two combinations) → site, and docs beside them. */
const JOBS: Expansion["jobs"] = {
  site: { kind: "nix-build", needs: ["test"] },
  lint: { kind: "shell" },
  test: { kind: "shell", needs: ["lint"], matrix: { node: ["20", "22"] }, requires: { labels: ["node-{node}"] } },
  docs: { kind: "shell" },
};

/** A decision as the ledger keeps it: it breaks no rule. */
function kept<T>(before: State, answer: Decided<T>, now = START): Decided<T> {
  expect(brokenRule(before, answer, now)).toBeNull();
  return answer;
}

function begun(state: State, job: JobId, now = START): State {
  const taken = kept(state, claimed(state, job, now), now).state;
  return decided(heartbeat(taken, { ...proofOf(taken, job), isolation: null }, at(now))).state;
}

function ended(state: State, job: JobId, outcome: "succeeded" | "failed" | "skipped", now = START): Decided<unknown> {
  return kept(state, decided(finish(state, resultOf(proofOf(state, job), outcome), at(now))), now);
}

type Expanded = { state: State; parent: JobId; steps: Job[]; named: (name: string) => Job };

/** A lane whose job has read a file, and what it queued. */
function expanded(
  jobs = JOBS,
  body: Partial<SubmitBody> = FILE,
  before: State = EMPTY,
  digests: readonly string[] = [],
): Expanded {
  const { state, job: parent } = submitted(before, body);
  const running = begun(state, parent);
  const drafts = draftsOf(jobs, body).map((one, index) => ({ ...one, taskSha256: digests[index] ?? one.taskSha256 }));
  const change = finish(running, resultOf(proofOf(running, parent), "succeeded", { steps: drafts }), at(START));
  const { state: after, jobs: touched } = kept(running, decided(change));
  const steps = touched.filter(({ step }) => step?.parent === parent);
  const named = (name: string): Job => {
    const found = steps.find(({ step }) => step?.name === name);
    if (found === undefined) throw new Error(`no step ${name}`);
    return found;
  };
  return { state: after, parent, steps, named };
}

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

describe("a step that is done once more", () => {
  /** The newest job of each step after some of them have ended so, one after the other. */
  function after(ends: Record<string, "succeeded" | "failed">): {
    state: State;
    newest: (name: string) => Job;
    all: () => Job[];
  } {
    const { state: first, steps } = expanded();
    const known = new Map(steps.map((one) => [one.step?.name, one]));
    let state = first;
    for (const [name, outcome] of Object.entries(ends)) {
      const { id } = known.get(name)!;
      const change = ended(begun(state, id), id, outcome);
      for (const job of change.jobs) known.set(job.step?.name, job);
      state = change.state;
    }
    return { state, newest: (name) => known.get(name)!, all: () => [...known.values()] };
  }
  const namesOf = (back: ReturnType<typeof comingBack>): (string | undefined)[] | string =>
    "refused" in back ? `${back.detail} ${back.next}` : back.map(({ step }) => step?.name);

  it("brings back what was not run because of it, and what needs that, but not what lacks something else too", () => {
    const lint = after({ lint: "failed" });
    expect(namesOf(comingBack(lint.newest("lint"), lint.all()))).toEqual(["test (node=20)", "test (node=22)", "site"]);
    const both = after({ lint: "succeeded", "test (node=20)": "failed", "test (node=22)": "failed" });
    expect(namesOf(comingBack(both.newest("test (node=20)"), both.all()))).toEqual([]);
    const one = after({ lint: "succeeded", "test (node=20)": "failed", "test (node=22)": "succeeded" });
    expect(namesOf(comingBack(one.newest("test (node=20)"), one.all()))).toEqual(["site"]);
    expect(namesOf(comingBack(one.newest("lint"), one.all()))).toEqual([]);
    // What needs a step that failed does not run without it.
    expect(namesOf(comingBack(one.newest("site"), one.all()))).toMatch(
      /needs `test \(node=20\)`, which ended failed. Rerun job .*: what was not run because of it comes with it./,
    );
  });

  it("was never allowed, and is not by doing it again", () => {
    const { steps } = expanded({ apply: { kind: "effect" }, after: { kind: "shell", needs: ["apply"] } });
    expect(namesOf(comingBack(steps[0]!, steps))).toContain("was never allowed");
  });

  it("stands with what comes back where it stood, once, and its end counts for them", () => {
    const { state: failed, newest, all } = after({ lint: "failed" });
    const waiting = submitted(failed, {}, START + 1);
    const back = comingBack(newest("lint"), all());
    if ("refused" in back) throw new Error(back.detail);
    const again = (job: Job): Pick<Parameters<typeof submit>[1], "step" | "brief"> & { rerunOf: JobId } => ({
      step: job.step!,
      brief: job.brief,
      rerunOf: job.id,
    });
    const followers = back.map((job) => ({
      ...submission(),
      ...again(job),
      step: job.step!,
      body: { task: FILE.task! },
    }));
    const input = submission({}, { ...again(newest("lint")), followers }, START + 2);
    const change = kept(waiting.state, decided(submit(waiting.state, input, at(START + 2))), START + 2);
    expect(change.answer.followers).toHaveLength(3);
    expect(offerable(change.state.jobs, START + 2)?.step?.name).toBe("docs");
    expect(submit(change.state, input, at(START + 3))).toMatchObject({
      refused: "wrong-state",
      detail: expect.stringContaining("`lint` has not ended") as string,
    });
    // `docs` was there before; then what was done again, and only then what came later.
    let { state } = change;
    const order: (string | undefined)[] = [];
    for (let next = offerable(state.jobs, START + 3); next !== null; next = offerable(state.jobs, START + 3)) {
      order.push(next.step?.name);
      ({ state } = ended(begun(state, next.id, START + 3), next.id, "succeeded", START + 3));
    }
    expect(order).toEqual(["docs", "lint", "test (node=20)", "test (node=22)", "site", undefined]);
  });
});

describe("a step that builds", () => {
  const SKIPPING: Partial<SubmitBody> = { ...FILE, skipUnchanged: true };
  const BUILDS: Expansion["jobs"] = {
    site: { kind: "nix-build", matrix: { host: ["king", "queen"] } },
    docs: { kind: "shell" },
  };
  const DIGESTS = ["1", "2", "3"].map((digit) => digit.repeat(64));
  /** Reads the file once more and ends its steps one after the other so; the steps, and what each would be compared with before it began. */
  function pushed(
    before: State,
    body: Partial<SubmitBody>,
    outcomes: readonly Parameters<typeof ended>[2][],
  ): { state: State; steps: Job[]; known: (JobId | null)[] } {
    let { state, steps } = expanded(BUILDS, body, before, DIGESTS);
    const known = steps.map((step) => comparedWith(state.lane, step));
    for (const [index, { id }] of steps.entries())
      ({ state } = ended(begun(state, id), id, outcomes[index] ?? "failed"));
    return { state, steps, known };
  }

  it("is compared with the last success of the same step and combination, which a skipped one leaves as it is", () => {
    const first = pushed(EMPTY, SKIPPING, ["succeeded", "succeeded", "succeeded"]);
    const [king, queen] = first.steps.map(({ id }) => id) as [JobId, JobId];
    expect(first.known).toEqual([null, null, null]);
    const second = pushed(first.state, SKIPPING, ["skipped", "failed", "succeeded"]);
    expect(second.known).toEqual([king, queen, null]);
    // Also a push that does not ask to be skipped is the last success from then on.
    const third = pushed(second.state, FILE, ["succeeded", "failed", "succeeded"]);
    const fourth = pushed(third.state, SKIPPING, []);
    expect(fourth.known).toEqual([third.steps[0]!.id, queen, null]);
    expect(
      planSweep(Array.from({ length: LIMITS.jobsKept }, () => first.steps[2]!).concat(first.steps), fourth.state.lane)
        .jobs,
    ).not.toContain(first.steps[1]);
  });

  it("is remembered for a bounded number of steps, and not where nothing asks for it or a stranger has built it", () => {
    expect(pushed(EMPTY, FILE, ["succeeded", "succeeded"]).state.lane.builtSteps).toEqual([]);
    const { steps } = expanded(BUILDS, SKIPPING);
    const many = Array.from({ length: LIMITS.builtSteps }, (_, index) => ({ taskSha256: String(index), job: "x" }));
    const after = withBuilt(many, steps[0]!);
    expect([after.length, after[0]?.taskSha256, after.at(-1)?.job]).toEqual([LIMITS.builtSteps, "1", steps[0]!.id]);
    expect(withBuilt(many, { ...steps[0]!, brief: { ...steps[0]!.brief, stranger: STRANGER } })).toBe(many);
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
