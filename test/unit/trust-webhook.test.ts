import { createHmac } from "node:crypto";
import { Webhook } from "standardwebhooks";
import { beforeAll, describe, expect, test } from "vitest";
import { parseBase64, toBase64, utf8 } from "../../protocol/src/bytes.ts";
import { type Signer, verifySignature } from "../../protocol/src/ed25519.ts";
import {
  parseWebhookSecret,
  signWebhook,
  verifyHubSignature,
  verifyWebhook,
  type WebhookHeaders,
  type WebhookTrust,
} from "../../protocol/src/webhook.ts";
import { signerNumber } from "./trust-fixtures.ts";

/** The test vector of Standard Webhooks. */
const ID = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SECONDS = 1_614_265_330;
const BODY = utf8('{"test": 2432232314}');
const SECRET = parseBase64("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")!;
const SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

let alice: Signer;
let bob: Signer;
let trust: WebhookTrust;
let signed: WebhookHeaders;
beforeAll(async () => {
  [alice, bob] = await Promise.all([signerNumber(1), signerNumber(2)]);
  trust = {
    ed25519Keys: [bob.publicKey, alice.publicKey],
    secrets: [utf8("another secret of 24 bytes"), SECRET],
    nowMs: SECONDS * 1000,
    toleranceSeconds: 300,
  };
  signed = await signWebhook({ id: ID, timestampSeconds: SECONDS, body: BODY, signer: alice });
});

const check = (
  changes: Partial<Record<keyof WebhookHeaders, string | null>> = {},
  body = BODY,
  changedTrust: Partial<WebhookTrust> = {},
): ReturnType<typeof verifyWebhook> => {
  const headers = { ...signed, ...changes };
  return verifyWebhook({ get: (name) => headers[name as keyof WebhookHeaders] ?? null }, body, {
    ...trust,
    ...changedTrust,
  });
};

