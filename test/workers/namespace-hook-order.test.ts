import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { type Hook, isRefusal, LIMITS, signWebhook } from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import { deploymentObject } from "../../durable-objects/shared/names.ts";
import {
  bindings,
  bytesOf,
  dumpTables,
  execute,
  granted,
  hookOf,
  newSigner,
  openNamespace,
} from "./namespace-fixtures.ts";
import {
  bodyOf,
  COMMITS,
  openHooks,
  type Place,
  post,
  RULE,
  SECRET,
  settled,
  signedPush,
} from "./namespace-hook-fixtures.ts";

const [ONE, TWO, THREE] = COMMITS;
const MINUTE_MS = 60_000;

function at(ms: number): string {
  return new Date(Date.now() + ms).toISOString();
}

async function putHooks({ calls }: Pick<Place, "calls">, hooks: Hook[], triggers = [RULE]): Promise<void> {
  const { version } = granted(await calls.getTriggers());
  granted(await calls.putTriggers({ actor: "admin", body: { triggers, hooks }, ifMatch: `"v${version}"` }));
}

describe("a push that comes late", () => {
  test("does not become the newest, across a restart either, and says so; a person may still run it", async () => {
    const place = await openHooks();
    const newer = granted(await post(place, { before: TWO, after: THREE })).delivery;
    await settled(place.calls, newer.id);
    await evictDurableObject(bindings.NAMESPACE.getByName(place.name));
    const { delivery } = granted(await post(place, { before: ONE, after: TWO }));
    expect(delivery).toMatchObject({ state: "ignored", results: [{ trigger: "*", job: null }] });
    expect(delivery.results[0]?.detail).toContain(`delivery ${newer.id} is a newer push`);
    granted(await place.calls.redeliver({ actor: "token:op", id: delivery.id }));
    expect((await settled(place.calls, delivery.id)).state).toBe("submitted");
  });

  test("is known by the number of its sender, where commits in between are missing", async () => {
    const place = await openHooks();
    const states: string[] = [];
    for (const push of [
      { before: "d".repeat(40), after: THREE, number: 9 },
      { before: ONE, after: TWO, number: 7 },
    ])
      states.push(granted(await post(place, push)).delivery.state);
    expect(states).toEqual(["accepted", "ignored"]);
  });

  test("of a stranger's `main` is not compared with that of the delegates", async () => {
    const place = await openHooks();
    const [delegate, stranger] = [await newSigner(), await newSigner()];
    const delegates = [delegate.did];
    const first = granted(await post(place, { before: ONE, after: TWO, author: stranger.did, delegates })).delivery;
    expect((await settled(place.calls, first.id)).results[0]?.detail).toContain("held");
    const second = granted(await post(place, { before: ONE, after: TWO, author: delegate.did, delegates })).delivery;
    expect((await settled(place.calls, second.id)).state).toBe("submitted");
  });
});

describe("jobs of one deployment", () => {
  test("are handed over in the order of their pushes, also when the first has to wait", async () => {
    const place = await openHooks([{ ...RULE, hold: false, mode: "replace" }]);
    // The first hand-over fails once: its row is put off, and the second must not overtake it.
    await execute(place.name, "CREATE TABLE fault (left_count INTEGER)");
    await execute(place.name, "INSERT INTO fault VALUES (1)");
    await execute(
      place.name,
      `CREATE TRIGGER late AFTER INSERT ON outbox WHEN (SELECT left_count FROM fault) > 0 BEGIN
         UPDATE outbox SET attempts = 1, due_at = new.due_at + 3600000 WHERE number = new.number;
         UPDATE fault SET left_count = 0; END`,
    );
    const first = granted(await post(place, { before: ONE, after: TWO })).delivery;
    const second = granted(await post(place, { before: TWO, after: THREE })).delivery;
    await runInDurableObject(bindings.NAMESPACE.getByName(place.name), (namespace) => namespace.alarm());
    expect(await deploymentObject(bindings, place.name, "app-main").read()).toMatchObject({ refused: "not-found" });
    const alarm = await runInDurableObject(bindings.NAMESPACE.getByName(place.name), (_, { storage }) =>
      storage.getAlarm(),
    );
    expect(alarm).toBeGreaterThan(Date.now() + MINUTE_MS);
    await execute(place.name, "UPDATE outbox SET due_at = 1");
    await runInDurableObject(bindings.NAMESPACE.getByName(place.name), (namespace) => namespace.alarm());
    await settled(place.calls, first.id);
    await settled(place.calls, second.id);
    const { jobs } = granted(await deploymentObject(bindings, place.name, "app-main").read());
    expect(jobs.map(({ source, state }) => [source?.commit, state])).toEqual([
      [TWO, "superseded"],
      [THREE, "queued"],
    ]);
  });
});

