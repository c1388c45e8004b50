import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  type Assignment,
  type AuditEntry,
  type AuditItem,
  auditEntrySchema,
  type AuditVerdict,
  LIMITS,
  parseDidKey,
  verifyAudit,
} from "@plumule/protocol";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { pruneAudit } from "../../durable-objects/namespace/store/audit.ts";
import { DIRECTORY } from "../../durable-objects/shared/names.ts";
import { ask, newRunner, newTenant, pollBody, problemIn, runPath, type Tenant, told } from "./edge-harness.ts";

type Page = { items: AuditItem[]; nextCursor: string | null };

let tenant: Tenant;
beforeAll(async () => {
  tenant = await newTenant();
});
afterEach(() => vi.useRealTimers());

const object = (of = tenant): ReturnType<typeof env.NAMESPACE.getByName> => env.NAMESPACE.getByName(of.ns);
const by = (scope: keyof Tenant["tokens"], more: object = {}): object => ({ token: tenant.tokens[scope], ...more });

async function readLog(of = tenant): Promise<AuditItem[]> {
  const items: AuditItem[] = [];
  for (let cursor = ""; ;) {
    const page = await told<Page>(ask("GET", `${of.at}/audit?limit=5${cursor}`, { token: of.tokens.admin }), 200);
    items.push(...page.items);
    if (page.nextCursor === null) return items;
    cursor = `&cursor=${page.nextCursor}`;
  }
}

async function rows(of = tenant): Promise<AuditEntry[]> {
  return (await readLog(of)).flatMap((item) =>
    "entry" in item ? [auditEntrySchema.parse(JSON.parse(item.entry))] : [],
  );
}

/** What somebody finds who pinned the broker's key. */
async function verify(items: readonly AuditItem[], ns: string): Promise<AuditVerdict> {
  const did = await env.NAMESPACE.getByName(DIRECTORY).brokerKey({ make: true });
  const key = parseDidKey(did ?? "");
  if (!key.ok) throw new Error(key.detail);
  return verifyAudit(
    items.map((item) => JSON.stringify(item)),
    { keys: [key.value], namespace: ns },
  );
}

/** Lets the time come at which the log is signed. */
async function sign(of = tenant): Promise<void> {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + LIMITS.auditSignMs + 1 });
  await runDurableObjectAlarm(object(of));
  vi.useRealTimers();
}

