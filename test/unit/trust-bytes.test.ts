import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  equalBytes,
  parseBase64,
  parseHex,
  parseUtf8,
  sha256Hex,
  toBase64,
  toHex,
  utf8,
} from "../../protocol/src/bytes.ts";
import { parseStrictJson } from "../../protocol/src/strict-json.ts";

describe("base64", () => {
  test("is written as Node writes it and read back in both alphabets, padded or not", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), (bytes) => {
        const standard = Buffer.from(bytes).toString("base64");
        const url = Buffer.from(bytes).toString("base64url");
        expect(toBase64(bytes)).toBe(standard);
        for (const text of [standard, url, standard.replace(/=+$/, ""), url.padEnd(standard.length, "=")])
          expect(parseBase64(text)).toEqual(new Uint8Array(bytes));
      }),
      { numRuns: 50 },
    );
  });

  test.each([
    " AAAA",
    "AA AA",
    "AAAA\n",
    "AB==",
    "AAB=",
    "A",
    "AAAAA",
    "A===",
    "=",
    "==",
    "AA=",
    "AAA==",
    "AAAA=",
    "AAAA====",
    "+-AA",
    "/_AA",
    "AA*A",
    "ÄAAA",
    "A=AA",
  ])("refuses %j", (text) => {
    expect(parseBase64(text)).toBeNull();
  });
});

test("hex has one spelling", () => {
  expect(parseHex("00ff10")).toEqual(Uint8Array.of(0, 255, 16));
  expect(toHex(Uint8Array.of(0, 255, 16))).toBe("00ff10");
  for (const text of ["0", "0F", "FF", "0g", " 00", "0x00", "00\n"]) expect(parseHex(text)).toBeNull();
});

test("invalid UTF-8 is null, and a byte order mark stays visible", () => {
  expect(parseUtf8(Uint8Array.of(0xff))).toBeNull();
  expect(parseUtf8(Uint8Array.of(0xed, 0xa0, 0x80))).toBeNull();
  expect(parseUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x41))).toBe("\ufeffA");
});

test("bytes are equal when every byte is", () => {
  fc.assert(
    fc.property(
      fc.uint8Array(),
      fc.uint8Array(),
      (left, right) => equalBytes(left, right) === (Buffer.compare(left, right) === 0),
    ),
  );
  expect(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 2))).toBe(true);
  expect(equalBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 0))).toBe(false);
  expect(equalBytes(Uint8Array.of(1, 2, 0), Uint8Array.of(1, 2))).toBe(false);
});

test("SHA-256 is that of OpenSSL, also over shared memory", async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(3));
  shared.set([1, 2, 3]);
  expect(await sha256Hex(shared)).toBe(createHash("sha256").update(shared).digest("hex"));
});

describe("strict JSON", () => {
  const refusal = (text: string | Uint8Array): unknown => parseStrictJson(typeof text === "string" ? utf8(text) : text);

  test("reads what JSON.parse reads", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 10 }), (text) => {
        fc.pre(!text.includes("__proto__"));
        expect(parseStrictJson(utf8(text))).toEqual({ ok: true, value: JSON.parse(text) });
      }),
    );
    expect(parseStrictJson(utf8(String.raw`{"a":{"b":1},"b":"{\"a\":\"]\\\\"}`))).toEqual({
      ok: true,
      value: { a: { b: 1 }, b: '{"a":"]\\\\' },
    });
    expect(parseStrictJson(utf8('[{"a":1},{"a":1},"a","a"]')).ok).toBe(true);
  });

  test.each([
    ["a key twice", '{"a":1,"a":2}', "twice"],
    ["a key twice in two spellings", String.raw`{"a":1,"\u0061":2}`, "twice"],
    ["a key twice after an inner object", '{"a":{"a":1},"b":[{"a":1}],"a":2}', "twice"],
    ["__proto__", '{"__proto__":{"admin":true}}', "reserved"],
    ["__proto__ in escapes", String.raw`{"\u005f_proto__":1}`, "reserved"],
    ["33 levels", `${"[".repeat(33)}${"]".repeat(33)}`, "deeper"],
    ["100,000 levels", `${"[".repeat(100_000)}${"]".repeat(100_000)}`, "deeper"],
    ["a lone surrogate", String.raw`["\ud800"]`, "surrogate"],
    ["a byte order mark", "\ufeff{}", "not valid JSON"],
    ["a NUL", "{}\0", "not valid JSON"],
    ["an open string", '{"a', "not valid JSON"],
    ["nothing", "", "not valid JSON"],
  ])("refuses %s", (_, text, reason) => {
    expect(refusal(text)).toMatchObject({
      ok: false,
      code: "bad-json",
      detail: expect.stringContaining(reason) as string,
    });
  });

  test("refuses invalid UTF-8", () => {
    expect(refusal(Uint8Array.of(0x22, 0xff, 0x22))).toMatchObject({ ok: false, detail: "not valid UTF-8" });
  });

  test("takes 32 levels", () => {
    expect(parseStrictJson(utf8(`${"[".repeat(32)}${"]".repeat(32)}`)).ok).toBe(true);
  });
});
