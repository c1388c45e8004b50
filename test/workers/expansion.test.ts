import { evictDurableObject } from "cloudflare:test";
import { type Assignment, type Expansion, verifyStatement } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { eventsOf, type House, newHouse, ok, Runner, submit } from "./deployment-harness.ts";

const FILE = {
  task: { kind: "repository" },
  source: { repository: "https://example.org/garden.git", commit: "a".repeat(40) },
} as const;
const JOBS: Expansion["jobs"] = {
  test: { kind: "shell", matrix: { node: ["20", "22"] } },
  deploy: { kind: "shell", needs: ["test"], locks: ["host:king"] },
  after: { kind: "shell", needs: ["deploy"] },
};

/** A deployment whose job has read a task file. */
async function read(jobs = JOBS): Promise<{ house: House; runner: Runner; parent: Assignment }> {
  const house = await newHouse();
  const runner = await Runner.in(house);
  await submit(house, FILE);
  const parent = await runner.start();
  const body = await runner.resultOf(parent, "succeeded", { expansion: { jobs } });
  expect(ok(await runner.send(parent, body))).toMatchObject({ accepted: true, state: "succeeded" });
  // A result that is sent again, because its answer was lost, queues nothing again.
  expect(ok(await runner.send(parent, body))).toMatchObject({ accepted: true, state: "succeeded" });
  return { house, runner, parent };
}

const stepsOf = async ({ deployment }: House, job: string): Promise<string[]> =>
  (ok(await deployment.job(job)).steps ?? []).map(({ name, state }) => `${name} ${state}`);

describe("a task file that becomes jobs", () => {
  it("is kept with the result that brought it: an eviction between loses nothing, and each step is run and signed for itself", async () => {
    const { house, runner, parent } = await read();
    expect(parent).toMatchObject({ expands: true });
    await evictDurableObject(house.deployment);
    expect(await stepsOf(house, parent.job)).toEqual([
      "test (node=20) queued",
      "test (node=22) queued",
      "deploy queued",
      "after queued",
    ]);
    const first = await runner.start();
    expect(first.spec).toEqual({
      ...FILE,
      task: { kind: "repository", step: { job: "test", matrix: { node: "20" }, kind: "shell" } },
      mode: "queue",
    });
    expect(first).not.toHaveProperty("expands");
    ok(await runner.finish(first));
    const second = await runner.start();
    ok(await runner.finish(second, "failed"));
    await evictDurableObject(house.deployment);
    expect(await stepsOf(house, parent.job)).toEqual([
      "test (node=20) succeeded",
      "test (node=22) failed",
      "deploy skipped",
      "after skipped",
    ]);
    const { job } = ok(await house.deployment.job(first.job));
    expect(job).toMatchObject({ step: { parent: parent.job, name: "test (node=20)", needs: [] } });
    const [statement] = ok(await house.deployment.statements(first.job));
    const taskSha256 = first.taskSha256;
    expect(await verifyStatement(statement, { signers: [runner.id], expected: { taskSha256 } })).toMatchObject({
      ok: true,
    });
    expect(taskSha256).not.toBe(parent.taskSha256);
    // Whoever hears that the reading has ended has heard of every step.
    const types = (await eventsOf(house)).map(({ type, data }) => `${type} ${data.job?.step?.name ?? ""}`.trim());
    expect(types.indexOf("job.succeeded")).toBeGreaterThan(types.lastIndexOf("job.queued after"));
  });

  it("is given to a runner that can do one step alone, and to no other", async () => {
    const { house, parent } = await read();
    const older = await Runner.in(house, [], ["nix"]);
    expect(await older.poll(100)).toBeNull();
    expect((await stepsOf(house, parent.job))[0]).toBe("test (node=20) queued");
  });

  it("is refused from a runner that says what no task file can say, or of a job that cannot become others", async () => {
    const house = await newHouse();
    const runner = await Runner.in(house);
    const circle: Expansion = { jobs: { a: { kind: "shell", needs: ["a"] } } };
    await submit(house, FILE);
    const reading = await runner.start();
    const answer = await runner.send(reading, await runner.resultOf(reading, "succeeded", { expansion: circle }));
    expect(answer).toMatchObject({ refused: "invalid-statement", errors: [{ pointer: "/statements/0" }] });
    ok(await runner.finish(reading));
    await submit(house, {});
    const script = await runner.start();
    expect(
      await runner.send(script, await runner.resultOf(script, "succeeded", { expansion: { jobs: JOBS } })),
    ).toMatchObject({ refused: "invalid-statement" });
    expect(await stepsOf(house, script.job)).toEqual([]);
  });

  it("comes back from a step that is done once more, and is then as that ends", async () => {
    const { house, runner, parent } = await read();
    ok(await runner.finish(await runner.start()));
    const broken = await runner.start();
    ok(await runner.finish(broken, "failed"));
    const guard = { idempotencyKey: "again", bodySha256: "0".repeat(64), ifMatch: null };
    const call = { actor: "token:test", job: broken.job, guard };
    const answer = ok(await house.deployment.rerun(call));
    expect(answer.job).toMatchObject({ rerunOf: broken.job, step: { parent: parent.job, name: "test (node=22)" } });
    expect(answer.followers).toHaveLength(2);
    expect(ok(await house.deployment.rerun(call))).toEqual(answer);
    await evictDurableObject(house.deployment);
    const again = await runner.start();
    expect(again).toMatchObject({ job: answer.job.id, spec: broken.spec });
    ok(await runner.finish(again));
    expect(await stepsOf(house, parent.job)).toEqual([
      "test (node=20) succeeded",
      "test (node=22) succeeded",
      "deploy queued",
      "after queued",
    ]);
  });

  it("is cancelled as a whole by its first job, which has ended", async () => {
    const { house, parent } = await read();
    const guard = { idempotencyKey: null, bodySha256: "0".repeat(64), ifMatch: null };
    const call = { actor: "token:test", job: parent.job, body: {}, guard };
    expect(ok(await house.deployment.cancelJob(call)).cancelled).toHaveLength(4);
    expect(await house.deployment.cancelJob(call)).toMatchObject({ refused: "already-final" });
  });
});
