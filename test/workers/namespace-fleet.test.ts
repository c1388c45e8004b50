import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import {
  isRefusal,
  LIMITS,
  type RunnerView,
  sha256Hex,
  signEnvelope,
  signRegistration,
  signSession,
  REGISTRATION_PAYLOAD_TYPE,
  utf8,
} from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import type { NamespaceCalls } from "../../durable-objects/namespace/calls.ts";
import type { PoolCalls } from "../../durable-objects/pool/calls.ts";
import { poolObject } from "../../durable-objects/shared/names.ts";
import { bindings, dumpTables, granted, newSigner, openNamespace } from "./namespace-fixtures.ts";

type Key = Awaited<ReturnType<typeof newSigner>>;
type Place = { name: string; calls: NamespaceCalls; audience: string };

const OFFER = {
  name: "box",
  systems: ["x86_64-linux"],
  features: [],
  labels: [],
  isolation: "bwrap" as const,
  version: "1",
  capacity: 1,
};

async function proofOf(
  token: string,
  key: Key,
  audience: string,
): Promise<Awaited<ReturnType<typeof signRegistration>>> {
  return signRegistration(
    { audience, tokenSha256: await sha256Hex(utf8(token)), issuedAt: new Date().toISOString() },
    key,
  );
}

async function register({ calls, audience }: Place, key: Key, pool = "default", name = "box"): Promise<RunnerView> {
  const { token } = granted(await calls.createRegistration({ actor: "token:op", pool }));
  return granted(await calls.registerRunner({ token, name, proof: await proofOf(token, key, audience), audience }));
}

async function openSession(
  { calls, audience }: Place,
  key: Key,
): Promise<{ token: string; pool: string; expiresAt: string }> {
  const { challenge } = granted(await calls.createChallenge({ runner: key.did, audience }));
  return granted(
    await calls.createSession({ runner: key.did, proof: await signSession({ audience, challenge }, key), audience }),
  );
}

function poolCalls(namespace: string, pool: string): PoolCalls {
  return poolObject(bindings, namespace, pool);
}

/** One poll that finds nothing, so that the pool knows the runner. */
async function pollOnce(namespace: string, key: Key, pool: string): Promise<void> {
  const body = { requestKey: crypto.randomUUID(), protocol: 1, pool, offer: OFFER, busy: 0, waitMs: 0 };
  await poolCalls(namespace, pool).poll({ runner: key.did, body });
}

