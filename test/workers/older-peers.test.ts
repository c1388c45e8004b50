import { env } from "cloudflare:workers";
import { ACCEPTED_MEDIUM, type Assignment, type JobDetail, PROTOCOL_VERSION, type SubmitBody } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { deploymentObject, poolObject } from "../../durable-objects/shared/names.ts";
import { codeOf, type House, ok, Runner, submit } from "./deployment-harness.ts";
import { ask, newRunner, newTenant, problemIn, pollBody, type Tenant, told } from "./edge-harness.ts";

/** A body with a field of a later version, as its objects get it from the edge. */
const LATER = { quorum: { replicas: 1, agree: 1 } } as unknown as Partial<SubmitBody>;

async function newPlace(): Promise<{ tenant: Tenant; house: House }> {
  const tenant = await newTenant();
  const { ns } = tenant;
  return {
    tenant,
    house: { namespace: ns, deployment: deploymentObject(env, ns, "web"), pool: poolObject(env, ns, "default") },
  };
}

const oldPoll = (runner: Runner, waitMs: number): Promise<Assignment | null> =>
  runner.poll(waitMs, crypto.randomUUID(), PROTOCOL_VERSION - 1);

describe("a job that an older runner cannot read", () => {
  it("is not given to it, whether it waits for work or comes for it, and says so until another one comes", async () => {
    const { house } = await newPlace();
    const old = await Runner.in(house);
    const parked = oldPoll(old, 1_000);
    await expect.poll(async () => (await house.pool.presence()).some(({ parked: one }) => one)).toBe(true);
    const { job } = await submit(house, LATER);
    expect(await parked).toBeNull();
    expect(await oldPoll(old, 200)).toBeNull();
    const waits = ok(await house.deployment.job(job.id)).job;
    expect(waits).toMatchObject({
      state: "queued",
      waiting: { reason: "no-runner", needs: {}, nearest: { runner: old.id, lacks: [`protocol 2 (has 1)`] } },
    });
    expect(waits.waiting?.detail).toContain("Update plumule on king and start its runner again");

    const now = await Runner.in(house);
    const assignment = await now.start();
    expect(assignment).toMatchObject({ job: job.id, spec: LATER });
    ok(await now.finish(assignment));
  });

  it("does not stand in the way of one that it can read", async () => {
    const { house } = await newPlace();
    const old = await Runner.in(house);
    await submit(house, LATER);
    const other: House = { ...house, deployment: deploymentObject(env, house.namespace, "other") };
    const { job } = await submit(other);
    expect((await oldPoll(old, 3_000))?.job).toBe(job.id);
  });

  it("is shown to an older client without what it does not know, and whole to one that says it can read it", async () => {
    const { house, tenant } = await newPlace();
    const { job } = await submit(house, LATER);
    const shown = async (headers: Record<string, string>): Promise<JobDetail["spec"]> =>
      (await told<JobDetail>(ask("GET", `${tenant.at}/jobs/${job.id}`, { token: tenant.tokens.read, headers }), 200))
        .spec;
    await expect
      .poll(async () => (await ask("GET", `${tenant.at}/jobs/${job.id}`, { token: tenant.tokens.read })).status)
      .toBe(200);
    expect(await shown({ accept: ACCEPTED_MEDIUM })).toMatchObject(LATER);
    for (const headers of [{}, { accept: "application/json" }, { accept: "application/json; plumule=1" }])
      expect(await shown(headers as Record<string, string>)).toEqual({ task: { kind: "shell", script: "true" } });
  });
});

it("shows which version of the protocol each runner speaks", async () => {
  const { house } = await newPlace();
  const runners = [await Runner.in(house), await Runner.in(house)] as const;
  await oldPoll(runners[0], 0);
  await runners[1].poll(0);
  const spoken = (await house.pool.presence()).map(({ runner, protocol, offer }) => [
    runner,
    protocol,
    "protocol" in offer,
  ]);
  expect(Object.fromEntries(spoken.map(([runner, protocol]) => [runner, protocol]))).toEqual({
    [runners[0].id]: PROTOCOL_VERSION - 1,
    [runners[1].id]: PROTOCOL_VERSION,
  });
  // The offer is strict on the wire: older readers know no such field in it.
  expect(spoken.every(([, , inOffer]) => inOffer === false)).toBe(true);
});

it("refuses a runner that is older than what is served, says what to do, and keeps nothing of it", async () => {
  const { house, tenant } = await newPlace();
  const { session } = await newRunner(tenant);
  const refused = await ask("POST", `${tenant.at}/poll`, { token: session, body: { ...pollBody(0), protocol: 0 } });
  expect(await problemIn(refused)).toMatchObject({
    code: "protocol-too-old",
    detail: expect.stringContaining("speaks version 0") as string,
    next: expect.stringContaining("Update plumule") as string,
  });
  expect(await house.pool.presence()).toEqual([]);
  expect(codeOf(await house.deployment.read())).toBe("not-found");
});
