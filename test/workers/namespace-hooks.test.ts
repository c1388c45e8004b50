import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { isRefusal, LIMITS, type Refusal, signWebhook } from "@plumule/protocol";
import { describe, expect, test, vi } from "vitest";
import {
  bindings,
  bytesOf,
  dumpTables,
  granted,
  hookOf,
  hubSignature,
  newSigner,
  openNamespace,
  readFeed,
} from "./namespace-fixtures.ts";
import {
  bodyOf,
  COMMITS,
  openHooks,
  type Place,
  post,
  type Received,
  REPOSITORY,
  RULE,
  SECRET,
  settled,
  signedPush,
} from "./namespace-hook-fixtures.ts";

describe("a webhook signed with Ed25519 (v1a)", () => {
  test("is stored, told, and becomes a job of its deployment", async () => {
    const place = await openHooks();
    const { status, delivery } = granted(await post(place));
    expect(status).toBe(202);
    expect(delivery).toMatchObject({
      hook: "seed",
      signer: place.key.did,
      type: "push",
      repository: REPOSITORY,
      ref: "refs/heads/main",
      after: COMMITS[1],
      state: "accepted",
    });
    const done = await settled(place.calls, delivery.id);
    expect(done).toMatchObject({
      state: "submitted",
      results: [{ trigger: "ci", deployment: "app-main", detail: "submitted" }],
    });
    expect(done.results[0]?.job).toMatch(/^[0-9a-f-]{36}$/);
    const events = await readFeed(place.calls);
    expect(events.filter(({ type }) => type === "delivery.received")).toMatchObject([
      { actor: "hook:seed", subject: `deliveries/${delivery.id}` },
    ]);
    expect((await dumpTables(place.name))["outbox"]).toEqual([]);
  });

  test("says for every rule what it did or why not", async () => {
    const place = await openHooks([
      RULE,
      { ...RULE, name: "tags", refs: ["refs/tags/*"] },
      { ...RULE, name: "nightly", deployment: "night" },
    ]);
    const { delivery } = granted(await post(place));
    const { state, results } = await settled(place.calls, delivery.id);
    expect(state).toBe("submitted");
    expect(results).toMatchObject([
      { trigger: "ci", deployment: "app-main" },
      { trigger: "tags", deployment: null, job: null, detail: "no pattern of the rule matches refs/heads/main" },
      { trigger: "nightly", deployment: "night" },
    ]);
    expect(new Set(results.map(({ job }) => job)).size).toBe(3);
  });

  test("that deletes a ref, or meets no rule, is ignored in words", async () => {
    const place = await openHooks();
    expect(granted(await post(place, { after: "0".repeat(40) })).delivery).toMatchObject({
      state: "ignored",
      results: [{ detail: "the ref was deleted: there is nothing to build" }],
    });
    const bare = await openHooks([]);
    expect(granted(await post(bare)).delivery).toMatchObject({
      state: "ignored",
      results: [{ detail: "the namespace has no trigger rules" }],
    });
  });

  test("repeated with the same id is one delivery, 50 times at once too", async () => {
    const place = await openHooks();
    const id = crypto.randomUUID();
    const call = await signedPush(place, {}, { id });
    const answers = await runInDurableObject(bindings.NAMESPACE.getByName(place.name), async (namespace) =>
      (await Promise.all(Array.from({ length: 50 }, () => namespace.receiveHook(call)))).map((answer) =>
        granted(answer),
      ),
    );
    expect(new Set(answers.map(({ delivery }) => delivery.id)).size).toBe(1);
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(1);
    await settled(place.calls, answers[0]!.delivery.id);
    await evictDurableObject(bindings.NAMESPACE.getByName(place.name));
    expect(granted(await post(place, {}, { id })).status).toBe(200);
    expect((await dumpTables(place.name))["deliveries"]).toHaveLength(1);
  });

  test("repeated with the same id and another body is refused and changes nothing", async () => {
    const place = await openHooks();
    const { delivery } = granted(await post(place, {}, { id: "msg_1" }));
    await settled(place.calls, delivery.id);
    const before = await dumpTables(place.name);
    expect(await post(place, { after: COMMITS[2] }, { id: "msg_1" })).toMatchObject({
      refused: "idempotency-mismatch",
    });
    expect(await dumpTables(place.name)).toEqual(before);
  });
});

