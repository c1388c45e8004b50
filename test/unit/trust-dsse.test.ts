import { verifyAsync } from "@noble/ed25519";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { parseBase64, parseUtf8, toBase64, utf8 } from "../../protocol/src/bytes.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { type Envelope, openEnvelope, parseEnvelope, preAuthEncoding, signEnvelope } from "../../protocol/src/dsse.ts";
import type { Signer } from "../../protocol/src/ed25519.ts";
import { TRUST_LIMITS } from "../../protocol/src/trust-limits.ts";
import { signerNumber } from "./trust-fixtures.ts";

const TYPE = "application/vnd.example+json";
let alice: Signer;
let bob: Signer;
let envelope: Envelope;
beforeAll(async () => {
  [alice, bob] = await Promise.all([signerNumber(1), signerNumber(2)]);
  envelope = await signEnvelope(TYPE, utf8('{"a":1}'), alice);
});

const open = (
  candidate: unknown,
  keys: readonly Uint8Array[] = [alice.publicKey],
  payloadTypes = [TYPE],
): ReturnType<typeof openEnvelope> => openEnvelope(candidate, { keys, payloadTypes });

describe("the pre-authentication encoding", () => {
  test("is that of the DSSE specification", () => {
    expect(parseUtf8(preAuthEncoding("http://example.com/HelloWorld", utf8("hello world")))).toBe(
      "DSSEv1 29 http://example.com/HelloWorld 11 hello world",
    );
  });

  test("counts bytes, and is empty where they are", () => {
    expect(parseUtf8(preAuthEncoding("ä", utf8("ö€")))).toBe("DSSEv1 2 ä 5 ö€");
    expect(parseUtf8(preAuthEncoding("", new Uint8Array()))).toBe("DSSEv1 0  0 ");
  });

  test("is different for different types or payloads, however they are cut", () => {
    const part = fc.stringMatching(/^[a-z0-9 ]{0,12}$/);
    fc.assert(
      fc.property(part, part, part, part, (type, payload, otherType, otherPayload) => {
        fc.pre(type !== otherType || payload !== otherPayload);
        expect(preAuthEncoding(type, utf8(payload))).not.toEqual(preAuthEncoding(otherType, utf8(otherPayload)));
      }),
    );
  });
});

