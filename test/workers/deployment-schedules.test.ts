import { evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { type DeploymentView, type JobView, type SubmitBody } from "@plumule/protocol";
import { afterEach, expect, it, vi } from "vitest";
import { advance, alarmOf, newHouse, ok, Runner, rowsWritten, submit, type House } from "./deployment-harness.ts";

afterEach(() => {
  vi.useRealTimers();
});

const NIGHTLY = [{ name: "nightly", cron: "0 3 * * *" }];
const PUSH: SubmitBody = {
  task: { kind: "repository" },
  configuration: { plot: 7 },
  source: { repository: "https://example.org/garden.git", commit: "a".repeat(40), ref: "refs/heads/main" },
};
const lane = async ({ deployment }: House): Promise<{ deployment: DeploymentView; jobs: JobView[] }> =>
  ok(await deployment.read());

/** Sets the clock to just before the next firing of the only schedule. */
async function untilFiring(house: House): Promise<number> {
  const [schedule] = (await lane(house)).deployment.schedules ?? [];
  const dueAt = Date.parse(schedule?.nextAt ?? "");
  advance(dueAt - Date.now() - 1);
  return dueAt;
}

it("fires a schedule once, though the object was evicted while it was due and again after it", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house, PUSH);
  ok(await runner.send(...(await endOf(runner, NIGHTLY))));
  const dueAt = await untilFiring(house);
  await evictDurableObject(house.deployment);
  await runDurableObjectAlarm(house.deployment);
  expect((await lane(house)).jobs).toHaveLength(1);
  expect(await alarmOf(house)).toBeLessThanOrEqual(dueAt);

  advance(2);
  await evictDurableObject(house.deployment);
  await runDurableObjectAlarm(house.deployment);
  await evictDurableObject(house.deployment);
  await runDurableObjectAlarm(house.deployment);
  const { deployment, jobs } = await lane(house);
  expect(jobs).toMatchObject([{ id: job.id }, { schedule: { name: "nightly", job: job.id }, actor: "token:test" }]);
  const made = jobs[1]?.id;
  expect(deployment.schedules).toMatchObject([
    { nextAt: new Date(dueAt + 24 * 3600_000).toISOString(), last: { job: made, detail: null } },
  ]);

  const assignment = await runner.start();
  expect(assignment).toMatchObject({
    job: made,
    spec: { ...PUSH, task: { kind: "repository", schedule: "nightly" }, mode: "queue" },
  });
  ok(await runner.finish(assignment));
  expect((await lane(house)).deployment.schedules).toMatchObject([{ job: job.id }]);

  const set = (name: string, paused: boolean): ReturnType<House["deployment"]["setSchedule"]> =>
    house.deployment.setSchedule({ actor: "token:boss", name, paused });
  expect(ok(await set("nightly", true)).schedules).toMatchObject([{ nextAt: null }]);
  expect(await set("daily", true)).toMatchObject({ refused: "not-found", next: "It has nightly." });

  // A push whose task file has none.
  await submit(house, PUSH);
  ok(await runner.send(...(await endOf(runner, []))));
  expect((await lane(house)).deployment).not.toHaveProperty("schedules");
});

it("takes over no schedule that could not be kept, and writes no row more for a run without any", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const run = async (schedules?: { name: string; cron: string }[]): Promise<number> => {
    await submit(house, PUSH);
    const end = await endOf(runner, schedules);
    const before = await rowsWritten(house);
    ok(await runner.send(...end));
    return (await rowsWritten(house)) - before;
  };
  await run();
  expect(await run([])).toBe(await run());
  await submit(house, PUSH);
  ok(await runner.send(...(await endOf(runner, [{ name: "often", cron: "* * * * *" }]))));
  expect((await lane(house)).deployment).not.toHaveProperty("schedules");
});

/** Takes the job that is there to its end: the arguments that send its result. */
async function endOf(
  runner: Runner,
  schedules: { name: string; cron: string }[] | undefined,
): Promise<Parameters<Runner["send"]>> {
  const assignment = await runner.start();
  return [assignment, await runner.resultOf(assignment, "succeeded", { schedules })];
}