describe("the audit log of a namespace", () => {
  it("has a row for whatever changes who may do what, with the request that did it, and for nothing else", async () => {
    const of = await newTenant();
    const mine = { token: of.tokens.admin };
    const made = await ask("POST", `${of.at}/tokens`, { ...mine, body: { name: "x", scopes: ["read"] } });
    const { id } = await told<{ id: string }>(Promise.resolve(made.clone()), 201);
    await ask("DELETE", `${of.at}/tokens/${id}`, mine);
    const runner = await newRunner(of);
    await told(ask("POST", `${of.at}/runners/${runner.id}/drain`, { token: of.tokens.operate }), 200);
    await told(ask("DELETE", `${of.at}/runners/${runner.id}`, mine), 200);
    const put = (path: string, version: number, body: object): Promise<unknown> =>
      told(ask("PUT", `${of.at}/${path}`, { ...mine, body, headers: { "if-match": `"v${version}"` } }), 200);
    await put("members", 0, { members: [{ key: runner.id, name: "Ada", role: "developer" }] });
    await put("triggers", 0, { triggers: [], hooks: [] });
    await put("trust", 1, { version: 2, signers: [], rules: [] });
    await ask("POST", `${of.at}/deployments/web/jobs`, {
      token: of.tokens.submit,
      body: { task: { kind: "shell", script: "true" } },
    });
    const found = await rows(of);
    expect(found.slice(4).map(({ action, target }) => `${action} ${target.replace(/\/.*/, "")}`)).toEqual([
      "token.created tokens",
      "token.revoked tokens",
      "registration.created registrations",
      "runner.registered runners",
      "runner.drained runners",
      "runner.revoked runners",
      "members.changed members",
      "triggers.changed triggers",
      "trust.changed trust",
    ]);
    expect(found.map(({ sequence }) => sequence)).toEqual(found.map((_, at) => at + 1));
    expect(found[4]).toMatchObject({
      actor: expect.stringMatching(/^token:/) as string,
      target: `tokens/${id}`,
      requestId: made.headers.get("plumule-request-id"),
    });
    expect(await verify(await readLog(of), of.ns)).toMatchObject({ first: 1, begins: "start", fault: null });
  });

  it("is for those who own the namespace", async () => {
    expect((await problemIn(await ask("GET", `${tenant.at}/audit`, by("operate")))).code).toBe("forbidden");
    expect((await problemIn(await ask("GET", `${tenant.at}/audit?cursor=x`, by("admin")))).code).toBe("invalid-cursor");
  });

  it("holds no secret, but digests with which a setting can be compared", async () => {
    const secret = "a-secret-of-a-hook-that-is-long-enough";
    const body = { triggers: [], hooks: [{ id: "x", secret }] };
    await told(ask("PUT", `${tenant.at}/triggers`, by("admin", { body, headers: { "if-match": '"v0"' } })), 200);
    const text = JSON.stringify(await readLog());
    for (const hidden of [secret, ...Object.values(tenant.tokens)]) expect(text).not.toContain(hidden.slice(-20));
  });

  it("is signed by the broker in time, tells so in the feed, and is then quiet", async () => {
    await sign();
    const items = await readLog();
    const verdict = await verify(items, tenant.ns);
    expect(verdict).toMatchObject({ begins: "start", fault: null });
    expect(verdict.signedThrough).toBe(verdict.last);
    const { events } = await told<{ events: { type: string; data: object }[] }>(
      ask("GET", `${tenant.at}/events`, by("read")),
      200,
    );
    expect(events.at(-1)).toMatchObject({
      type: "audit.signed",
      actor: "broker",
      data: { head: { namespace: tenant.ns, sequence: verdict.last } },
    });
    const before = await readLog();
    await sign();
    await evictDurableObject(object());
    expect(await readLog()).toEqual(before);
  });

  it("is told from one in which somebody with the storage in hand has changed a row", async () => {
    const items = await readLog();
    const forged = items.map((item) =>
      "entry" in item
        ? { entry: item.entry.replace('"runner.revoked"', '"runner.drained"').replace("the admin token", "x") }
        : item,
    );
    forged[2] = { entry: (items[2] as { entry: string }).entry.replace("token.created", "token.revoked") };
    expect((await verify(forged, tenant.ns)).fault).toMatchObject({ sequence: 4 });
    expect((await verify(items.slice(0, -3).concat(items.slice(-1)), tenant.ns)).fault).not.toBeNull();
  });

  it("is signed at once after many rows", async () => {
    const of = await newTenant();
    for (let count = 0; count < LIMITS.auditSignRows; count += 1)
      await told(ask("POST", `${of.at}/runner-registrations`, { token: of.tokens.operate }), 201);
    await vi.waitFor(async () => expect((await verify(await readLog(of), of.ns)).signedThrough).toBeGreaterThan(60), {
      timeout: 10_000,
      interval: 200,
    });
  });

  it("lets old rows go up to a head, and what is left still verifies", async () => {
    const of = await newTenant();
    await sign(of);
    await told(ask("POST", `${of.at}/runner-registrations`, { token: of.tokens.operate }), 201);
    // As if there were many more rows: a log of ten thousand takes too long to make.
    const kept = await runInDurableObject(object(of), (_, { storage }) => {
      storage.sql.exec("INSERT INTO audit (sequence, at, entry) VALUES (?, 0, '{}')", LIMITS.auditKept + 4);
      const removed = pruneAudit(storage.sql, 500);
      storage.sql.exec("DELETE FROM audit WHERE entry = '{}'");
      return removed;
    });
    expect(kept).toBe(4);
    const items = await readLog(of);
    expect(items).toMatchObject([{ head: {} }, { entry: expect.stringContaining('"sequence":5') as string }]);
    expect(await verify(items, of.ns)).toMatchObject({ first: 5, last: 5, begins: "checkpoint", fault: null });
  });
});

