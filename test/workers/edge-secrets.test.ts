import type { Assignment, QueueView, RunnerView, SecretView, SubmitAnswer } from "@plumule/protocol";
import { signRecipient, verifyRecipient } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { ask, newRunner, newTenant, pollBody, problemIn, type Runner, storedBy, told } from "./edge-harness.ts";

const RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const createdAt = "2026-11-21T10:00:00.000Z";
const condition = { and: [{ branch: "main" }] };
const task = { kind: "shell", script: "true" };

const envelopeOf = ({ signer }: Pick<Runner, "signer">): ReturnType<typeof signRecipient> =>
  signRecipient({ recipient: RECIPIENT, createdAt }, signer);

describe("a runner's recipient", () => {
  it("is published by the runner and read by whoever may read the fleet", async () => {
    const tenant = await newTenant();
    const runner = await newRunner(tenant);
    const recipient = await envelopeOf(runner);
    const path = `${tenant.at}/runners/${runner.id}/recipient`;
    for (let time = 0; time < 2; time++)
      expect((await ask("PUT", path, { token: runner.session, body: { recipient } })).status).toBe(204);
    const fleet = await told<{ items: RunnerView[] }>(
      ask("GET", `${tenant.at}/runners`, { token: tenant.tokens.read }),
      200,
    );
    const verified = await verifyRecipient(fleet.items[0]?.recipient, runner.id);
    expect(verified).toMatchObject({ ok: true, value: { recipient: RECIPIENT } });
  });

  it("is refused from another runner, from people, and with a signature that is not the runner's", async () => {
    const tenant = await newTenant();
    const [king, queen] = [await newRunner(tenant), await newRunner(tenant)];
    const before = await storedBy(tenant);
    const path = `${tenant.at}/runners/${king.id}/recipient`;
    const own = { recipient: await envelopeOf(king) };
    expect((await problemIn(await ask("PUT", path, { token: queen.session, body: own }))).code).toBe("forbidden");
    expect((await problemIn(await ask("PUT", path, { token: tenant.tokens.admin, body: own }))).code).toBe("forbidden");
    const forged = { recipient: await envelopeOf(queen) };
    expect((await problemIn(await ask("PUT", path, { token: king.session, body: forged }))).code).toBe("bad-signature");
    expect(await storedBy(tenant)).toEqual(before);
  });
});

describe("a stored secret", () => {
  it("is put, listed without its box, replaced and removed", async () => {
    const tenant = await newTenant();
    const { at, tokens } = tenant;
    const { id } = await newRunner(tenant);
    const put = (box: string): Promise<Response> =>
      ask("PUT", `${at}/secrets/deploy-key`, { token: tokens.admin, body: { box, runners: [id], condition } });
    expect(await told<SecretView>(put("AAAA"), 200)).toMatchObject({ name: "deploy-key", runners: [id], condition });
    await told(put("BBBB"), 200);
    const list = await told<{ items: unknown[] }>(ask("GET", `${at}/secrets`, { token: tokens.read }), 200);
    expect(list.items).toEqual([
      {
        name: "deploy-key",
        runners: [id],
        condition,
        storedAt: expect.any(String) as string,
        storedBy: expect.stringContaining("token:") as string,
      },
    ]);
    const events = await told<{ events: { type: string; data: unknown }[] }>(
      ask("GET", `${at}/events?limit=100`, { token: tokens.read }),
      200,
    );
    expect(events.events.filter(({ type }) => type === "secret.stored")).toHaveLength(2);
    expect(JSON.stringify(events)).not.toContain("BBBB");
    expect((await ask("DELETE", `${at}/secrets/deploy-key`, { token: tokens.admin })).status).toBe(204);
    expect((await ask("DELETE", `${at}/secrets/deploy-key`, { token: tokens.admin })).status).toBe(404);
  });

  it.each<[string, string, unknown, number]>([
    ["a name that leaves its folder", "..%2fx", { box: "AAAA", condition }, 400],
    ["no condition", "key", { box: "AAAA" }, 400],
    ["a box that is not base64", "key", { box: "§", condition }, 400],
    ["the value instead of a box", "key", { value: "hunter2", condition }, 400],
  ])("is refused with %s, and nothing changes", async (_, name, body, status) => {
    const tenant = await newTenant();
    const { id } = await newRunner(tenant);
    const before = await storedBy(tenant);
    const answer = await ask("PUT", `${tenant.at}/secrets/${name}`, {
      token: tenant.tokens.admin,
      body: { runners: [id], ...(body as object) },
    });
    expect(answer.status).toBe(status);
    expect(await storedBy(tenant)).toEqual(before);
  });

  it("reaches the runner of a job that names it, as it was when the job was submitted", async () => {
    const tenant = await newTenant();
    const runner = await newRunner(tenant);
    const { at, tokens } = tenant;
    const body = { box: "AAAA", runners: [runner.id], condition };
    await told(ask("PUT", `${at}/secrets/key`, { token: tokens.admin, body }), 200);
    const job = { task, secrets: [{ name: "key" }] };
    await told(ask("POST", `${at}/deployments/web/jobs`, { token: tokens.submit, body: job }), 202);
    const taken = await told<Assignment>(
      ask("POST", `${at}/poll`, { token: runner.session, body: { ...pollBody(), protocol: 2 } }),
      200,
    );
    expect(taken.spec.secrets).toEqual([{ name: "key", box: "AAAA", runners: [runner.id] }]);
  });
});

