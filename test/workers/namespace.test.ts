import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { allowsScope, isRefusal, LIMITS, TOKEN_PATTERN } from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import { DIRECTORY } from "../../durable-objects/shared/names.ts";
import {
  bindings,
  dumpTables,
  execute,
  freshName,
  granted,
  namespaceCalls,
  openNamespace,
} from "./namespace-fixtures.ts";

const HOUR = 3600_000;

describe("a namespace", () => {
  test("is created once, opened, and listed by pages", async () => {
    const directory = namespaceCalls(DIRECTORY);
    const names = Array.from({ length: 5 }, freshName);
    for (const id of names)
      expect(await directory.createNamespace({ id })).toMatchObject({ created: true, namespace: { id } });
    const first = await directory.createNamespace({ id: names[0]! });
    expect(first.created).toBe(false);
    expect(await namespaceCalls(names[0]!).isOpen()).toBe(true);

    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: { items: { id: string }[]; nextCursor: string | null } = granted(
        await directory.listNamespaces({ cursor, limit: 2 }),
      );
      expect(page.items.length).toBeLessThanOrEqual(2);
      seen.push(...page.items.map(({ id }) => id));
      cursor = page.nextCursor;
    } while (cursor !== null);
    expect(seen).toEqual([...new Set(seen)].toSorted());
    for (const id of names) expect(seen).toContain(id);
    expect(await directory.isOpen()).toBe(false);
  });

  test("that was never opened answers not-found, knows no credential and has no table", async () => {
    const name = freshName();
    const calls = namespaceCalls(name);
    const actor = "admin";
    const page = { cursor: null, limit: 10 };
    const hook = { hook: null, headers: {}, body: new Uint8Array(), audience: "x" };
    const answers = await Promise.all([
      calls.listTokens(),
      calls.createToken({ actor, body: { name: "x", scopes: ["read"] } }),
      calls.revokeToken({ actor, id: "abcabcabcabc" }),
      calls.createTicket({ actor, scopes: [], origin: null }),
      calls.createRegistration({ actor, pool: "default" }),
      calls.listRunners(page),
      calls.getTrust(),
      calls.getTriggers(),
      calls.putTriggers({ actor, body: { triggers: [], hooks: [] }, ifMatch: `"v0"` }),
      calls.listDeliveries(page),
      calls.redeliver({ actor, id: crypto.randomUUID() }),
      calls.listDeployments({ state: null, prefix: null, ...page }),
      calls.listJobs({ state: null, deployment: null, commit: null, ...page }),
      calls.history({ since: null, limit: 1, waitMs: 0 }),
    ]);
    expect(answers.map((answer) => isRefusal(answer) && answer.refused)).toEqual(answers.map(() => "not-found"));
    expect(await calls.authenticate({ credential: "plm_x" })).toMatchObject({ refused: "unauthenticated" });
    expect(await calls.redeemTicket({ ticket: "x", origin: null })).toMatchObject({ refused: "unauthenticated" });
    expect(await calls.receiveHook(hook)).toMatchObject({ refused: "bad-signature" });
    expect((await calls.fetch(new Request("https://x.test", { headers: { upgrade: "websocket" } }))).status).toBe(404);
    expect(await dumpTables(name)).toEqual({});
  });

  test("is opened under its own name only", async () => {
    await runInDurableObject(bindings.NAMESPACE.getByName(freshName()), async (namespace) => {
      await expect(namespace.open({ id: "other" })).rejects.toThrow("was opened on the object");
    });
  });
});