describe("strangers in the audit log", () => {
  it("write no row, and are counted in the next row that somebody known causes, once a minute", async () => {
    const of = await newTenant();
    const before = await rows(of);
    const now = String(Math.floor(Date.now() / 1000));
    const headers = { "webhook-id": "a", "webhook-timestamp": now, "webhook-signature": "v1a,AAAA" };
    for (let count = 0; count < 5; count += 1)
      expect((await ask("POST", `${of.at}/hooks/radicle`, { body: "{}", headers })).status).toBe(401);
    expect(await rows(of)).toEqual(before);
    await told(ask("POST", `${of.at}/runner-registrations`, { token: of.tokens.operate }), 201);
    await ask("POST", `${of.at}/hooks/radicle`, { body: "{}", headers });
    await told(ask("POST", `${of.at}/runner-registrations`, { token: of.tokens.operate }), 201);
    expect((await rows(of)).slice(before.length)).toMatchObject([
      { action: "signature.refused", actor: "nobody", target: "hooks", count: 5 },
      { action: "registration.created" },
      { action: "registration.created" },
    ]);
  });
});

describe("deployments in the audit log", () => {
  it("tell of approvals", async () => {
    const of = await newTenant();
    const body = {
      task: { kind: "shell", script: "true" },
      hold: true,
      source: { repository: "https://seed.example/r.git", commit: "1".repeat(40) },
    };
    const path = `${of.at}/deployments/web/jobs`;
    const { job } = await told<{ job: { id: string } }>(ask("POST", path, { token: of.tokens.submit, body }), 202);
    await told(ask("POST", `${of.at}/jobs/${job.id}/approve`, { token: of.tokens.operate }), 200);
    await vi.waitFor(async () =>
      expect((await rows(of)).at(-1)).toMatchObject({
        action: "job.approved",
        target: `jobs/${job.id}`,
        actor: expect.stringMatching(/^token:/) as string,
        detail: `commit ${"1".repeat(40)}`,
      }),
    );
  });

  it("tell once of a runner that writes on after its lease was taken away, and store nothing for it", async () => {
    const of = await newTenant();
    const runner = await newRunner(of);
    const submit = { token: of.tokens.submit, body: { task: { kind: "shell", script: "true" } } };
    await told(ask("POST", `${of.at}/deployments/web/jobs`, submit), 202);
    // Assigned and never acknowledged: a cancel takes the lease away at once.
    const assignment = await told<Assignment>(
      ask("POST", `${of.at}/poll`, { token: runner.session, body: pollBody() }),
      200,
    );
    await told(ask("POST", `${of.at}/jobs/${assignment.job}/cancel`, { token: of.tokens.submit }), 202);
    const { leaseToken: token, epoch } = assignment;
    const before = (await rows(of)).length;
    for (let count = 0; count < 3; count += 1)
      for (const lease of [token, "x".repeat(43)])
        expect(
          (
            await problemIn(
              await ask("POST", `${runPath(of.at, assignment)}/heartbeat`, { token: lease, body: { epoch } }),
            )
          ).code,
        ).toBe("stale-lease");
    await vi.waitFor(async () =>
      expect((await rows(of)).slice(before)).toMatchObject([
        {
          action: "write.fenced",
          target: `runs/${assignment.run}`,
          actor: runner.id,
          detail: `heartbeat under epoch ${epoch}, whose lease had been taken away`,
        },
      ]),
    );
  });
});