describe("a webhook that proves nothing is refused, and nothing is stored", () => {
  const cases: [string, string, (place: Place) => Promise<Received | Refusal>][] = [
    [
      "no headers",
      "missing-header",
      ({ calls, audience }) => calls.receiveHook(hookOf(bodyOf(audience), {}, audience)),
    ],
    ["a key that is not trusted", "bad-signature", async (place) => post(place, {}, { key: await newSigner() })],
    [
      "another body than was signed",
      "bad-signature",
      async ({ calls, audience, key }) => {
        const headers = await signWebhook({
          id: "x",
          timestampSeconds: Math.floor(Date.now() / 1000),
          body: bytesOf(bodyOf(audience)),
          signer: key,
        });
        return calls.receiveHook(hookOf(bodyOf(audience, { after: COMMITS[2] }), headers, audience));
      },
    ],
    [
      "a time 301 s ago",
      "timestamp-out-of-window",
      (place) => post(place, {}, { seconds: Math.floor(Date.now() / 1000) - LIMITS.webhookToleranceSeconds - 1 }),
    ],
    [
      "a time 302 s ahead",
      "timestamp-out-of-window",
      (place) => post(place, {}, { seconds: Math.floor(Date.now() / 1000) + LIMITS.webhookToleranceSeconds + 2 }),
    ],
    [
      "an id with a dot",
      "invalid-parameter",
      ({ calls, audience }) =>
        calls.receiveHook(
          hookOf(
            bodyOf(audience),
            { "webhook-id": "a.1700000000", "webhook-timestamp": "1700000000", "webhook-signature": "v1a,x" },
            audience,
          ),
        ),
    ],
    [
      "a time that is none",
      "invalid-parameter",
      ({ calls, audience }) =>
        calls.receiveHook(
          hookOf(
            bodyOf(audience),
            { "webhook-id": "a", "webhook-timestamp": "1700000000abc", "webhook-signature": "v1a,x" },
            audience,
          ),
        ),
    ],
    [
      "a thousand signatures",
      "bad-signature",
      ({ calls, audience }) =>
        calls.receiveHook(
          hookOf(
            bodyOf(audience),
            {
              "webhook-id": "a",
              "webhook-timestamp": String(Math.floor(Date.now() / 1000)),
              "webhook-signature": Array.from({ length: 1000 }, () => "v1a,AA==").join(" "),
            },
            audience,
          ),
        ),
    ],
    ...[
      "",
      "v1,",
      "v1a,",
      "v1a,!!!!",
      "v2,AAAA",
      ...[0, 32, 63, 65, 128].map((length) => `v1a,${btoa("\0".repeat(length))}`),
      ...[0, 31, 33].map((length) => `v1,${btoa("\0".repeat(length))}`),
    ].map((signature): [string, string, (place: Place) => Promise<Received | Refusal>] => [
      `the signature ${JSON.stringify(signature.slice(0, 20))} of ${signature.length} characters`,
      "bad-signature",
      async (place) => {
        const call = await signedPush(place);
        return place.calls.receiveHook({ ...call, headers: { ...call.headers, "webhook-signature": signature } });
      },
    ]),
    ["a hook that is not there", "bad-signature", (place) => post(place, {}, { hook: "nowhere" })],
    ["a hook that has another key", "bad-signature", (place) => post(place, {}, { hook: "garden" })],
    [
      "a wrong hub signature",
      "bad-signature",
      ({ calls, audience }) =>
        calls.receiveHook(hookOf(bodyOf(audience), { "x-hub-signature-256": `sha256=${"0".repeat(64)}` }, audience)),
    ],
    [
      "a hub signature that is none",
      "bad-signature",
      ({ calls, audience }) =>
        calls.receiveHook(hookOf(bodyOf(audience), { "x-radicle-signature": "sha256=zz" }, audience)),
    ],
    [
      "a header named like a property of every object",
      "missing-header",
      ({ calls, audience }) => calls.receiveHook(hookOf(bodyOf(audience), { constructor: "x" }, audience)),
    ],
  ];
  test.each(cases)("%s: %s", async (_, code, send) => {
    const place = await openHooks();
    const before = await dumpTables(place.name);
    const answer = await send(place);
    expect(isRefusal(answer) && answer.refused).toBe(code);
    expect(await dumpTables(place.name)).toEqual(before);
  });

  test.each<[string, string, unknown]>([
    ["no JSON", "invalid-json", new TextEncoder().encode("{")],
    ["invalid UTF-8", "invalid-json", new Uint8Array([0x22, 0xff, 0x22])],
    ["a key twice", "invalid-json", new TextEncoder().encode(`{"a":1,"a":2}`)],
    ["__proto__", "invalid-json", new TextEncoder().encode(`{"__proto__":{}}`)],
    ["depth 100,000", "invalid-json", new TextEncoder().encode("[".repeat(20_000) + "]".repeat(20_000))],
    ["what looks like a refusal", "invalid-body", { refused: "x", detail: "y" }],
    ["another audience", "invalid-body", bodyOf("https://other.test/v1/x")],
    ["a ref that is an option", "invalid-body", bodyOf("", { ref: "refs/heads/--upload-pack=x" })],
  ])("a trusted signature over %s: %s", async (_, code, body) => {
    const place = await openHooks();
    const before = await dumpTables(place.name);
    const bytes = body instanceof Uint8Array ? body : bytesOf(body);
    const headers = await signWebhook({
      id: "x",
      timestampSeconds: Math.floor(Date.now() / 1000),
      body: bytes,
      signer: place.key,
    });
    expect(await place.calls.receiveHook(hookOf(bytes, headers, place.audience))).toMatchObject({ refused: code });
    expect(await dumpTables(place.name)).toEqual(before);
  });
});