describe("a registration", () => {
  test("lets one key in, once, into the pool of its token", async () => {
    const place = await openNamespace();
    const { calls, audience } = place;
    const key = await newSigner();
    const { token, pool } = granted(await calls.createRegistration({ actor: "token:op", pool: "arm" }));
    expect([token.slice(0, 4), pool]).toEqual(["plr_", "arm"]);
    const proof = await proofOf(token, key, audience);
    const runner = granted(await calls.registerRunner({ token, name: "box", proof, audience }));
    expect(runner).toMatchObject({
      id: key.did,
      name: "box",
      pool: "arm",
      state: "offline",
      drained: false,
      revoked: false,
    });
    expect(await calls.registerRunner({ token, name: "box", proof, audience })).toMatchObject({
      refused: "unauthenticated",
    });
    expect(granted(await calls.getTrust()).signers).toEqual([{ key: key.did, operator: key.did }]);
    const { events } = granted(await calls.history({ since: null, limit: 10, waitMs: 0 }));
    expect(events.map(({ type, actor, subject }) => [type, actor, subject])).toEqual([
      ["runner.registered", key.did, `runners/${key.did}`],
    ]);
    expect(JSON.stringify(await dumpTables(place.name))).not.toContain(token.slice(-43));
  });

  test("under a new token moves the same key to another pool, and the old one forgets it", async () => {
    const place = await openNamespace();
    const key = await newSigner();
    const first = await register(place, key, "default", "old");
    await pollOnce(place.name, key, "default");
    expect(await poolCalls(place.name, "default").presence()).toMatchObject([{ runner: key.did }]);
    const second = await register(place, key, "big", "new");
    expect(second).toMatchObject({ id: key.did, name: "new", pool: "big", registeredAt: first.registeredAt });
    expect(granted(await place.calls.listRunners({ cursor: null, limit: 10 })).items).toHaveLength(1);
    await vi.waitFor(async () => expect(await poolCalls(place.name, "default").presence()).toEqual([]), 5_000);
  });

  test("used by three keys at once lets one in", async () => {
    const { name, calls, audience } = await openNamespace();
    const { token } = granted(await calls.createRegistration({ actor: "token:op", pool: "default" }));
    const keys = await Promise.all([newSigner(), newSigner(), newSigner()]);
    const proofs = await Promise.all(keys.map((key) => proofOf(token, key, audience)));
    // From inside the object, so that their signatures are really checked at the same time.
    const answers = await runInDurableObject(bindings.NAMESPACE.getByName(name), (namespace) =>
      Promise.all(proofs.map((proof) => namespace.registerRunner({ token, name: "box", proof, audience }))),
    );
    expect(answers.filter((answer) => !isRefusal(answer))).toHaveLength(1);
    expect(granted(await calls.listRunners({ cursor: null, limit: 10 })).items).toHaveLength(1);
  });

  test("that proves nothing is refused and changes nothing, and the token still serves", async () => {
    const place = await openNamespace();
    const { name, calls, audience } = place;
    const key = await newSigner();
    const other = await newSigner();
    const { token } = granted(await calls.createRegistration({ actor: "token:op", pool: "default" }));
    const good = await proofOf(token, key, audience);
    const before = await dumpTables(name);
    const forged = { ...good, signatures: [{ ...good.signatures[0]!, keyid: other.did }] };
    const identity = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj";
    const weak = { ...good, signatures: [{ keyid: identity, sig: btoa(`\u0001${"\u0000".repeat(63)}`) }] };
    const late = await signEnvelope(
      REGISTRATION_PAYLOAD_TYPE,
      utf8(
        JSON.stringify({
          audience,
          runner: key.did,
          tokenSha256: await sha256Hex(utf8(token)),
          issuedAt: "2020-01-01T00:00:00Z",
        }),
      ),
      key,
    );
    const attempt = async (
      proof: typeof good,
      changes: { token?: string; audience?: string } = {},
    ): Promise<unknown> => {
      const answer = await calls.registerRunner({ token, name: "box", proof, audience, ...changes });
      return isRefusal(answer) ? answer.refused : answer;
    };
    expect(await attempt(forged)).toBe("bad-signature");
    expect(await attempt(weak)).toBe("weak-key");
    expect(await attempt(late)).toBe("bad-signature");
    expect(await attempt(await proofOf(token, key, "https://other.test/v1/x"))).toBe("bad-signature");
    expect(await attempt(await proofOf(`${token}x`, key, audience))).toBe("bad-signature");
    expect(await attempt(good, { audience: "https://other.test/v1/x" })).toBe("bad-signature");
    expect(await attempt(good, { token: "plr_aaaaaaaaaaaa_" + "a".repeat(43) })).toBe("unauthenticated");
    expect(await attempt(good, { token: "" })).toBe("unauthenticated");
    expect(await dumpTables(name)).toEqual(before);
    expect(await attempt(good)).toMatchObject({ id: key.did });
  });

  test("ends after an hour", async () => {
    const { calls, audience } = await openNamespace();
    const key = await newSigner();
    const { token, expiresAt } = granted(await calls.createRegistration({ actor: "token:op", pool: "default" }));
    vi.useFakeTimers({ toFake: ["Date"], now: Date.parse(expiresAt) });
    try {
      expect(
        await calls.registerRunner({ token, name: "box", proof: await proofOf(token, key, audience), audience }),
      ).toMatchObject({ refused: "unauthenticated" });
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("a session", () => {
  test("is opened by a signed challenge, and serves until its time, across an eviction too", async () => {
    const place = await openNamespace();
    const key = await newSigner();
    await register(place, key, "arm");
    const session = await openSession(place, key);
    expect(session.pool).toBe("arm");
    await evictDurableObject(bindings.NAMESPACE.getByName(place.name));
    const { principal } = granted(await place.calls.authenticate({ credential: session.token }));
    expect(principal).toEqual({
      kind: "runner",
      actor: key.did,
      runner: key.did,
      pool: "arm",
      namespace: place.name,
      scopes: [],
    });
    expect(Date.parse(session.expiresAt)).toBeLessThanOrEqual(Date.now() + LIMITS.sessionMs);
    expect(JSON.stringify(await dumpTables(place.name))).not.toContain(session.token.slice(-43));
    vi.useFakeTimers({ toFake: ["Date"], now: Date.parse(session.expiresAt) });
    try {
      expect(await place.calls.authenticate({ credential: session.token })).toMatchObject({
        refused: "unauthenticated",
      });
    } finally {
      vi.useRealTimers();
    }
  });

  test("needs a challenge of its own each time, even when two answer at once", async () => {
    const place = await openNamespace();
    const { calls, audience } = place;
    const key = await newSigner();
    await register(place, key);
    const { challenge } = granted(await calls.createChallenge({ runner: key.did, audience }));
    const proof = await signSession({ audience, challenge }, key);
    const answers = await runInDurableObject(bindings.NAMESPACE.getByName(place.name), (namespace) =>
      Promise.all([1, 2, 3].map(() => namespace.createSession({ runner: key.did, proof, audience }))),
    );
    expect(answers.filter((answer) => !isRefusal(answer))).toHaveLength(1);
    expect(await calls.createSession({ runner: key.did, proof, audience })).toMatchObject({
      refused: "unauthenticated",
    });
  });

  test("is not given for a wrong key, an old challenge or an unknown runner, and nothing is stored", async () => {
    const place = await openNamespace();
    const { name, calls, audience } = place;
    const [key, stranger] = [await newSigner(), await newSigner()];
    await register(place, key);
    const before = await dumpTables(name);
    const { challenge, expiresAt } = granted(await calls.createChallenge({ runner: key.did, audience }));
    expect(
      await calls.createSession({
        runner: key.did,
        proof: await signSession({ audience, challenge }, stranger),
        audience,
      }),
    ).toMatchObject({ refused: "bad-signature" });
    expect(
      await calls.createSession({
        runner: key.did,
        proof: await signSession({ audience, challenge: "guess" }, key),
        audience,
      }),
    ).toMatchObject({ refused: "bad-signature" });
    expect(
      await calls.createSession({
        runner: key.did,
        proof: await signSession({ audience: "https://other.test/v1/x", challenge }, key),
        audience,
      }),
    ).toMatchObject({ refused: "bad-signature" });
    const unknown = granted(await calls.createChallenge({ runner: stranger.did, audience }));
    expect(unknown.challenge).toHaveLength(challenge.length);
    expect(
      await calls.createSession({
        runner: stranger.did,
        proof: await signSession({ audience, challenge: unknown.challenge }, stranger),
        audience,
      }),
    ).toMatchObject({ refused: "unauthenticated" });
    // A stranger who asks for the same runner's challenge does not take it away.
    expect(granted(await calls.createChallenge({ runner: key.did, audience })).challenge).toBe(challenge);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.parse(expiresAt) });
    try {
      expect(
        await calls.createSession({
          runner: key.did,
          proof: await signSession({ audience, challenge }, key),
          audience,
        }),
      ).toMatchObject({ refused: "unauthenticated" });
    } finally {
      vi.useRealTimers();
    }
    expect(await dumpTables(name)).toEqual(before);
  });

  test("is one of four at most per runner: the oldest ends", async () => {
    const place = await openNamespace();
    const key = await newSigner();
    await register(place, key);
    const started = Date.now();
    const tokens: string[] = [];
    vi.useFakeTimers({ toFake: ["Date"], now: started });
    try {
      for (let at = 0; at < 6; at += 1) {
        vi.setSystemTime(started + at);
        tokens.push((await openSession(place, key)).token);
      }
      const answers = await Promise.all(tokens.map((credential) => place.calls.authenticate({ credential })));
      expect(answers.map((answer) => !isRefusal(answer))).toEqual([false, false, true, true, true, true]);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("the fleet", () => {
  test("shows what the pools see, by pages", async () => {
    const place = await openNamespace();
    const { name, calls } = place;
    const keys = await Promise.all(Array.from({ length: 5 }, newSigner));
    for (const key of keys) await register(place, key);
    const [polling] = keys;
    const poll = poolCalls(name, "default").poll({
      runner: polling!.did,
      body: { requestKey: crypto.randomUUID(), protocol: 1, pool: "default", offer: OFFER, busy: 0, waitMs: 300 },
    });
    await scheduler.wait(50);
    const seen: RunnerView[] = [];
    let cursor: string | null = null;
    do {
      const page: { items: RunnerView[]; nextCursor: string | null } = granted(
        await calls.listRunners({ cursor, limit: 2 }),
      );
      seen.push(...page.items);
      cursor = page.nextCursor;
    } while (cursor !== null);
    expect(seen.map(({ id }) => id)).toEqual(keys.map(({ did }) => did).toSorted());
    expect(seen.filter(({ state }) => state === "online")).toMatchObject([{ id: polling!.did, offer: OFFER, busy: 0 }]);
    expect(await calls.listRunners({ cursor: "x", limit: 2 })).toMatchObject({ refused: "invalid-cursor" });
    await poll;
  });

  test("drains and undrains a runner at its pool, and says so once", async () => {
    const place = await openNamespace();
    const { name, calls } = place;
    const key = await newSigner();
    await register(place, key);
    const pool = poolCalls(name, "default");
    const drained = async (): Promise<boolean | undefined> =>
      (await pool.presence()).find(({ runner }) => runner === key.did)?.drained;
    await pollOnce(name, key, "default");
    expect(await drained()).toBe(false);
    expect(await calls.drainRunner({ actor: "token:op", runner: key.did, drained: true })).toMatchObject({
      drained: true,
    });
    expect(await calls.drainRunner({ actor: "token:op", runner: key.did, drained: true })).toMatchObject({
      drained: true,
    });
    expect(await drained()).toBe(true);
    expect(await calls.drainRunner({ actor: "token:op", runner: key.did, drained: false })).toMatchObject({
      drained: false,
    });
    expect(await drained()).toBe(false);
    const how = { note: "new disk", deadlineMs: 60_000, end: "exit" as const };
    const before = Date.now();
    const view = granted(await calls.drainRunner({ actor: "token:op", runner: key.did, drained: true, how }));
    expect(view).toMatchObject({ drained: true, drain: { note: "new disk", end: "exit" } });
    expect(Date.parse(view.drain?.deadlineAt ?? "") - before).toBeGreaterThanOrEqual(60_000);
    expect(granted(await calls.listRunners({ cursor: null, limit: 10 })).items).toContainEqual(
      expect.objectContaining({ id: key.did, drain: view.drain }),
    );
    const again = await calls.drainRunner({ actor: "token:op", runner: key.did, drained: false });
    expect(again).toMatchObject({ drained: false, drain: null });
    const { events } = granted(await calls.history({ since: null, limit: 10, waitMs: 0 }));
    const changes = events.map(({ type }) => type.slice("runner.".length)).join(" ");
    expect(changes).toBe("registered drained undrained drained undrained");
    expect((await dumpTables(name))["outbox"]).toEqual([]);
    expect(
      await calls.drainRunner({ actor: "token:op", runner: (await newSigner()).did, drained: true }),
    ).toMatchObject({ refused: "not-found" });
  });

  test("forgets a revoked runner: its sessions, its votes, and its key for ever", async () => {
    const place = await openNamespace();
    const { name, calls, audience } = place;
    const key = await newSigner();
    await register(place, key);
    const { token } = await openSession(place, key);
    await pollOnce(name, key, "default");
    expect(await calls.revokeRunner({ actor: "admin", runner: key.did })).toMatchObject({
      revoked: true,
      state: "offline",
    });
    expect(await calls.authenticate({ credential: token })).toMatchObject({ refused: "unauthenticated" });
    expect(await poolCalls(name, "default").presence()).toEqual([]);
    expect(granted(await calls.getTrust()).signers).toEqual([]);
    const { challenge } = granted(await calls.createChallenge({ runner: key.did, audience }));
    expect(
      await calls.createSession({ runner: key.did, proof: await signSession({ audience, challenge }, key), audience }),
    ).toMatchObject({ refused: "unauthenticated" });
    const fresh = granted(await calls.createRegistration({ actor: "token:op", pool: "default" }));
    expect(
      await calls.registerRunner({
        token: fresh.token,
        name: "box",
        proof: await proofOf(fresh.token, key, audience),
        audience,
      }),
    ).toMatchObject({ refused: "forbidden" });
    expect(await calls.drainRunner({ actor: "token:op", runner: key.did, drained: true })).toMatchObject({
      refused: "wrong-state",
    });
    expect(await calls.revokeRunner({ actor: "admin", runner: key.did })).toMatchObject({ revoked: true });
    const { events } = granted(await calls.history({ since: null, limit: 10, waitMs: 0 }));
    expect(events.map(({ type }) => type)).toEqual(["runner.registered", "runner.revoked"]);
  });
});