describe("a webhook by Standard Webhooks", () => {
  test("with a secret is signed as the specification's vector", async () => {
    const headers = await signWebhook({ id: ID, timestampSeconds: SECONDS, body: BODY, secret: SECRET });
    expect(headers).toEqual({ "webhook-id": ID, "webhook-timestamp": "1614265330", "webhook-signature": SIGNATURE });
    expect(await verifyWebhook(new Headers(headers), BODY, trust)).toEqual({
      ok: true,
      id: ID,
      timestampSeconds: SECONDS,
      scheme: "v1",
      keyIndex: 1,
    });
  });

  test("with a key is an Ed25519 signature of `id.timestamp.body`", async () => {
    const [scheme, signature] = signed["webhook-signature"].split(",");
    expect(scheme).toBe("v1a");
    expect(
      await verifySignature(alice.publicKey, parseBase64(signature!)!, utf8(`${ID}.${SECONDS}.{"test": 2432232314}`)),
    ).toBe(true);
    expect(await check()).toEqual({ ok: true, id: ID, timestampSeconds: SECONDS, scheme: "v1a", keyIndex: 1 });
  });

  test("covers bytes, not text", async () => {
    const body = Uint8Array.of(0xff, 0x00, 0xfe);
    const headers = await signWebhook({ id: "a", timestampSeconds: SECONDS, body, signer: alice });
    expect(await check(headers, body)).toMatchObject({ ok: true });
    expect(await check(headers, Uint8Array.of(0xfd, 0x00, 0xfe))).toMatchObject({ ok: false });
  });

  test("is valid when one of several signatures is by a trusted key", async () => {
    const stranger = await signWebhook({
      id: ID,
      timestampSeconds: SECONDS,
      body: BODY,
      signer: await signerNumber(3),
    });
    const list = ["v2,AAAA", "v1a", "v1,", stranger["webhook-signature"], signed["webhook-signature"]].join(" ");
    expect(await check({ "webhook-signature": list })).toMatchObject({ ok: true, keyIndex: 1 });
  });

  test("is refused when body, id, time or key is another", async () => {
    const refusal = { ok: false, code: "no-matching-signature" };
    expect(await check({}, utf8('{"test": 2432232315}'))).toMatchObject(refusal);
    expect(await check({ "webhook-id": "msg_other" })).toMatchObject(refusal);
    expect(await check({ "webhook-timestamp": String(SECONDS + 1) })).toMatchObject(refusal);
    expect(await check({}, BODY, { ed25519Keys: [bob.publicKey] })).toMatchObject(refusal);
    expect(await check({}, BODY, { ed25519Keys: [] })).toMatchObject(refusal);
    expect(await check({ "webhook-signature": SIGNATURE }, BODY, { secrets: [] })).toMatchObject(refusal);
  });

  test("tells a wrong key and a wrong signature apart to nobody", async () => {
    const wrongKey = await check({}, BODY, { ed25519Keys: [bob.publicKey] });
    expect(await check({}, utf8("{}"))).toEqual(wrongKey);
  });

  test.each([0, 63, 65, 32])("with an Ed25519 signature of %i bytes is refused", async (length) => {
    expect(await check({ "webhook-signature": `v1a,${toBase64(new Uint8Array(length))}` })).toMatchObject({
      code: "no-matching-signature",
    });
  });

  test.each([
    "",
    "v1a",
    "v1a,",
    "v1a,!!!!",
    "v2,AAAA",
    `${SIGNATURE},junk`,
    SIGNATURE.replace("v1,", "v1, "),
    SIGNATURE.replace("v1", "V1"),
    `${SIGNATURE}\t`,
  ])("with the signature list %j is refused", async (list) => {
    expect(await check({ "webhook-signature": list })).toMatchObject({ code: "no-matching-signature" });
  });

  test("may have eight signatures, not nine", async () => {
    const list = (count: number): string =>
      [...Array.from({ length: count - 1 }, () => "v1,AAAA"), signed["webhook-signature"]].join(" ");
    expect(await check({ "webhook-signature": list(8) })).toMatchObject({ ok: true });
    expect(await check({ "webhook-signature": list(9) })).toMatchObject({ code: "no-matching-signature" });
  });

  test.each(["webhook-id", "webhook-timestamp", "webhook-signature"] as const)(
    "without %s is refused",
    async (name) => {
      expect(await check({ [name]: null })).toMatchObject({ code: "missing-header" });
    },
  );

  test.each(["", "a.1700000000", "a b", "a, b", "ä", "a\n", "a\0", "x".repeat(129), "../a"])(
    "with the id %j is refused",
    async (id) => {
      expect(await check({ "webhook-id": id })).toMatchObject({ code: "bad-id" });
    },
  );

  test.each([
    "",
    "1614265330abc",
    " 1614265330",
    "1614265330 ",
    "01614265330",
    "1e9",
    "-1614265330",
    "+1614265330",
    "1614265330.0",
    "161426533",
    "16142653300",
    "1614265330, 1614265330",
  ])("with the timestamp %j is refused", async (timestamp) => {
    expect(await check({ "webhook-timestamp": timestamp })).toMatchObject({ code: "bad-timestamp" });
  });

  test.each([
    [-300, true],
    [300, true],
    [-301, false],
    [301, false],
  ])("that is %i s away from the clock: valid is %s", async (seconds, valid) => {
    const verified = await check({}, BODY, { nowMs: (SECONDS + seconds) * 1000 });
    expect(verified).toMatchObject(
      valid
        ? { ok: true }
        : { code: "timestamp-out-of-window", detail: expect.stringContaining(String(SECONDS + seconds)) as string },
    );
  });

  test("is not signed with an id or a time that no verifier would take", async () => {
    await expect(signWebhook({ id: "a.b", timestampSeconds: SECONDS, body: BODY, signer: alice })).rejects.toThrow(
      RangeError,
    );
    await expect(signWebhook({ id: "a", timestampSeconds: 1.5e9 + 0.5, body: BODY, signer: alice })).rejects.toThrow(
      RangeError,
    );
    await expect(signWebhook({ id: "a", timestampSeconds: SECONDS * 1000, body: BODY, signer: alice })).rejects.toThrow(
      RangeError,
    );
  });
});