describe("a webhook with a shared secret", () => {
  const DELEGATE = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
  const repository = {
    delegates: [DELEGATE],
    id: REPOSITORY.slice(4),
    default_branch: "main",
    clone_url: "https://seed.test/x.git",
    seeder: "z6MkX",
  };
  const garden = {
    repository,
    author: { id: DELEGATE },
    branch: "main",
    before: COMMITS[0],
    after: COMMITS[1],
    commits: [],
  };

  test.each([["x-hub-signature-256"], ["x-radicle-signature"]])(
    "in %s, of Radicle Garden, becomes a job; a replay does not",
    async (header) => {
      const place = await openHooks();
      const body = bytesOf(garden);
      const call = hookOf(
        body,
        { [header]: await hubSignature(SECRET, body), "x-radicle-event-type": "push" },
        place.audience,
        "garden",
      );
      const { status, delivery } = granted(await place.calls.receiveHook(call));
      expect([status, delivery.signer]).toEqual([202, "hook:garden"]);
      expect(await settled(place.calls, delivery.id)).toMatchObject({
        state: "submitted",
        repository: REPOSITORY,
        results: [{ deployment: "app-main" }],
      });
      vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 24 * 3600_000 });
      try {
        const again = granted(await place.calls.receiveHook(call));
        expect([again.status, again.delivery.id]).toEqual([200, delivery.id]);
      } finally {
        vi.useRealTimers();
      }
      const reworded = bytesOf({ ...garden, commits: undefined });
      expect(
        granted(
          await place.calls.receiveHook(
            hookOf(reworded, { [header]: await hubSignature(SECRET, reworded) }, place.audience),
          ),
        ).delivery.id,
      ).toBe(delivery.id);
    },
  );

  test("that moves a branch away and back is three pushes, without an id of the sender", async () => {
    const place = await openHooks();
    const [one, two, three] = COMMITS;
    const states: string[] = [];
    for (const [before, after] of [
      [one, two],
      [two, three],
      [three, two],
    ] as const) {
      const body = bytesOf({ ...garden, before, after });
      const headers = { "x-radicle-signature": await hubSignature(SECRET, body) };
      states.push(granted(await place.calls.receiveHook(hookOf(body, headers, place.audience))).delivery.state);
    }
    expect(states).toEqual(["accepted", "accepted", "accepted"]);
  });

  test("of a patch goes to the patch's deployment", async () => {
    const place = await openHooks([{ ...RULE, refs: ["refs/patches/*"], events: ["patch"], deployment: "pr-{patch}" }]);
    const body = bytesOf({
      action: "Created",
      repository,
      patch: { id: COMMITS[2], title: "x", author: { id: DELEGATE }, after: COMMITS[1], revisions: [] },
    });
    const { delivery } = granted(
      await place.calls.receiveHook(
        hookOf(
          body,
          { "x-radicle-signature": await hubSignature(SECRET, body), "x-radicle-event-type": "patch_created" },
          place.audience,
          "garden",
        ),
      ),
    );
    expect(await settled(place.calls, delivery.id)).toMatchObject({
      type: "patch",
      results: [{ deployment: `pr-${COMMITS[2]}` }],
    });
  });

  test("of GitHub: a ping is acknowledged and ignored", async () => {
    const place = await openHooks();
    const body = bytesOf({ zen: "x", hook_id: 1, repository: { id: 1 } });
    const { status, delivery } = granted(
      await place.calls.receiveHook(
        hookOf(
          body,
          { "x-hub-signature-256": await hubSignature(SECRET, body), "x-github-event": "ping" },
          place.audience,
          "garden",
        ),
      ),
    );
    expect([status, delivery.state, delivery.type]).toEqual([202, "ignored", "ping"]);
    expect(await place.calls.redeliver({ actor: "admin", id: delivery.id })).toMatchObject({ refused: "wrong-state" });
  });

  test("by Standard Webhooks (v1) is taken, in both forms of the secret", async () => {
    const place = await openNamespace();
    const raw = crypto.getRandomValues(new Uint8Array(32));
    const coded = `whsec_${btoa(String.fromCharCode(...raw))}`;
    granted(
      await place.calls.putTriggers({
        actor: "admin",
        body: {
          triggers: [],
          hooks: [
            { id: "a", secret: coded },
            { id: "b", secret: SECRET },
          ],
        },
        ifMatch: `"v0"`,
      }),
    );
    const body = bytesOf(bodyOf(place.audience));
    const timestampSeconds = Math.floor(Date.now() / 1000);
    for (const [hook, secret] of [
      ["a", raw],
      ["b", new TextEncoder().encode(SECRET)],
    ] as const) {
      const { delivery } = granted(
        await place.calls.receiveHook(
          hookOf(body, await signWebhook({ id: "m", timestampSeconds, body, secret }), place.audience),
        ),
      );
      expect(delivery).toMatchObject({ hook, signer: `hook:${hook}`, webhookId: "m" });
    }
  });
});
