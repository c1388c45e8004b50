import { createHash, generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parsePathInfo, parseSha256, type PathInfo } from "../../runner/src/nix/outputs.ts";
import {
  decodeNix32,
  encodeNix32,
  encodeNixPublicKey,
  signPath,
  verifyPathSignature,
} from "../../runner/src/nix/signature.ts";

function fixture(file: string): string {
  return readFileSync(new URL(`../fixtures/nix-logs/${file}`, import.meta.url), "utf8");
}

const labKey = fixture("nix-2.8/lab-runner-1.pub").trim();
const signed = parsePathInfo(fixture("nix-2.8/path-info-signed.json"));

function rawPublicKey(key: KeyObject): Buffer {
  return key.export({ type: "spki", format: "der" }).subarray(-32);
}

describe("path-info", () => {
  test.each(["nix-2.8/path-info-signed.json", "nix-2.34/path-info-format-1.json", "nix-2.34/path-info-format-2.json"])(
    "%s: the same two paths in every shape",
    (file) => {
      const a = "/lab/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a";
      const b = "/lab/store/wlwq415qij5hqbdpw4zjvgycfjpl6ibg-r-b";
      expect(parsePathInfo(fixture(file))).toEqual([
        {
          path: a,
          narHash: "10551daed7fa467d0b58826e7eb9a0f2af7d693de319f2ef775fffcda244b9f6",
          narHashSri: "sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=",
          narSize: 120,
          references: [],
          signatures: expect.any(Array),
        },
        {
          path: b,
          narHash: "46527cb6a250a15a4f76cd780039565b007d98f3fbdcff24fd548f0de2b146ee",
          narHashSri: "sha256-RlJ8tqJQoVpPds14ADlWWwB9mPP73P8k/VSPDeKxRu4=",
          narSize: 208,
          references: [a, b],
          signatures: expect.any(Array),
        },
      ]);
    },
  );

  test("a path that is not valid is left out", () => {
    expect(parsePathInfo('[{"path":"/s/x","valid":false}]')).toEqual([]);
    expect(parsePathInfo('{"/s/x":null}')).toEqual([]);
  });

  test.each(['"x"', "1", '[{"path":"/s/x"}]', '{"/s/x":{"narHash":"md5-x","narSize":1}}'])("%s is refused", (json) => {
    expect(() => parsePathInfo(json)).toThrow(/nix path-info/);
  });

  test("a hash is the same in every notation", () => {
    const digest = createHash("sha256").update("x").digest();
    const hex = digest.toString("hex");
    const texts = [`sha256-${digest.toString("base64")}`, `sha256:${hex}`, `sha256:${encodeNix32(digest)}`];
    expect(texts.map(parseSha256)).toEqual([hex, hex, hex]);
    expect(["", "sha256:", "sha512-AAAA", `sha256:${hex.slice(2)}`].map(parseSha256)).toEqual(Array(4).fill(undefined));
  });
});

describe("Nix's base 32", () => {
  test("agrees with the narinfo that Nix wrote", () => {
    const written = [...fixture("nix-2.8/narinfo-signed.txt").matchAll(/^NarHash: sha256:(\S+)$/gm)].map(
      ([, hash]) => hash,
    );
    expect(signed.map(({ narHash }) => encodeNix32(Buffer.from(narHash, "hex")))).toEqual(written);
  });

  test("comes back from text, and only canonical text is read", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), (bytes) => {
        expect(decodeNix32(encodeNix32(bytes))).toEqual(bytes);
      }),
    );
    expect(decodeNix32("e")).toBeUndefined();
    expect(decodeNix32("0")).toBeUndefined();
    expect(decodeNix32("z0")).toBeUndefined();
  });
});

describe("signatures of paths", () => {
  test("that Nix made are verified", () => {
    expect(signed.length).toBe(2);
    for (const info of signed)
      expect(info.signatures.map((text) => verifyPathSignature(info, text, labKey))).toEqual([true]);
  });

  test("that we make are verified, in any order of references", async () => {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const key = encodeNixPublicKey("plumule-1", rawPublicKey(publicKey));
    const info = signed[1] as PathInfo;
    const signature = await signPath(info, "plumule-1", (bytes) => sign(null, bytes, privateKey));
    expect(signature).toMatch(/^plumule-1:[A-Za-z0-9+/]{86}==$/);
    expect(verifyPathSignature({ ...info, references: info.references.toReversed() }, signature, key)).toBe(true);
    expect(verifyPathSignature(info, signature, labKey)).toBe(false);
  });

  test.each<Partial<PathInfo>>([
    { path: "/lab/store/wlwq415qij5hqbdpw4zjvgycfjpl6ibg-r-c" },
    { narHash: "0".repeat(64) },
    { narSize: 209 },
    { references: [] },
  ])("do not hold for another %o", (change) => {
    const info = signed[1] as PathInfo;
    expect(verifyPathSignature({ ...info, ...change }, info.signatures[0] ?? "", labKey)).toBe(false);
  });

  test.each(["", ":", "lab-runner-1", "lab-runner-1:", "lab-runner-1:AAAA", "other:x"])(
    "%j is false, not an error",
    (text) => {
      const info = signed[0] as PathInfo;
      expect(verifyPathSignature(info, text, labKey)).toBe(false);
      expect(verifyPathSignature(info, info.signatures[0] ?? "", text)).toBe(false);
      expect(verifyPathSignature(info, info.signatures[0] ?? "", labKey.replace("lab-runner-1", "lab-runner-2"))).toBe(
        false,
      );
    },
  );

  test.each(["", "a:b", "a b"])("a key cannot be named %j", async (name) => {
    await expect(signPath(signed[0] as PathInfo, name, (bytes) => bytes)).rejects.toThrow(/cannot be the name/);
  });
});