describe("a token", () => {
  test("opens its namespace with its scopes, until it is revoked, across an eviction too", async () => {
    const { name, calls } = await openNamespace();
    const created = granted(
      await calls.createToken({ actor: "admin", body: { name: "ci", scopes: ["submit", "submit"] } }),
    );
    expect(created.token).toMatch(TOKEN_PATTERN);
    await evictDurableObject(bindings.NAMESPACE.getByName(name));

    const before = Date.now();
    const known = granted(await calls.authenticate({ credential: created.token }));
    expect(known.principal).toEqual({
      kind: "token",
      actor: `token:${created.id}`,
      namespace: name,
      scopes: ["submit"],
    });
    expect(allowsScope(known.principal.scopes, "read") && !allowsScope(known.principal.scopes, "operate")).toBe(true);
    expect(known.until).toBeGreaterThanOrEqual(before);
    expect(known.until).toBeLessThanOrEqual(Date.now() + LIMITS.credentialCacheMs);

    expect(granted(await calls.listTokens())).toEqual([
      {
        id: created.id,
        name: "ci",
        scopes: ["submit"],
        createdAt: created.createdAt,
        expiresAt: null,
        createdBy: "admin",
      },
    ]);
    expect(await calls.revokeToken({ actor: "admin", id: created.id })).toBe(true);
    expect(await calls.revokeToken({ actor: "admin", id: created.id })).toMatchObject({ refused: "not-found" });
    const refusal = await calls.authenticate({ credential: created.token });
    expect(refusal).toMatchObject({ refused: "unauthenticated" });
    expect(await calls.authenticate({ credential: "plm_aaaaaaaaaaaa_" + "a".repeat(43) })).toEqual(refusal);
    expect(await calls.authenticate({ credential: "nonsense" })).toEqual(refusal);
  });

  test("ends at its time, and is not cached beyond it", async () => {
    const { calls } = await openNamespace();
    const expiresAt = Date.now() + 2_000;
    const { token } = granted(
      await calls.createToken({
        actor: "admin",
        body: { name: "x", scopes: ["read"], expiresAt: new Date(expiresAt).toISOString() },
      }),
    );
    expect(granted(await calls.authenticate({ credential: token })).until).toBe(expiresAt);
    vi.useFakeTimers({ toFake: ["Date"], now: expiresAt });
    try {
      expect(await calls.authenticate({ credential: token })).toMatchObject({ refused: "unauthenticated" });
    } finally {
      vi.useRealTimers();
    }
    expect(
      await calls.createToken({
        actor: "admin",
        body: { name: "x", scopes: ["read"], expiresAt: "2020-01-01T00:00:00Z" },
      }),
    ).toMatchObject({ refused: "invalid-body", errors: [{ pointer: "/expiresAt" }] });
  });

  test("of one namespace is unknown in another, and its secret is nowhere in storage", async () => {
    const [one, other] = [await openNamespace(), await openNamespace()];
    const { token, id } = granted(
      await one.calls.createToken({ actor: "admin", body: { name: "x", scopes: ["admin"] } }),
    );
    expect(await other.calls.authenticate({ credential: token })).toMatchObject({ refused: "unauthenticated" });
    const stored = JSON.stringify(await dumpTables(one.name));
    expect(stored).toContain(id);
    expect(stored).not.toContain(token.slice(-43));
  });

  test.each([
    ["another last character", (token: string) => token.slice(0, -1) + (token.endsWith("a") ? "b" : "a")],
    ["a character more", (token: string) => `${token}a`],
    ["no secret", (token: string) => token.slice(0, 17)],
    ["another prefix", (token: string) => token.replace("plm", "plr")],
    ["a line break", (token: string) => `${token}\n`],
  ])("with %s opens nothing, and changes nothing", async (_, change) => {
    const { name, calls } = await openNamespace();
    const { token } = granted(await calls.createToken({ actor: "admin", body: { name: "x", scopes: ["read"] } }));
    const before = await dumpTables(name);
    expect(await calls.authenticate({ credential: change(token) })).toMatchObject({ refused: "unauthenticated" });
    granted(await calls.authenticate({ credential: token }));
    expect(await dumpTables(name)).toEqual(before);
  });

  test("beyond the limit is refused", async () => {
    const { name, calls } = await openNamespace();
    await execute(
      name,
      `INSERT INTO tokens (id, hash, name, scopes, created_at, created_by) SELECT printf('%012d', value), 'h', 'n', '["read"]', 0, 'admin' FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ${LIMITS.tokens}) SELECT value FROM n)`,
    );
    expect(await calls.createToken({ actor: "admin", body: { name: "x", scopes: ["read"] } })).toMatchObject({
      refused: "quota-exceeded",
    });
  });
});

