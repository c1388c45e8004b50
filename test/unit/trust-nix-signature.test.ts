import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseHex, toHex } from "../../protocol/src/bytes.ts";
import {
  type NixPathInfo,
  parseNamedBytes,
  parseNarHash,
  parseNix32,
  pathFingerprint,
  toNix32,
  verifyNixSignature,
} from "../../protocol/src/nix-signature.ts";

/** Paths that Nix 2.8 signed, as its binary cache describes them. */
const PUBLIC_KEY = "lab-runner-1:yx9n3la1HuOpxnE9W5T9QK6+XvbOAOK205tuwqyOszc=";
const A = "/lab/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-r-a";
const B = "/lab/store/wlwq415qij5hqbdpw4zjvgycfjpl6ibg-r-b";
const leaf = {
  info: {
    path: A,
    narHash: parseNarHash("sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h")!,
    narSize: 120,
    references: [],
  } satisfies NixPathInfo,
  signature: "lab-runner-1:F6mzBvENcHZcr31mcIFr4Do1T7YOUbHF0H8ezbjQCgPz886XbGBPGnPqGJZezHce1gKV4cqHqVBz+yRH1fg9CQ==",
};
const parent = {
  info: {
    path: B,
    narHash: parseNarHash("sha256:1vj6n7i0v3slzljgzp7vyfc7s02vaqwh0y6dfr7mm8ahlav7qlj6")!,
    narSize: 208,
    references: [B, A],
  } satisfies NixPathInfo,
  signature: "lab-runner-1:4Wx1wUEgZHeGbq47cLRs53djBJo/iYTOPgHH7EOqFCDXq/qEsBFBtBpi6yM6WnBs5w6Vg0zopWMQ6hI1RuPaCg==",
};

describe("Nix's base 32", () => {
  test("is read back, for any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), (bytes) => toHex(parseNix32(toNix32(bytes))!) === toHex(bytes)),
    );
  });

  test("is the other spelling of the hashes that Nix prints", () => {
    expect(toNix32(parseNarHash("sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=")!)).toBe(
      "1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h",
    );
    // SHA-256 of nothing.
    expect(toNix32(parseHex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")!)).toBe(
      "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
    );
  });

  test.each(["e", "o", "t", "u", "A", "1", "zz", "zzz", "2mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", " 0"])(
    "refuses %j",
    (text) => {
      expect(parseNix32(text)).toBeNull();
    },
  );
});

describe("a NAR hash", () => {
  test("is read in each of Nix's spellings", () => {
    const hex = "10551daed7fa467d0b58826e7eb9a0f2af7d693de319f2ef775fffcda244b9f6";
    for (const text of [
      `sha256:${hex}`,
      "sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h",
      "sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=",
    ]) {
      expect(toHex(parseNarHash(text)!)).toBe(hex);
    }
  });

  test.each([
    "",
    "sha256:",
    "sha256-",
    "sha1:abc",
    "sha512-AAAA",
    "sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8",
    "sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEuQ==",
    "1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h",
  ])("is refused as %j", (text) => {
    expect(parseNarHash(text)).toBeNull();
  });
});

describe("a signature of Nix", () => {
  test("verifies as Nix made it, with and without references", async () => {
    for (const { info, signature } of [leaf, parent])
      expect(await verifyNixSignature(info, signature, PUBLIC_KEY)).toEqual({ ok: true, value: "lab-runner-1" });
  });

  test("covers the path, hash, size and references in sorted order", () => {
    expect(pathFingerprint(parent.info)).toBe(
      `1;${B};sha256:1vj6n7i0v3slzljgzp7vyfc7s02vaqwh0y6dfr7mm8ahlav7qlj6;208;${A},${B}`,
    );
    expect(pathFingerprint(leaf.info)).toBe(`1;${A};sha256:1xmr8jicvzszfzpz46g37mlpvbzjl2wpwvl2b05psipssyp1sm8h;120;`);
  });

  test.each<[string, Partial<NixPathInfo>]>([
    ["path", { path: A }],
    ["store directory", { path: B.replace("/lab/", "/nix/") }],
    ["hash", { narHash: leaf.info.narHash }],
    ["size", { narSize: 209 }],
    ["references", { references: [A] }],
  ])("is refused for another %s", async (_, changes) => {
    expect(await verifyNixSignature({ ...parent.info, ...changes }, parent.signature, PUBLIC_KEY)).toMatchObject({
      ok: false,
      code: "bad-nix-signature",
    });
  });

  test("is refused under another name", async () => {
    expect(
      await verifyNixSignature(leaf.info, leaf.signature.replace("runner-1", "runner-2"), PUBLIC_KEY),
    ).toMatchObject({ code: "bad-nix-signature" });
    expect(
      await verifyNixSignature(leaf.info, leaf.signature, PUBLIC_KEY.replace("runner-1", "runner-2")),
    ).toMatchObject({ code: "bad-nix-signature" });
  });

  test.each([
    "",
    "lab-runner-1",
    "lab-runner-1:",
    ":yx9n3la1HuOpxnE9W5T9QK6+XvbOAOK205tuwqyOszc=",
    "lab-runner-1:yx9n3la1HuOpxnE9W5T9QK6",
  ])("needs a whole key, not %j", async (key) => {
    expect(await verifyNixSignature(leaf.info, leaf.signature, key)).toMatchObject({ code: "bad-nix-key" });
  });

  test("is read as name and bytes", () => {
    expect(parseNamedBytes(leaf.signature, 64)).toMatchObject({ name: "lab-runner-1" });
    expect(parseNamedBytes(leaf.signature, 32)).toBeNull();
  });
});
