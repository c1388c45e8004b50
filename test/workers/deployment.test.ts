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

/** Waits until the namespace was told how many jobs have succeeded. */
async function told(house: House, count: number): Promise<void> {
  const query = { state: "succeeded" as const, deployment: "web", commit: null, cursor: null, limit: 10 };
  await vi.waitFor(
    async () => expect(ok(await namespaceObject(env, house.namespace).listJobs(query)).items).toHaveLength(count),
    3_000,
  );
}

it("writes at most 14 rows for a short job, from submit to what the namespace is told", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const pass = async (): Promise<void> => {
    const { answer } = await runner.park();
    await submit(house, {}, crypto.randomUUID());
    const assignment = (await answer)!;
    ok(await runner.beat(assignment));
    ok(await runner.finish(assignment, "succeeded", "hello\n"));
  };
  await pass();
  await told(house, 1);
  const before = await rowsWritten(house);
  await pass();
  await told(house, 2);
  // One alarm comes on top: the platform counts it as a row, SQLite does not.
  expect((await rowsWritten(house)) - before).toBeLessThanOrEqual(13);
});

it("keeps a job that no runner takes yet, and gives it to the next one that polls", async () => {
  const house = await newHouse();
  const { job, position } = await submit(house);
  expect(job.state).toBe("queued");
  expect(position).toBe(0);
  await evictDurableObject(house.deployment);
  const runner = await Runner.in(house);
  const assignment = await runner.start();
  expect(assignment.job).toBe(job.id);
  expect(await stateOf(house, job.id)).toBe("running");
});

it("says why a job waits: its place, then what its pool says", async () => {
  const house = await newHouse();
  const first = await submit(house, { requires: { systems: ["riscv64-linux"] } });
  const second = await submit(house);
  expect(second.job.waiting).toMatchObject({ reason: "position", position: 1 });
  await vi.waitFor(async () =>
    expect(ok(await house.deployment.job(first.job.id)).job.waiting).toMatchObject({
      reason: "no-runner",
      needs: { systems: ["riscv64-linux"] },
    }),
  );
  expect((await eventsOf(house)).filter(({ type }) => type === "job.waiting")).toHaveLength(1);
});

it("starts the next job only when the one before has ended, also through the fast path", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const first = await submit(house);
  const second = await submit(house);
  const assignment = await runner.start();
  expect(assignment.job).toBe(first.job.id);
  const { answer } = await runner.park();
  expect(await stateOf(house, second.job.id)).toBe("queued");
  ok(await runner.finish(assignment));
  expect((await answer)!.job).toBe(second.job.id);
});

it("replaces the running job: its heartbeat brings the command at once, it ends superseded, then the new one starts", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const first = await submit(house);
  const waiting = await submit(house);
  const assignment = await runner.start();
  const heartbeat = runner.beat(assignment, { waitMs: 15_000 });
  const before = Date.now();
  const second = await submit(house, { mode: "replace" });
  expect(second.superseded.toSorted()).toEqual([first.job.id, waiting.job.id].toSorted());
  expect(second.job.waiting).toMatchObject({ reason: "stopping-previous" });
  const { command } = ok(await heartbeat);
  expect(command).toMatchObject({ number: 1, kind: "cancel", reason: { code: "superseded" } });
  expect(Date.now() - before).toBeLessThan(2_000);
  expect(await stateOf(house, first.job.id)).toBe("cancelling");
  // Whatever the runner says now, the job does not succeed.
  expect(ok(await runner.finish(assignment, "succeeded"))).toMatchObject({ accepted: true, state: "superseded" });
  expect((await runner.start()).job).toBe(second.job.id);
  expect(ok(await house.deployment.job(first.job.id)).job).toMatchObject({
    state: "superseded",
    supersededBy: second.job.id,
  });
});

it("holds a heartbeat that has seen the command, instead of spinning", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = await runner.start();
  ok(await house.deployment.cancelJob({ actor: "token:test", job: job.id, body: {}, guard: guardOf() }));
  const { command } = ok(await runner.beat(assignment, { waitMs: 5_000 }));
  expect(command?.number).toBe(1);
  const begun = performance.now();
  expect(ok(await runner.beat(assignment, { seenCommand: 1, waitMs: 300 })).command).toBeNull();
  expect(performance.now() - begun).toBeGreaterThan(200);
});

