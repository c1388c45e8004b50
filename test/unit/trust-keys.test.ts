import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { Point } from "@noble/ed25519";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseHex, toHex, utf8 } from "../../protocol/src/bytes.ts";
import { didKeyOf, parseDidKey } from "../../protocol/src/did-key.ts";
import { signerFromSeed, verifySignature } from "../../protocol/src/ed25519.ts";
import { admitDidKey, admitKey } from "../../protocol/src/key-admission.ts";

const hex = (text: string): Uint8Array<ArrayBuffer> => parseHex(text)!;
const key32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

describe("did:key", () => {
  test("is the text that other implementations write", () => {
    expect(didKeyOf(hex("0100000000000000000000000000000000000000000000000000000000000000"))).toBe(
      "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj",
    );
    // The example of the did:key specification.
    expect(toHex(parsed("did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"))).toBe(
      "2e6fcce36701dc791488e0d0b1745cc1e33a4c1c9fcc41c63bd343dbbe0970e6",
    );
  });

  test("of any 32 bytes has 56 characters, starts with did:key:z6Mk and is read back", () => {
    fc.assert(
      fc.property(key32, (key) => {
        const text = didKeyOf(key);
        expect(text).toMatch(/^did:key:z6Mk.{44}$/);
        expect(parsed(text)).toEqual(new Uint8Array(key));
      }),
    );
  });

  test.each([
    ["another multibase", "did:key:fed012e6fcce36701dc791488e0d0b1745cc1e33a4c1c9fcc41c63bd343dbbe0970e6"],
    ["an X25519 key", "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc"],
    ["a leading 1", "did:key:z16MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"],
    ["a missing character", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2do"],
    ["a number beyond 34 bytes", `did:key:z${"z".repeat(47)}`],
    ["a number below 34 bytes", `did:key:z${"1".repeat(46)}2`],
    ["a character outside base58", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2d0K"],
    ["a fragment", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK#x"],
    ["a trailing space", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK "],
    ["a trailing newline", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK\n"],
    ["another method", "did:web:example.org"],
    ["nothing", ""],
  ])("with %s is refused", (_, text) => {
    expect(parseDidKey(text)).toMatchObject({ ok: false, code: "bad-did-key" });
  });

  test("cannot be made of a key of another length", () => {
    expect(() => didKeyOf(new Uint8Array(31))).toThrow(RangeError);
  });
});

describe("key admission", () => {
  test.each([
    ["0100000000000000000000000000000000000000000000000000000000000000", "small-order-key"],
    ["ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "small-order-key"],
    ["0000000000000000000000000000000000000000000000000000000000000080", "small-order-key"],
    ["0000000000000000000000000000000000000000000000000000000000000000", "small-order-key"],
    ["c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "small-order-key"],
    ["c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "small-order-key"],
    ["26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "small-order-key"],
    ["26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", "small-order-key"],
    ["ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "bad-key-encoding"],
    ["0100000000000000000000000000000000000000000000000000000000000080", "bad-key-encoding"],
    ["edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "bad-key-encoding"],
    ["cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d", "mixed-order-key"],
    ["01", "bad-key-length"],
    ["", "bad-key-length"],
  ])("refuses %s as %s", (key, code) => {
    expect(admitKey(hex(key))).toMatchObject({ ok: false, code });
  });

  test("admits the keys of honest signers", async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const { publicKey } = await signerFromSeed(new Uint8Array(32).fill(seed));
      expect(admitDidKey(didKeyOf(publicKey))).toEqual({ ok: true, value: publicKey });
    }
  });

  test("keeps out the key under which one signature is valid for every message", () => {
    expect(admitDidKey("did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj")).toMatchObject({
      code: "small-order-key",
    });
  });
});

/** RFC 8032, section 7.1: seed, public key, message, signature. */
const RFC_8032 = [
  [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "",
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  ],
  [
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "72",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  ],
  [
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    "af82",
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
  ],
] as const;

describe("signatures", () => {
  test.each(RFC_8032)("of RFC 8032 are made and verified (seed %s)", async (seed, publicKey, message, signature) => {
    const signer = await signerFromSeed(hex(seed));
    expect(toHex(signer.publicKey)).toBe(publicKey);
    expect(toHex(await signer.sign(hex(message)))).toBe(signature);
    expect(await verifySignature(hex(publicKey), hex(signature), hex(message))).toBe(true);
    expect(await verifySignature(hex(publicKey), hex(signature), utf8("another message"))).toBe(false);
  });

  test("are those of OpenSSL, both ways", async () => {
    const seed = new Uint8Array(32).fill(9);
    const privateKey = createPrivateKey({
      key: Buffer.from(`302e020100300506032b657004220420${toHex(seed)}`, "hex"),
      format: "der",
      type: "pkcs8",
    });
    const signer = await signerFromSeed(seed);
    const message = utf8("plumule");
    expect(verify(null, message, createPublicKey(privateKey), await signer.sign(message))).toBe(true);
    expect(await verifySignature(signer.publicKey, sign(null, message, privateKey), message)).toBe(true);
  });

  test("with the group order added to S are refused, so that a signature has one form", async () => {
    for (const [, publicKey, message, signature] of RFC_8032) {
      const valid = hex(signature);
      const scalar = BigInt(`0x${toHex(valid.slice(32).toReversed())}`) + Point.CURVE().n;
      const forged = new Uint8Array([
        ...valid.slice(0, 32),
        ...hex(scalar.toString(16).padStart(64, "0")).toReversed(),
      ]);
      expect(await verifySignature(hex(publicKey), forged, hex(message))).toBe(false);
    }
  });

  test("and keys of a wrong length are not valid, and raise nothing", async () => {
    const [, publicKey, message, signature] = RFC_8032[0];
    for (const length of [0, 1, 63, 65, 128]) {
      const wrong = new Uint8Array(length);
      wrong.set(hex(signature).subarray(0, Math.min(length, 64)));
      expect(await verifySignature(hex(publicKey), wrong, hex(message))).toBe(false);
    }
    for (const length of [0, 31, 33])
      expect(await verifySignature(new Uint8Array(length), hex(signature), hex(message))).toBe(false);
  });

  test("with one changed bit are refused", async () => {
    const [, publicKey, message, signature] = RFC_8032[2];
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: 511 }), async (bit) => {
        const changed = hex(signature);
        changed[bit >> 3] = changed[bit >> 3]! ^ (1 << (bit & 7));
        expect(await verifySignature(hex(publicKey), changed, hex(message))).toBe(false);
      }),
    );
  });

  test("need a seed of 32 bytes", async () => {
    await expect(signerFromSeed(new Uint8Array(31))).rejects.toThrow(RangeError);
  });
});

function parsed(text: string): Uint8Array {
  const key = parseDidKey(text);
  if (!key.ok) throw new Error(key.detail);
  return key.value;
}