describe("beside the reference implementation of Standard Webhooks", () => {
  const reference = new Webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
  const nowSeconds = Math.floor(Date.now() / 1000);
  const current = (): Partial<WebhookTrust> => ({ nowMs: Date.now() });

  test("what we sign it verifies, and what it signs we verify", async () => {
    const ours = await signWebhook({ id: "msg_1", timestampSeconds: nowSeconds, body: BODY, secret: SECRET });
    expect(reference.verify('{"test": 2432232314}', ours)).toEqual({ test: 2432232314 });
    const theirs = {
      "webhook-id": "msg_2",
      "webhook-timestamp": String(nowSeconds),
      "webhook-signature": reference.sign("msg_2", new Date(nowSeconds * 1000), '{"test": 2432232314}'),
    };
    expect(await check(theirs, BODY, current())).toMatchObject({ ok: true, scheme: "v1" });
  });

  test("both find the right one of several signatures, also behind one of Ed25519", async () => {
    const hmac = await signWebhook({ id: "m", timestampSeconds: nowSeconds, body: BODY, secret: SECRET });
    const key = await signWebhook({ id: "m", timestampSeconds: nowSeconds, body: BODY, signer: alice });
    const both = { ...hmac, "webhook-signature": `${key["webhook-signature"]} ${hmac["webhook-signature"]}` };
    expect(reference.verify('{"test": 2432232314}', both)).toEqual({ test: 2432232314 });
    expect(await check(both, BODY, current())).toMatchObject({ ok: true, scheme: "v1a" });
  });

  test("both refuse a changed body and a time out of the window", async () => {
    for (const [body, seconds] of [
      ['{"test": 2432232315}', nowSeconds],
      ['{"test": 2432232314}', nowSeconds - 301],
    ] as const) {
      const headers = await signWebhook({ id: "m", timestampSeconds: seconds, body: BODY, secret: SECRET });
      expect(() => reference.verify(body, headers)).toThrow();
      expect(await check(headers, utf8(body), current())).toMatchObject({ ok: false });
    }
  });

  // What it reads more loosely than its specification allows, and we do not.
  test("it takes a time with letters behind it, and an id with a dot; we do not", async () => {
    const text = '{"test": 2432232314}';
    const letters = {
      "webhook-id": "m",
      "webhook-timestamp": `${nowSeconds}abc`,
      "webhook-signature": reference.sign("m", new Date(nowSeconds * 1000), text),
    };
    expect(reference.verify(text, letters)).toBeDefined();
    expect(await check(letters, BODY, current())).toMatchObject({ code: "bad-timestamp" });
    const dotted = {
      "webhook-id": "a.1",
      "webhook-timestamp": String(nowSeconds),
      "webhook-signature": reference.sign("a.1", new Date(nowSeconds * 1000), text),
    };
    expect(reference.verify(text, dotted)).toBeDefined();
    expect(await check(dotted, BODY, current())).toMatchObject({ code: "bad-id" });
  });
});

describe("a webhook secret", () => {
  test("is read with its prefix and 24 to 64 bytes", () => {
    expect(parseWebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).toEqual({ ok: true, value: SECRET });
    expect(parseWebhookSecret(`whsec_${toBase64(new Uint8Array(64))}`).ok).toBe(true);
  });

  test.each([
    "",
    "whsec_",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    `whsec_${toBase64(new Uint8Array(23))}`,
    `whsec_${toBase64(new Uint8Array(65))}`,
    "whsec_!!",
  ])("is refused as %j", (text) => {
    expect(parseWebhookSecret(text)).toMatchObject({ ok: false, code: "bad-secret" });
  });
});

describe("a webhook in the style of GitHub", () => {
  const secret = utf8("It's a Secret to Everybody");
  const body = utf8("Hello, World!");
  const mac = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

  test("matches GitHub's vector, with prefix and as bare hex", async () => {
    expect(await verifyHubSignature(`sha256=${mac}`, body, [SECRET, secret])).toEqual({ ok: true, value: 1 });
    expect(await verifyHubSignature(mac, body, [secret])).toEqual({ ok: true, value: 0 });
    expect(mac).toBe(createHmac("sha256", secret).update(body).digest("hex"));
  });

  test.each([
    "",
    "sha256=",
    `sha1=${mac}`,
    `sha256=${mac.slice(2)}`,
    `sha256=${mac}00`,
    `sha256=${mac.toUpperCase()}`,
    ` ${mac}`,
    `sha256=${mac.replace("7", "8")}`,
  ])("is refused with %j", async (header) => {
    expect(await verifyHubSignature(header, body, [secret])).toMatchObject({
      ok: false,
      code: "no-matching-signature",
    });
  });

  test("is refused for another body, another secret, no secret or no header", async () => {
    expect(await verifyHubSignature(mac, utf8("Hello, World"), [secret])).toMatchObject({ ok: false });
    expect(await verifyHubSignature(mac, body, [SECRET])).toMatchObject({ ok: false });
    expect(await verifyHubSignature(mac, body, [])).toMatchObject({ ok: false });
    expect(await verifyHubSignature(null, body, [secret])).toMatchObject({ code: "missing-header" });
  });
});
