import { beforeAll, describe, expect, test } from "vitest";
import { parseBase64, parseUtf8, toBase64, utf8 } from "../../protocol/src/bytes.ts";
import {
  REGISTRATION_PAYLOAD_TYPE,
  SESSION_PAYLOAD_TYPE,
  signRegistration,
  signSession,
  verifyRegistration,
  verifySession,
} from "../../protocol/src/challenge.ts";
import { didKeyOf } from "../../protocol/src/did-key.ts";
import { type Envelope, signEnvelope } from "../../protocol/src/dsse.ts";
import type { Signer } from "../../protocol/src/ed25519.ts";
import { signerNumber } from "./trust-fixtures.ts";

const AUDIENCE = "https://ci.example.org/v1/acme";
const ISSUED_AT = "2026-11-20T10:00:00.000Z";
const NOW = Date.parse(ISSUED_AT);
const TOKEN = "f".repeat(64);
let alice: Signer;
let bob: Signer;
let did: string;
beforeAll(async () => {
  [alice, bob] = await Promise.all([signerNumber(1), signerNumber(2)]);
  did = didKeyOf(alice.publicKey);
});

const payloadOf = (envelope: Envelope): string => parseUtf8(parseBase64(envelope.payload)!)!;

describe("a registration", () => {
  const expected = { audience: AUDIENCE, tokenSha256: TOKEN, nowMs: NOW };
  const sign = (signer = alice): Promise<Envelope> =>
    signRegistration({ audience: AUDIENCE, tokenSha256: TOKEN, issuedAt: ISSUED_AT }, signer);

  test("signs these bytes, which are a contract", async () => {
    const envelope = await sign();
    expect(envelope.payloadType).toBe("application/vnd.plumule.registration+json");
    expect(payloadOf(envelope)).toBe(
      `{"audience":"${AUDIENCE}","runner":"${did}","tokenSha256":"${TOKEN}","issuedAt":"${ISSUED_AT}"}`,
    );
  });

  test("proves that the runner holds its key", async () => {
    expect(await verifyRegistration(await sign(), expected)).toEqual({
      ok: true,
      value: { runner: did, publicKey: alice.publicKey },
    });
  });

  test.each([
    ["wrong-audience", { audience: "https://ci.example.org/v1/other" }],
    ["wrong-token", { tokenSha256: "0".repeat(64) }],
    ["out-of-window", { nowMs: NOW + 300_001 }],
    ["out-of-window", { nowMs: NOW - 300_001 }],
  ])("is refused as %s when %j is expected", async (code, changes) => {
    expect(await verifyRegistration(await sign(), { ...expected, ...changes })).toMatchObject({ ok: false, code });
  });

  test("may be five minutes old", async () => {
    expect(await verifyRegistration(await sign(), { ...expected, nowMs: NOW + 300_000 })).toMatchObject({ ok: true });
  });

  test("cannot claim another runner's key", async () => {
    const stolen = await sign(bob);
    stolen.signatures[0]!.keyid = did;
    expect(await verifyRegistration(stolen, expected)).toMatchObject({ ok: false, code: "bad-proof" });
    const namesAlice = await signEnvelope(REGISTRATION_PAYLOAD_TYPE, utf8(payloadOf(await sign())), bob);
    expect(await verifyRegistration(namesAlice, expected)).toMatchObject({ ok: false, code: "wrong-runner" });
  });

  test("of the key under which everything verifies is refused as weak", async () => {
    const weak = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj";
    const signature = new Uint8Array(64);
    signature[0] = 1;
    const payload = utf8(JSON.stringify({ audience: AUDIENCE, runner: weak, tokenSha256: TOKEN, issuedAt: ISSUED_AT }));
    const forged = {
      payload: toBase64(payload),
      payloadType: REGISTRATION_PAYLOAD_TYPE,
      signatures: [{ keyid: weak, sig: toBase64(signature) }],
    };
    expect(await verifyRegistration(forged, expected)).toMatchObject({ ok: false, code: "weak-key" });
  });

  test("is refused when it is no envelope, names no key, or says more than it may", async () => {
    const { signatures, ...rest } = await sign();
    const more = await signEnvelope(
      REGISTRATION_PAYLOAD_TYPE,
      utf8(payloadOf(await sign()).replace("{", '{"admin":true,')),
      alice,
    );
    for (const candidate of [
      null,
      {},
      rest,
      { ...rest, signatures: [{ sig: signatures[0]!.sig }] },
      { ...rest, signatures: [{ ...signatures[0]!, keyid: "alice" }] },
      more,
    ]) {
      expect(await verifyRegistration(candidate, expected)).toMatchObject({ ok: false, code: "bad-proof" });
    }
  });
});

describe("a session", () => {
  const challenge = "pRnDe6mXcQ3kq1Z8";
  const sign = (signer = alice): Promise<Envelope> => signSession({ audience: AUDIENCE, challenge }, signer);

  test("signs these bytes, which are a contract", async () => {
    const envelope = await sign();
    expect(envelope.payloadType).toBe("application/vnd.plumule.session+json");
    expect(payloadOf(envelope)).toBe(`{"audience":"${AUDIENCE}","runner":"${did}","challenge":"${challenge}"}`);
  });

  test("is given to the runner that was challenged", async () => {
    expect(await verifySession(await sign(), { audience: AUDIENCE, runner: did, challenge })).toEqual({
      ok: true,
      value: { runner: did, publicKey: alice.publicKey },
    });
  });

  test.each([
    ["wrong-audience", { audience: "https://evil.example.org/v1/acme" }],
    ["wrong-challenge", { challenge: "another" }],
  ])("is refused as %s when %j is expected", async (code, changes) => {
    expect(await verifySession(await sign(), { audience: AUDIENCE, runner: did, challenge, ...changes })).toMatchObject(
      { ok: false, code },
    );
  });

  test("is refused to another key", async () => {
    expect(await verifySession(await sign(bob), { audience: AUDIENCE, runner: did, challenge })).toMatchObject({
      ok: false,
      code: "bad-proof",
    });
  });

  test("is not opened by a registration, nor a registration by a session", async () => {
    const registration = await signRegistration({ audience: AUDIENCE, tokenSha256: TOKEN, issuedAt: ISSUED_AT }, alice);
    expect(await verifySession(registration, { audience: AUDIENCE, runner: did, challenge })).toMatchObject({
      code: "bad-proof",
    });
    expect(
      await verifySession(
        { ...registration, payloadType: SESSION_PAYLOAD_TYPE },
        { audience: AUDIENCE, runner: did, challenge },
      ),
    ).toMatchObject({ code: "bad-proof" });
    expect(
      await verifyRegistration(await sign(), { audience: AUDIENCE, tokenSha256: TOKEN, nowMs: NOW }),
    ).toMatchObject({ code: "bad-proof" });
  });
});