describe("a job with secrets", () => {
  it("is offered only to a runner that can open them, and says so while it waits", async () => {
    const tenant = await newTenant();
    const [king, queen] = [await newRunner(tenant), await newRunner(tenant)];
    const { at, tokens } = tenant;
    const secrets = [{ name: "key", box: "AAAA", runners: [queen.id] }];
    await told<SubmitAnswer>(
      ask("POST", `${at}/deployments/web/jobs`, { token: tokens.submit, body: { task, secrets } }),
      202,
    );
    const nothing = await ask("POST", `${at}/poll`, { token: king.session, body: { ...pollBody(0), protocol: 2 } });
    expect(nothing.status).toBe(204);
    const queue = await told<QueueView>(ask("GET", `${at}/queue`, { token: tokens.read }), 200);
    expect(queue.tickets[0]?.waiting).toMatchObject({
      reason: "no-runner",
      nearest: { runner: king.id, lacks: ["a key that the job names"] },
    });
    await told(ask("POST", `${at}/poll`, { token: queen.session, body: { ...pollBody(), protocol: 2 } }), 200);
  });

  it.each<[string, (ids: string[]) => unknown, string]>([
    ["names one that is not stored", () => [{ name: "nowhere" }], "/secrets/0/name"],
    ["names one twice", () => [{ name: "a" }, { name: "a" }], "/secrets"],
    ["brings a box without runners", () => [{ name: "a", box: "AAAA" }], "/secrets/0"],
    ["brings a value", () => [{ name: "a", value: "hunter2" }], "/secrets/0/value"],
    [
      "brings boxes that no one runner can open",
      ([one, two]) => [
        { name: "a", box: "AAAA", runners: [one] },
        { name: "b", box: "AAAA", runners: [two] },
      ],
      "/secrets",
    ],
  ])("is refused when it %s", async (_, secrets, pointer) => {
    const tenant = await newTenant();
    const ids = [(await newRunner(tenant)).id, (await newRunner(tenant)).id];
    const before = await storedBy(tenant);
    const answer = await ask("POST", `${tenant.at}/deployments/web/jobs`, {
      token: tenant.tokens.submit,
      body: { task, secrets: secrets(ids) },
    });
    const problem = await problemIn(answer);
    expect(problem).toMatchObject({ code: "invalid-body", errors: [{ pointer }] });
    expect(await storedBy(tenant)).toEqual(before);
  });
});

describe("a trigger rule with secrets", () => {
  const rule = { name: "deploy", refs: ["refs/heads/main"], deployment: "web", task };
  it.each<[string, object, number]>([
    ["for pushes of the repository is taken", { events: ["push"] }, 200],
    ["for patches of people who are named is taken", { events: ["patch"], authors: ["z6Mk1"] }, 200],
    ["for patches of anybody is refused", { events: ["patch", "push"] }, 400],
    ["for every event of anybody is refused", {}, 400],
    ["that holds its jobs is refused", { events: ["push"], hold: true }, 400],
  ])("%s", async (_, over, status) => {
    const { at, tokens } = await newTenant();
    const answer = await ask("PUT", `${at}/triggers`, {
      token: tokens.admin,
      headers: { "if-match": '"v0"' },
      body: { triggers: [{ ...rule, ...over }], hooks: [], secrets: { deploy: ["key"] } },
    });
    expect(answer.status).toBe(status);
    if (status === 200) expect(await answer.json()).toMatchObject({ secrets: { deploy: ["key"] } });
    if (status === 400) expect((await problemIn(answer)).errors).toMatchObject([{ pointer: "/secrets/deploy" }]);
  });
});
