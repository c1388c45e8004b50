import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, it, vi } from "vitest";
import { deploymentObject } from "../../durable-objects/shared/names.ts";
import { ask, newRunner, newTenant, problemIn, runPath, storedBy, takeJob, told } from "./edge-harness.ts";

type Deployment = ReturnType<typeof deploymentObject>;

/** Events that the namespace was not told: telling them writes the lane. */
function unpublished(deployment: Deployment): Promise<number> {
  const query =
    "SELECT (SELECT max(last) FROM event_rows) - (SELECT json_extract(record, '$.published') FROM lane) AS count";
  return runInDurableObject(deployment, (_, { storage }) => storage.sql.exec<{ count: number }>(query).one().count);
}

async function putLane(deployment: Deployment, field: string, value: number): Promise<void> {
  await runInDurableObject(deployment, (_, { storage }) => {
    storage.sql.exec("UPDATE lane SET record = json_set(record, ?, ?)", `$.${field}`, value);
  });
  await evictDurableObject(deployment);
}

it("keeps nothing of a decision that breaks a promise, and says so without a word of what it holds", async () => {
  const tenant = await newTenant();
  const runner = await newRunner(tenant);
  const path = `${tenant.at}/deployments/web`;
  const body = { task: { kind: "shell", script: "true" } };
  const { job } = await told<{ job: { id: string } }>(
    ask("POST", `${path}/jobs`, { token: tenant.tokens.submit, body }),
    202,
  );
  const { epoch, leaseToken, ...assignment } = await takeJob(tenant, runner);
  const deployment = deploymentObject(env, tenant.ns, "web");
  // Storage that was put back by hand: the lane knows less than its job, so its next grant would repeat an epoch.
  await vi.waitFor(async () => expect(await unpublished(deployment)).toBe(0));
  await putLane(deployment, "epoch", 0);
  const before = await storedBy(tenant);
  const beat = (): Promise<Response> =>
    ask("POST", `${runPath(tenant.at, { ...assignment, epoch, leaseToken })}/heartbeat`, {
      token: leaseToken,
      body: { epoch },
    });
  const problem = await problemIn(await beat());
  expect(problem).toMatchObject({
    code: "internal",
    detail: expect.stringContaining("nothing of it was kept") as string,
  });
  expect(JSON.stringify(problem)).not.toContain("epoch");
  expect(await storedBy(tenant)).toEqual(before);
  await putLane(deployment, "epoch", epoch);
  await told(beat(), 200);
  const read = await told<{ job: { state: string } }>(
    ask("GET", `${tenant.at}/jobs/${job.id}`, { token: tenant.tokens.read }),
    200,
  );
  expect(read.job.state).toBe("running");
});