describe("a ticket", () => {
  const asked = { actor: "admin", scopes: ["read"] as const, origin: "https://page.test" };

  test("opens one socket of its origin, once", async () => {
    const { name, calls } = await openNamespace();
    const token = granted(await calls.createToken({ actor: "admin", body: { name: "page", scopes: ["read"] } }));
    const actor = `token:${token.id}`;
    const before = await dumpTables(name);
    const { ticket } = granted(await calls.createTicket({ ...asked, actor }));
    expect(await dumpTables(name)).toEqual(before);
    const show = { ticket, origin: asked.origin };
    expect(granted(await calls.admit({ show, deployment: null }))).toMatchObject({
      principal: { kind: "token", actor, namespace: name, scopes: ["read"] },
    });
    expect(await calls.admit({ show, deployment: null })).toMatchObject({ refused: "unauthenticated" });
  });

  test("opens nothing when its token was revoked meanwhile", async () => {
    const { calls } = await openNamespace();
    const token = granted(await calls.createToken({ actor: "admin", body: { name: "page", scopes: ["read"] } }));
    const { ticket } = granted(await calls.createTicket({ ...asked, actor: `token:${token.id}` }));
    await calls.revokeToken({ actor: "admin", id: token.id });
    const show = { ticket, origin: asked.origin };
    expect(await calls.admit({ show, deployment: "web" })).toMatchObject({ refused: "unauthenticated" });
  });

  test.each([["https://page.test.evil"], ["null"], [null]])(
    "is used up by the origin %s without opening anything",
    async (origin) => {
      const { calls } = await openNamespace();
      const { ticket } = granted(await calls.createTicket(asked));
      expect(await calls.redeemTicket({ ticket, origin })).toMatchObject({ refused: "unauthenticated" });
      expect(await calls.redeemTicket({ ticket, origin: asked.origin })).toMatchObject({ refused: "unauthenticated" });
    },
  );

  test("ends after 30 s, and another namespace does not know it", async () => {
    const [one, other] = [await openNamespace(), await openNamespace()];
    const { ticket, expiresAt } = granted(await one.calls.createTicket(asked));
    expect(await other.calls.redeemTicket({ ticket, origin: asked.origin })).toMatchObject({
      refused: "unauthenticated",
    });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.parse(expiresAt) });
    try {
      expect(await one.calls.redeemTicket({ ticket, origin: asked.origin })).toMatchObject({
        refused: "unauthenticated",
      });
    } finally {
      vi.useRealTimers();
    }
  });

  test("is refused when too many wait", async () => {
    const { calls } = await openNamespace();
    const answers = await Promise.all(Array.from({ length: LIMITS.sockets + 1 }, () => calls.createTicket(asked)));
    expect(answers.filter((answer) => isRefusal(answer))).toMatchObject([{ refused: "rate-limited" }]);
  });
});