describe("opening an envelope", () => {
  test("gives the JSON of the very bytes that were signed, and the signer", async () => {
    expect(await open(envelope, [bob.publicKey, alice.publicKey])).toEqual({
      ok: true,
      value: { payloadType: TYPE, payload: utf8('{"a":1}'), value: { a: 1 }, signers: [alice.publicKey] },
    });
  });

  test("agrees with an independent implementation of the curve", async () => {
    const signature = parseBase64(envelope.signatures[0]!.sig)!;
    expect(
      await verifyAsync(signature, preAuthEncoding(TYPE, utf8('{"a":1}')), alice.publicKey, { zip215: false }),
    ).toBe(true);
  });

  test("reads URL-safe base64, a missing or wrong keyid, and unknown fields", async () => {
    const payload = utf8('{"t":"???>>>~~~"}');
    const signed = await signEnvelope(TYPE, payload, alice);
    const { sig } = signed.signatures[0]!;
    const urlSafe = (text: string): string => text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
    for (const variant of [
      { ...signed, payload: urlSafe(signed.payload), signatures: [{ sig: urlSafe(sig) }] },
      { ...signed, signatures: [{ sig, keyid: "" }] },
      { ...signed, signatures: [{ sig, keyid: didKeyOf(bob.publicKey), extra: 1 }], note: "x" },
    ]) {
      expect(await open(variant)).toMatchObject({ ok: true, value: { signers: [alice.publicKey] } });
    }
  });

  test("counts a key once, however often it signed and under whatever names", async () => {
    const [signature] = envelope.signatures;
    const twice = {
      ...envelope,
      signatures: [
        { ...signature!, keyid: "one" },
        { ...signature!, keyid: "two" },
      ],
    };
    expect(await open(twice, [alice.publicKey, new Uint8Array(alice.publicKey)])).toMatchObject({
      ok: true,
      value: { signers: [alice.publicKey] },
    });
  });

  test("finds every signer of one payload", async () => {
    const second = await signEnvelope(TYPE, utf8('{"a":1}'), bob);
    const both = { ...envelope, signatures: [...second.signatures, ...envelope.signatures] };
    expect(await open(both, [alice.publicKey, bob.publicKey])).toMatchObject({
      value: { signers: [alice.publicKey, bob.publicKey] },
    });
    expect(await open(both, [bob.publicKey])).toMatchObject({ value: { signers: [bob.publicKey] } });
  });

  test("does not believe a keyid that names a trusted key", async () => {
    const forged = await signEnvelope(TYPE, utf8('{"a":1}'), bob);
    forged.signatures[0]!.keyid = didKeyOf(alice.publicKey);
    expect(await open(forged)).toMatchObject({ ok: false, code: "signature" });
  });

  test("refuses an unexpected type only after the signature, and then does not parse", async () => {
    const other = await signEnvelope("application/json", utf8("not JSON"), alice);
    expect(await open(other)).toMatchObject({ ok: false, code: "payload-type" });
    expect(await open(other, [bob.publicKey])).toMatchObject({ ok: false, code: "signature" });
  });

  test("refuses the payload of one type under another", async () => {
    expect(
      await open(
        { ...envelope, payloadType: "application/vnd.other+json" },
        [alice.publicKey],
        ["application/vnd.other+json"],
      ),
    ).toMatchObject({ ok: false, code: "signature" });
  });

  test("refuses signed JSON that two readers could read differently", async () => {
    expect(await open(await signEnvelope(TYPE, utf8('{"a":1,"a":2}'), alice))).toMatchObject({
      ok: false,
      code: "payload",
    });
    expect(await open(await signEnvelope(TYPE, Uint8Array.of(0xff), alice))).toMatchObject({
      ok: false,
      code: "payload",
    });
  });

  test.each<[string, (valid: Envelope) => unknown]>([
    ["null", () => null],
    ["a string", () => "envelope"],
    ["no payload", ({ payload: _, ...rest }) => rest],
    ["no type", ({ payloadType: _, ...rest }) => rest],
    ["no signatures", (valid) => ({ ...valid, signatures: [] })],
    [
      "nine signatures",
      (valid) => ({
        ...valid,
        signatures: Array.from({ length: TRUST_LIMITS.signatures + 1 }, () => valid.signatures[0]),
      }),
    ],
    ["an empty signature", (valid) => ({ ...valid, signatures: [{ sig: "" }] })],
    ["a signature that is no base64", (valid) => ({ ...valid, signatures: [{ sig: "!!!" }] })],
    [
      "white space in the payload",
      (valid) => ({ ...valid, payload: `${valid.payload.slice(0, 4)} ${valid.payload.slice(4)}` }),
    ],
    ["a type that is not ASCII", (valid) => ({ ...valid, payloadType: "application/ä" })],
    ["a payload beyond the limit", (valid) => ({ ...valid, payload: "A".repeat(TRUST_LIMITS.statementBytes * 2) })],
  ])("refuses %s", async (_, change) => {
    expect(await open(change(envelope))).toMatchObject({ ok: false, code: "encoding" });
  });

  test.each([63, 65, 0x20])("refuses a signature of %i bytes", async (length) => {
    expect(await open({ ...envelope, signatures: [{ sig: toBase64(new Uint8Array(length)) }] })).toMatchObject({
      ok: false,
      code: "signature",
    });
  });
});

describe("reading an envelope from a file", () => {
  test("takes what was written", () => {
    expect(parseEnvelope(utf8(JSON.stringify(envelope)))).toEqual({ ok: true, value: envelope });
  });

  test("refuses duplicate keys, other documents and too many bytes", () => {
    expect(parseEnvelope(utf8(JSON.stringify(envelope).replace("{", '{"payload":"",')))).toMatchObject({
      ok: false,
      code: "encoding",
    });
    expect(parseEnvelope(utf8("[]"))).toMatchObject({ ok: false, code: "encoding" });
    expect(
      parseEnvelope(utf8(JSON.stringify({ ...envelope, note: "x".repeat(TRUST_LIMITS.envelopeBytes) }))),
    ).toMatchObject({ ok: false, code: "encoding", detail: expect.stringContaining("limit") as string });
  });
});