describe("keys and secrets that change over", () => {
  test("count both while they overlap, and each within its time alone", async () => {
    const place = await openHooks();
    const next = await newSigner();
    await putHooks(place, [
      {
        id: "seed",
        signers: [
          { key: place.key.did, validBefore: at(MINUTE_MS) },
          { key: next.did, validAfter: at(-MINUTE_MS) },
        ],
      },
    ]);
    for (const [ref, key] of [
      ["refs/heads/a", place.key],
      ["refs/heads/b", next],
    ] as const) {
      const { delivery } = granted(await post(place, { ref }, { key }));
      expect(delivery.signer).toBe(key.did);
      await settled(place.calls, delivery.id);
    }
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 2 * MINUTE_MS });
    try {
      const before = await dumpTables(place.name);
      const over = await post(place, { ref: "refs/heads/c" });
      expect(over).toMatchObject({ refused: "bad-signature" });
      expect(over).toEqual(await post(place, { ref: "refs/heads/c" }, { key: await newSigner() }));
      expect(await dumpTables(place.name)).toEqual(before);
      expect(granted(await post(place, { ref: "refs/heads/c" }, { key: next })).status).toBe(202);
    } finally {
      vi.useRealTimers();
    }
  });

  test("a revoked key is believed no longer, and stays in the document", async () => {
    const place = await openHooks();
    const signers = [{ key: place.key.did, revokedAt: at(-1) }];
    await putHooks(place, [{ id: "seed", signers, keys: [(await newSigner()).did] }]);
    expect(await post(place)).toMatchObject({ refused: "bad-signature" });
    expect(granted(await place.calls.getTriggers()).hooks[0]?.signers).toEqual(signers);
  });

  test("two secrets of one hook are one sender: an id that came under the old one is known under the new one", async () => {
    const place = await openNamespace();
    const secrets = ["old", "new"].map((name) => ({ name, secret: `${SECRET}, ${name}` }));
    await putHooks(place, [{ id: "garden", secrets }]);
    const body = bytesOf(bodyOf(place.audience));
    const ids: string[] = [];
    for (const { secret } of secrets) {
      const timestampSeconds = Math.floor(Date.now() / 1000);
      const headers = await signWebhook({ id: "m", timestampSeconds, body, secret: new TextEncoder().encode(secret) });
      ids.push(granted(await place.calls.receiveHook(hookOf(body, headers, place.audience))).delivery.id);
    }
    expect(new Set(ids).size).toBe(1);
  });

  test("a rule is changed without knowing the secrets, which go on working", async () => {
    const place = await openHooks();
    const { hooks } = granted(await place.calls.getTriggers());
    const echo = hooks.map(({ hasSecret: _, ...hook }) => hook);
    await putHooks(place, echo, [{ ...RULE, name: "other" }]);
    await evictDurableObject(bindings.NAMESPACE.getByName(place.name));
    const body = bytesOf(bodyOf(place.audience));
    const secret = new TextEncoder().encode(SECRET);
    const timestampSeconds = Math.floor(Date.now() / 1000);
    const headers = await signWebhook({ id: "m", timestampSeconds, body, secret });
    expect(granted(await place.calls.receiveHook(hookOf(body, headers, place.audience))).delivery.hook).toBe("garden");
  });

  test("of a hook that was stored with one secret, before there could be several, still count", async () => {
    const place = await openHooks();
    await execute(
      place.name,
      `UPDATE settings SET body = json_set(body, '$.hooks', json(?)) WHERE name = 'triggers'`,
      JSON.stringify([{ id: "garden", secret: SECRET }]),
    );
    expect(granted(await place.calls.getTriggers()).hooks).toEqual([
      { id: "garden", keys: [], hasSecret: true, secrets: [{ name: "secret" }] },
    ]);
  });
});

describe("an answer to a wrong clock", () => {
  test("brings the time of this broker", async () => {
    const place = await openHooks();
    const seconds = Math.floor(Date.now() / 1000) - LIMITS.webhookToleranceSeconds - 5;
    const answer = await place.calls.receiveHook(await signedPush(place, {}, { seconds }));
    if (!isRefusal(answer)) throw new Error("not refused");
    expect(Math.abs(Date.parse(answer.headers?.["Date"] ?? "") - Date.now())).toBeLessThan(5_000);
  });
});

describe("the paths of a push", () => {
  const outcomes = async (pushes: Record<string, unknown>[]): Promise<string[]> => {
    const place = await openHooks();
    const body = { triggers: [RULE], hooks: [{ id: "seed", keys: [place.key.did] }], paths: { ci: ["src/**"] } };
    granted(await place.calls.putTriggers({ actor: "admin", body, ifMatch: '"v1"' }));
    const said: string[] = [];
    for (const push of pushes) {
      const { delivery } = granted(await post(place, push));
      said.push((await settled(place.calls, delivery.id)).results[0]?.detail ?? "");
    }
    return said;
  };
  const docs = { paths: ["docs/a"] };

  test("count where it follows the newest of its ref", async () => {
    const said = await outcomes([
      { before: ONE, after: TWO, ...docs },
      { before: TWO, after: THREE, ...docs },
    ]);
    expect(said).toEqual(Array.from({ length: 2 }, () => expect.stringContaining("does not ask for the path")));
  });

  test("are not believed where one before it is missing, so that nothing of it is missed", async () => {
    const zero = "d".repeat(40);
    const said = await outcomes([
      { before: zero, after: ONE, ...docs },
      { before: TWO, after: THREE, ...docs },
      { before: ONE, after: TWO, paths: ["src/a"] },
    ]);
    expect(said).toEqual([
      expect.stringContaining("does not ask for the path"),
      "submitted; which paths changed is not known, which counts as a match",
      expect.stringContaining("the ref has moved on"),
    ]);
  });
});