describe("settings", () => {
  const rule = {
    name: "ci",
    refs: ["refs/heads/*"],
    deployment: "app-{branch}",
    task: { kind: "repository" as const },
  };

  test("are replaced under their ETag only, and survive an eviction", async () => {
    const { name, calls } = await openNamespace();
    const body = { triggers: [rule], hooks: [{ id: "seed", secret: "s".repeat(24) }] };
    const actor = "token:abc";
    expect(granted(await calls.getTriggers())).toEqual({ version: 0, triggers: [], hooks: [] });
    expect(await calls.putTriggers({ actor, body, ifMatch: null })).toMatchObject({ refused: "precondition-required" });
    expect(granted(await calls.putTriggers({ actor, body, ifMatch: `"v0"` }))).toEqual({
      version: 1,
      triggers: [rule],
      hooks: [{ id: "seed", keys: [], hasSecret: true, secrets: [{ name: "secret" }] }],
    });
    expect(await calls.putTriggers({ actor, body, ifMatch: `"v0"` })).toMatchObject({ refused: "revision-conflict" });
    await evictDurableObject(bindings.NAMESPACE.getByName(name));
    expect(granted(await calls.getTriggers()).version).toBe(1);
  });

  test("show no secret, in events neither", async () => {
    const { calls } = await openNamespace();
    const secret = "It's a Secret to Everybody";
    await calls.putTriggers({
      actor: "admin",
      body: { triggers: [], hooks: [{ id: "seed", secret }] },
      ifMatch: `"v0"`,
    });
    const { events } = granted(await calls.history({ since: null, limit: 10, waitMs: 0 }));
    expect(events.map(({ type, actor }) => [type, actor])).toEqual([["triggers.changed", "admin"]]);
    expect(JSON.stringify(events)).toContain("hasSecret");
    expect(JSON.stringify([events, await calls.getTriggers()])).not.toContain(secret);
  });

  test("of trust begin with a valid policy and grow by one version", async () => {
    const { calls } = await openNamespace();
    const actor = "admin";
    const first = granted(await calls.getTrust());
    expect(first).toMatchObject({ version: 1, signers: [], rules: [{ ref: "*" }] });
    const next = { version: 2, signers: [], rules: [] };
    expect(await calls.putTrust({ actor, policy: next, ifMatch: null })).toMatchObject({
      refused: "precondition-required",
    });
    expect(await calls.putTrust({ actor, policy: { ...next, version: 3 }, ifMatch: `"v1"` })).toMatchObject({
      refused: "revision-conflict",
      errors: [{ pointer: "/version" }],
    });
    expect(await calls.putTrust({ actor, policy: { ...next, version: 1 }, ifMatch: `"v1"` })).toMatchObject({
      refused: "revision-conflict",
    });
    expect(granted(await calls.putTrust({ actor, policy: next, ifMatch: `"v1"` }))).toEqual(next);
    expect(await calls.putTrust({ actor, policy: next, ifMatch: `"v1"` })).toMatchObject({
      refused: "revision-conflict",
    });
    expect(granted(await calls.getTrust())).toEqual(next);
  });

  test("of trust refuse a key that anyone can forge for, and a rule that nobody can meet", async () => {
    const { name, calls } = await openNamespace();
    const before = await dumpTables(name);
    const weak = { key: "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj", operator: "x" };
    expect(
      await calls.putTrust({ actor: "admin", policy: { version: 2, signers: [weak], rules: [] }, ifMatch: `"v1"` }),
    ).toMatchObject({ refused: "weak-key", errors: [{ pointer: "/signers/0/key" }] });
    const rules = [{ ref: "*", require: { k: 2 }, onDivergence: "block" as const }];
    expect(
      await calls.putTrust({ actor: "admin", policy: { version: 2, signers: [], rules }, ifMatch: `"v1"` }),
    ).toMatchObject({ refused: "invalid-body", errors: [{ pointer: "/rules/0/require" }] });
    expect(await dumpTables(name)).toEqual(before);
  });
});

test("an hour later nothing is left of what was over, and nothing wakes the object again", async () => {
  const { name, calls } = await openNamespace();
  await calls.createRegistration({ actor: "admin", pool: "default" });
  const [{ sweep_at: due }] = (await execute(name, "SELECT sweep_at FROM namespace")) as [{ sweep_at: number }];
  expect(due).toBeGreaterThan(Date.now() + HOUR - 60_000);
  vi.useFakeTimers({ toFake: ["Date"], now: due + 1 });
  try {
    expect(await runDurableObjectAlarm(bindings.NAMESPACE.getByName(name))).toBe(true);
    expect((await dumpTables(name))["registrations"]).toEqual([]);
    expect(await runDurableObjectAlarm(bindings.NAMESPACE.getByName(name))).toBe(false);
  } finally {
    vi.useRealTimers();
  }
});
