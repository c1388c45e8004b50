import { type Expansion, type JobId, LIMITS, type SubmitBody } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import type { Job, State } from "#durable-objects/deployment/core/model.ts";
import { noteWaiting } from "#durable-objects/deployment/core/pool-news.ts";
import { comingBack } from "#durable-objects/deployment/core/rerun.ts";
import { planSweep } from "#durable-objects/deployment/core/retention.ts";
import { offerable } from "#durable-objects/deployment/core/tickets.ts";
import { comparedWith, withBuilt } from "#durable-objects/deployment/core/unchanged.ts";
import { waitingOf } from "#durable-objects/deployment/core/views.ts";
import { at, decided, EMPTY, jobIn, START, submission, submit, submitted } from "./deployment-builders.ts";
import { begun, ended, expanded, FILE, kept, STRANGER } from "./deployment-expanded.ts";

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

it("says behind which step others wait that no runner takes, and why", () => {
  const { state, named } = expanded();
  const [lint, docs] = [named("lint"), named("docs")];
  const waiting = { ...waitingOf(state.jobs, lint, START)!, detail: "No runner has the system riscv64-linux." };
  const change = noteWaiting(state, [{ job: lint.id, waiting }], at(START));
  expect(waitingOf(change.state.jobs, docs, START)).toMatchObject({
    reason: "position",
    position: 4,
    detail: `4 jobs of this deployment come first. Next is job ${lint.id} (\`lint\`): No runner has the system riscv64-linux.`,
  });
  // While one runs, what comes after it is not what others wait for.
  const running = begun(state, lint.id);
  expect(waitingOf(running.jobs, jobIn(running, docs.id), START)?.detail).toBe("4 jobs of this deployment come first.");
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
    const { state: read, steps } = expanded(BUILDS, body, before, DIGESTS);
    let state = read;
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
