import type { CommitState, JobState, JobView } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import { goesForward, reportOf } from "../../durable-objects/namespace/core/status.ts";

type Part = Parameters<typeof reportOf>[0][number];

const jobIn = (state: JobState, changes: Partial<JobView> = {}): Part => {
  const view = { id: `job-${state}`, state, reason: null, waiting: null, ...changes } as JobView;
  return { deployment: "app", job: view.id, detail: "submitted", pending: false, view };
};
const skipped: Part = { deployment: null, job: null, detail: "no pattern matches", pending: false, view: null };
const onItsWay: Part = { deployment: "app", job: null, detail: "on its way", pending: true, view: null };
const unlisted: Part = { deployment: "app", job: "job-x", detail: "submitted", pending: false, view: null };
const refused: Part = {
  deployment: "app",
  job: null,
  detail: "refused (busy): Job 1 is running.",
  pending: false,
  view: null,
};

describe("what is told of a commit", () => {
  test.each<[string, Part[], CommitState, string]>([
    ["nothing", [], "failure", "No job"],
    ["only rules that do not match", [skipped], "failure", "No job: no pattern matches"],
    ["a job on its way", [skipped, onItsWay], "pending", "Queued."],
    ["a job that is not listed yet", [unlisted], "pending", "Queued."],
    [
      "a held job",
      [jobIn("held", { waiting: { detail: "A person has to approve." } as JobView["waiting"] })],
      "pending",
      "A person has to approve.",
    ],
    ["one that runs beside one that failed", [jobIn("failed"), jobIn("running")], "running", "at work"],
    ["one that waits beside one that succeeded", [jobIn("succeeded"), jobIn("queued")], "pending", "Queued."],
    [
      "one that failed beside one that succeeded",
      [jobIn("succeeded"), jobIn("failed", { reason: { code: "exit-code", detail: "Exit 1." } })],
      "failure",
      "Exit 1.",
    ],
    ["one that was refused", [jobIn("succeeded"), refused], "failure", "refused (busy)"],
    ["two that succeeded", [jobIn("succeeded"), jobIn("skipped"), skipped], "success", "2 jobs succeeded."],
    ["one that gave way", [jobIn("superseded")], "failure", "app"],
    ["one of which nobody knows", [jobIn("unknown")], "failure", "app"],
    ["one that is being stopped", [jobIn("cancelling")], "running", "at work"],
  ])("by %s", (_, parts, state, description) => {
    const report = reportOf(parts);
    expect(report.state).toBe(state);
    expect(report.description).toContain(description);
    expect(report.description.length).toBeLessThanOrEqual(140);
  });

  test("never goes back, and nothing follows an end", () => {
    const states = ["pending", "running", "success", "failure"] as const;
    const allowed = [null, ...states].flatMap((last) =>
      states.filter((next) => goesForward(last, next)).map((next) => `${last} ${next}`),
    );
    expect(allowed).toEqual([
      "null pending",
      "null running",
      "null success",
      "null failure",
      "pending running",
      "pending success",
      "pending failure",
      "running success",
      "running failure",
    ]);
  });
});