it("answers the same idempotency key with the same bytes, also in parallel and after an eviction, and refuses another body", async () => {
  const house = await newHouse();
  const call = { actor: "token:test", body: SHELL, dryRun: false, guard: guardOf("key-1") };
  const answers = await Promise.all(Array.from({ length: 5 }, () => house.deployment.submit(call)));
  await evictDurableObject(house.deployment);
  answers.push(await house.deployment.submit(call));
  expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
  expect(ok(await house.deployment.read()).jobs).toHaveLength(1);
  expect(codeOf(await house.deployment.submit({ ...call, guard: guardOf("key-1", null, "1".repeat(64)) }))).toBe(
    "idempotency-mismatch",
  );
  expect(codeOf(await house.deployment.cancelAll({ actor: "token:test", body: {}, guard: guardOf("key-1") }))).toBe(
    "idempotency-mismatch",
  );
  ok(await house.deployment.submit({ ...call, actor: "token:other" }));
  expect(ok(await house.deployment.read()).jobs).toHaveLength(2);
});

it("changes nothing in a dry run", async () => {
  const house = await newHouse();
  await submit(house);
  await vi.waitFor(async () => expect(ok(await house.deployment.read()).jobs[0]!.waiting).not.toBeNull());
  const before = JSON.stringify([ok(await house.deployment.read()), await eventsOf(house)]);
  const answer = ok(
    await house.deployment.submit({
      actor: "token:test",
      body: { ...SHELL, mode: "replace" },
      guard: guardOf("dry"),
      dryRun: true,
    }),
  );
  expect(answer).toMatchObject({ dryRun: true, position: 0, superseded: [expect.any(String)] });
  expect(JSON.stringify([ok(await house.deployment.read()), await eventsOf(house)])).toBe(before);
});

it("protects decisions with the revision, which progress does not move", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  await runner.start();
  const { revision } = ok(await house.deployment.read()).deployment;
  const cancel = (ifMatch: string): ReturnType<House["deployment"]["cancelJob"]> =>
    house.deployment.cancelJob({ actor: "token:test", job: job.id, body: {}, guard: guardOf(null, ifMatch) });
  expect(codeOf(await cancel(`"r${revision - 1}"`))).toBe("revision-conflict");
  expect(await stateOf(house, job.id)).toBe("running");
  expect(codeOf(await cancel(`"r${revision}"`))).toBe("answered");
});

it("holds a job for approval of the very commit", async () => {
  const house = await newHouse();
  const source = { repository: "https://example.org/garden.git", commit: "a".repeat(40) };
  const { job } = await submit(house, { hold: true, source });
  const later = await submit(house);
  expect(job).toMatchObject({ state: "held", waiting: { reason: "approval" } });
  expect(later.position).toBe(0);
  const approve = (commit: string | null): ReturnType<House["deployment"]["approve"]> =>
    house.deployment.approve({ actor: "token:boss", job: job.id, commit });
  expect(codeOf(await approve("b".repeat(40)))).toBe("conflict");
  expect(ok(await approve("a".repeat(40))).state).toBe("queued");
  expect(codeOf(await approve(null))).toBe("wrong-state");
  // It was submitted first, so it comes first again.
  expect((await (await Runner.in(house)).start()).job).toBe(job.id);
});

it("runs a job again as a new one that names the first", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house, { summary: "once" });
  ok(await runner.finish(await runner.start(), "failed"));
  const again = ok(await house.deployment.rerun({ actor: "token:test", job: job.id, guard: guardOf() }));
  expect(again.job).toMatchObject({ rerunOf: job.id, summary: "once", state: "queued" });
  ok(await runner.finish(await runner.start(), "succeeded"));
  expect(await stateOf(house, job.id)).toBe("failed");
  expect(await stateOf(house, again.job.id)).toBe("succeeded");
});

it("tears a deployment down with a last job on the source of what is live, and is gone after it", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const source = { repository: "https://example.org/garden.git", commit: "a".repeat(40) };
  await submit(house, { source });
  ok(await runner.finish(await runner.start()));
  const pending = await submit(house, { requires: { systems: ["riscv64-linux"] } });
  const teardown = ok(
    await house.deployment.remove({
      actor: "token:test",
      body: { task: { kind: "shell", script: "drop" } },
      guard: guardOf(),
    }),
  );
  expect(teardown).toMatchObject({ superseded: [pending.job.id], job: { teardown: true, source } });
  expect(ok(await house.deployment.read()).deployment.state).toBe("destroying");
  expect(
    codeOf(await house.deployment.submit({ actor: "token:test", body: SHELL, guard: guardOf(), dryRun: false })),
  ).toBe("busy");
  const assignment = await runner.start();
  expect(assignment.teardown).toBe(true);
  ok(await runner.finish(assignment));
  for (const answer of [
    await house.deployment.read(),
    await house.deployment.job(pending.job.id),
    await house.deployment.submit({ actor: "token:test", body: SHELL, guard: guardOf(), dryRun: false }),
  ])
    expect(codeOf(answer)).toBe("gone");
  await vi.waitFor(async () => {
    const { items } = ok(
      await namespaceObject(env, house.namespace).listDeployments({
        state: null,
        prefix: null,
        cursor: null,
        limit: 10,
      }),
    );
    expect(items).toEqual([]);
  }, 3_000);
});

