import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { isRefusal, jobViewSchema, runIdOf, type JobId, type SubmitBody } from "@plumule/protocol";
import { afterEach, expect, it, vi } from "vitest";
import { namespaceObject } from "../../durable-objects/shared/names.ts";
import {
  codeOf,
  eventsOf,
  guardOf,
  newHouse,
  ok,
  rowsWritten,
  Runner,
  submit,
  type House,
} from "./deployment-harness.ts";

afterEach(() => {
  vi.useRealTimers();
});

const SHELL: SubmitBody = { task: { kind: "shell", script: "true" } };
const stateOf = async ({ deployment }: House, job: JobId): Promise<string> => ok(await deployment.job(job)).job.state;

it("gives a job to a parked runner in one commit, and ends it with a signed result", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { answer } = await runner.park();
  const submitted = await submit(house);
  expect(submitted.job).toMatchObject({ state: "assigned", runner: runner.id, attempt: 1 });
  expect(jobViewSchema.safeParse(submitted.job).success).toBe(true);
  const assignment = (await answer)!;
  expect(assignment).toMatchObject({ job: submitted.job.id, run: runIdOf(submitted.job.id, 1), spec: SHELL });
  expect(ok(await runner.beat(assignment))).toMatchObject({ command: null });
  expect(ok(await runner.finish(assignment, "succeeded", "hello\n"))).toEqual({
    accepted: true,
    late: false,
    state: "succeeded",
  });
  const events = await eventsOf(house);
  expect(events.map(({ type }) => type)).toEqual([
    "job.queued",
    "job.assigned",
    "deployment.state",
    "job.running",
    "run.finished",
    "job.succeeded",
    "deployment.state",
  ]);
  expect(events.map(({ sequence }) => Number(sequence))).toEqual([1, 2, 3, 4, 5, 6, 7]);
  const { deployment } = ok(await house.deployment.read());
  expect(deployment).toMatchObject({ state: "active", currentJob: submitted.job.id, activeJob: null });
});

it("writes at most 14 rows for a short job, from submit to result", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const first = await runner.park();
  await submit(house);
  const warm = (await first.answer)!;
  await runner.beat(warm);
  await runner.finish(warm, "succeeded", "warm\n");
  await vi.waitFor(async () =>
    expect(
      await namespaceObject(env, house.namespace).listJobs({
        state: "succeeded",
        deployment: "web",
        commit: null,
        cursor: null,
        limit: 10,
      }),
    ).toMatchObject({ items: [{}] }),
  );
  const before = await rowsWritten(house);
  const { answer } = await runner.park();
  await submit(house, {}, crypto.randomUUID());
  const assignment = (await answer)!;
  await runner.beat(assignment);
  await runner.finish(assignment, "succeeded", "hello\n");
  await vi.waitFor(async () =>
    expect(
      await namespaceObject(env, house.namespace).listJobs({
        state: "succeeded",
        deployment: "web",
        commit: null,
        cursor: null,
        limit: 10,
      }),
    ).toMatchObject({ items: [{}, {}] }),
  );
  const rows = (await rowsWritten(house)) - before;
  console.log("ROWS", rows);
  expect(rows).toBeLessThanOrEqual(14);
});
