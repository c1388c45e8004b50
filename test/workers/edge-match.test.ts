import type { JobMatch } from "@plumule/protocol";
import { expect, it } from "vitest";
import { ask, newRunner, newTenant, pollBody, problemIn, settled, told } from "./edge-harness.ts";

const ABSENT = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";

it("a job is compared with each runner, label by label, the nearest first, by the same rules as its pool's", async () => {
  const tenant = await newTenant();
  const [king, never] = [await newRunner(tenant), await newRunner(tenant)];
  expect((await ask("POST", `${tenant.at}/poll`, { token: king.session, body: pollBody(0) })).status).toBe(204);
  const body = { task: { kind: "shell", script: "true" }, requires: { systems: ["aarch64-linux"] } };
  const submit = ask("POST", `${tenant.at}/deployments/web/jobs`, { token: tenant.tokens.submit, body });
  const { job } = await told<{ job: { id: string } }>(submit, 202);
  await settled(tenant);
  const path = `${tenant.at}/jobs/${job.id}/runners`;
  const read = { token: tenant.tokens.read };
  const all = await told<JobMatch>(ask("GET", path, read), 200);
  expect(all.checks).toMatchObject([
    { name: "state", ok: true },
    { name: "queue-timeout", ok: true },
  ]);
  expect([all.runnerCount, all.runners.map(({ runner }) => runner)]).toEqual([2, [king.id, never.id]]);
  const lacking = all.runners.map(({ checks }) => checks.filter(({ ok }) => !ok).map(({ name }) => name));
  expect(lacking).toEqual([["system"], ["connection", "offer"]]);
  const { job: view } = await told<{ job: { waiting: unknown } }>(ask("GET", `${tenant.at}/jobs/${job.id}`, read), 200);
  expect(view.waiting).toMatchObject({ nearest: { runner: king.id, lacks: ["system aarch64-linux"] } });

  const one = await told<JobMatch>(ask("GET", `${path}?runner=${never.id}`, read), 200);
  expect(one.runners.map(({ runner }) => runner)).toEqual([never.id]);
  expect((await told<JobMatch>(ask("GET", `${path}?limit=1`, read), 200)).runners).toHaveLength(1);
  expect((await problemIn(await ask("GET", `${path}?runner=${ABSENT}`, read))).code).toBe("not-found");
  const bad = await problemIn(await ask("GET", `${path}?runner=king`, read));
  expect([bad.code, bad.errors?.[0]?.pointer]).toEqual(["invalid-parameter", "/runner"]);
});

it("the fleet is not shown to whoever is confined to some deployments", async () => {
  const tenant = await newTenant();
  const asked = { token: tenant.tokens.admin, body: { name: "t", scopes: ["submit"], deployments: ["web"] } };
  const { token } = await told<{ token: string }>(ask("POST", `${tenant.at}/tokens`, asked), 201);
  const body = { task: { kind: "shell", script: "true" } };
  const submit = ask("POST", `${tenant.at}/deployments/web/jobs`, { token, body });
  const { job } = await told<{ job: { id: string } }>(submit, 202);
  expect((await problemIn(await ask("GET", `${tenant.at}/jobs/${job.id}/runners`, { token }))).code).toBe("forbidden");
});