it("removes an idle deployment at once when there is nothing to tear down", async () => {
  const house = await newHouse();
  expect(codeOf(await house.deployment.remove({ actor: "token:test", body: {}, guard: guardOf() }))).toBe("not-found");
  await submit(house, { requires: { systems: ["riscv64-linux"] } });
  expect(ok(await house.deployment.remove({ actor: "token:test", body: {}, guard: guardOf("once") }))).toMatchObject({
    pendingCount: 0,
  });
  expect(codeOf(await house.deployment.read())).toBe("gone");
  expect(codeOf(await house.deployment.remove({ actor: "token:test", body: {}, guard: guardOf("once") }))).toBe(
    "answered",
  );
});

it("refuses to cancel what has ended, and what is applying unless by force", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = await runner.start();
  const { run, leaseToken, epoch } = assignment;
  const applying = {
    epoch,
    number: 1,
    events: [{ type: "phase" as const, phase: "applying" as const, at: new Date().toISOString() }],
  };
  ok(await house.deployment.report({ run, leaseToken, body: applying }));
  const cancel = (force: boolean): ReturnType<House["deployment"]["cancelJob"]> =>
    house.deployment.cancelJob({ actor: "token:test", job: job.id, body: { force }, guard: guardOf() });
  expect(codeOf(await cancel(false))).toBe("in-apply-phase");
  expect(ok(await cancel(true)).cancelled).toEqual([job.id]);
  expect(ok(await runner.beat(assignment)).command).toMatchObject({ force: true, graceMs: 0 });
  ok(await runner.finish(assignment, "cancelled"));
  expect(codeOf(await cancel(true))).toBe("already-final");
});

it("takes the lease of an assigned job away when it is cancelled", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = (await runner.poll())!;
  ok(await house.deployment.cancelJob({ actor: "token:test", job: job.id, body: {}, guard: guardOf() }));
  expect(codeOf(await runner.beat(assignment))).toBe("stale-lease");
  expect(await stateOf(house, job.id)).toBe("cancelled");
});

it("gives the same lease again to a claim with the same key, also after an eviction, until it was acknowledged", async () => {
  const house = await newHouse();
  const { job } = await submit(house);
  const runner = await Runner.in(house);
  const assignment = (await runner.poll())!;
  await evictDurableObject(house.deployment);
  const { requestKey, epoch, leaseToken } = assignment;
  const offer = {
    name: "king",
    systems: [],
    features: [],
    labels: [],
    version: "1",
    capacity: 1,
    isolation: "process-group" as const,
  };
  const call = { job: job.id, runner: runner.id, offer, requestKey, ticket: 0 };
  expect(await house.deployment.claim(call)).toMatchObject({ epoch, leaseToken, run: assignment.run });
  expect(await house.deployment.claim({ ...call, requestKey: crypto.randomUUID() })).toBeNull();
  ok(await runner.beat(assignment));
  expect(await house.deployment.claim(call)).toBeNull();
});

it("answers for a deployment that nobody has submitted to", async () => {
  const { deployment } = await newHouse();
  const answers = [
    await deployment.read(),
    await deployment.history({ since: null, limit: 1, waitMs: 0 }),
    await deployment.cancelAll({ actor: "token:test", body: {}, guard: guardOf() }),
  ];
  for (const answer of answers) expect(isRefusal(answer) && answer.refused).toBe("not-found");
});

it("offers a task only to runners that have what it needs by its nature", async () => {
  const { deployment } = await newHouse();
  const needsOf = async (body: SubmitBody): Promise<unknown> =>
    ok(await deployment.submit({ actor: "token:t", body, guard: guardOf(), dryRun: true })).job.waiting?.needs;
  expect(await needsOf({ task: { kind: "effect", installable: ".#deploy" } })).toEqual({
    features: ["nix", "effects"],
  });
  expect(
    await needsOf({ task: { kind: "nix-build", installables: [".#a"] }, requires: { features: ["kvm"] } }),
  ).toEqual({
    features: ["kvm", "nix"],
  });
  expect(await needsOf({ task: { kind: "shell", script: "true", packages: [".#tool"] } })).toEqual({
    features: ["nix"],
  });
  expect(await needsOf({ task: { kind: "shell", script: "true" } })).toBeNull();
});

it("keeps the last result in sight when a job that waited is superseded", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { answer } = await runner.park();
  const first = await submit(house);
  const assignment = (await answer)!;
  await runner.beat(assignment);
  await runner.finish(assignment);
  const waiting = await submit(house);
  await submit(house, { ...SHELL, mode: "latest" });
  expect(await stateOf(house, waiting.job.id)).toBe("superseded");
  expect(ok(await house.deployment.read()).deployment.lastResult).toMatchObject({
    job: first.job.id,
    state: "succeeded",
  });
});
