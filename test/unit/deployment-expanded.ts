import { type Expansion, type JobId, type Stranger, type SubmitBody } from "@plumule/protocol";
import { expect } from "vitest";
import { brokenRule } from "#durable-objects/deployment/core/invariants.ts";
import type { Job, State } from "#durable-objects/deployment/core/model.ts";
import type { Decided } from "#durable-objects/deployment/core/work.ts";
import {
  at,
  claimed,
  decided,
  draftsOf,
  EMPTY,
  finish,
  heartbeat,
  proofOf,
  resultOf,
  START,
  submitted,
} from "./deployment-builders.ts";

const SOURCE = { repository: "https://example.org/garden.git", commit: "a".repeat(40) };
export const FILE: Partial<SubmitBody> = { task: { kind: "repository" }, source: SOURCE };
export const STRANGER: Stranger = { author: "did:key:stranger", why: "a stranger", approvers: [] };

/** lint → test (two combinations) → site, and docs beside them. */
export const JOBS: Expansion["jobs"] = {
  site: { kind: "nix-build", needs: ["test"] },
  lint: { kind: "shell" },
  test: { kind: "shell", needs: ["lint"], matrix: { node: ["20", "22"] }, requires: { labels: ["node-{node}"] } },
  docs: { kind: "shell" },
};

/** A decision as the ledger keeps it: it breaks no rule. */
export function kept<T>(before: State, answer: Decided<T>, now = START): Decided<T> {
  expect(brokenRule(before, answer, now)).toBeNull();
  return answer;
}

export function begun(state: State, job: JobId, now = START): State {
  const taken = kept(state, claimed(state, job, now), now).state;
  return decided(heartbeat(taken, { ...proofOf(taken, job), isolation: null }, at(now))).state;
}

export function ended(
  state: State,
  job: JobId,
  outcome: "succeeded" | "failed" | "skipped",
  now = START,
): Decided<unknown> {
  return kept(state, decided(finish(state, resultOf(proofOf(state, job), outcome), at(now))), now);
}

export type Expanded = { state: State; parent: JobId; steps: Job[]; named: (name: string) => Job };

/** A lane whose job has read a file, and what it queued. */
export function expanded(
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
