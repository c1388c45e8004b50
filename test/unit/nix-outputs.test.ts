import { generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { verifyNixSignature } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import { parsePathInfo, type PathInfo } from "../../runner/src/nix/outputs.ts";
import { encodeNixPublicKey, signPath } from "../../runner/src/nix/signature.ts";

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
});

describe("signatures of paths", () => {
  test("that we make are verified, in any order of references", async () => {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const key = encodeNixPublicKey("plumule-1", rawPublicKey(publicKey));
    const info = signed[1] as PathInfo;
    const signature = await signPath(info, "plumule-1", (bytes) => sign(null, bytes, privateKey));
    expect(signature).toMatch(/^plumule-1:[A-Za-z0-9+/]{86}==$/);
    const checked = { ...info, narHash: Buffer.from(info.narHash, "hex"), references: info.references.toReversed() };
    expect(await verifyNixSignature(checked, signature, key)).toEqual({ ok: true, value: "plumule-1" });
    expect(await verifyNixSignature(checked, signature, labKey)).toMatchObject({ ok: false });
  });

  test.each(["", "a:b", "a b"])("a key cannot be named %j", async (name) => {
    await expect(signPath(signed[0] as PathInfo, name, (bytes) => bytes)).rejects.toThrow(/cannot be the name/);
  });
});
