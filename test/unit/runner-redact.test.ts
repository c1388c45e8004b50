import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createRedactor, type RedactedStream, type Redactor } from "../../runner/src/redact.ts";

function redactor(secrets: Record<string, string>): Redactor {
  return createRedactor(Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, Buffer.from(value)])));
}

/** Pushes a text in pieces that end at the given positions. */
function mask(secrets: Record<string, string>, text: string | Uint8Array, cuts: readonly number[] = []): string {
  const bytes = Buffer.from(text);
  const stream = redactor(secrets).stream();
  const ends = [...cuts, bytes.length];
  const parts = ends.map((end, index) => stream.push(bytes.subarray(index === 0 ? 0 : ends[index - 1], end)));
  return Buffer.concat([...parts, stream.flush()]).toString();
}

/** Pushes a text and says what came out. */
const pushTo =
  (stream: RedactedStream) =>
  (text: string): string =>
    Buffer.from(stream.push(Buffer.from(text))).toString();

const SECRET = `pässw"or'd+/\\ & $more?`;

describe("a secret", () => {
  const forms: Record<string, string> = {
    raw: SECRET,
    JSON: JSON.stringify(SECRET).slice(1, -1),
    URL: encodeURIComponent(SECRET),
    "lower-case URL": encodeURIComponent(SECRET).replace(/%../g, (escape) => escape.toLowerCase()),
    form: encodeURIComponent(SECRET).replaceAll("%20", "+"),
    hex: Buffer.from(SECRET).toString("hex"),
    "JavaScript in single quotes": SECRET.replaceAll("\\", "\\\\").replaceAll("'", "\\'"),
    "JSON in ASCII": JSON.stringify(SECRET).slice(1, -1).replace("ä", "\\u00e4"),
    "JSON with escaped slashes": JSON.stringify(SECRET).slice(1, -1).replaceAll("/", "\\/"),
    "strict URL": encodeURIComponent(SECRET).replaceAll("'", "%27"),
    "shell in single quotes": SECRET.replaceAll("'", "'\\''"),
    "shell in double quotes": SECRET.replace(/[\\"$`]/g, "\\$&"),
    "shell with back slashes": SECRET.replace(/[\\"'$`&? ]/g, "\\$&"),
    XML: SECRET.replaceAll("&", "&amp;").replaceAll('"', "&quot;"),
    "upper-case hex": Buffer.from(SECRET).toString("hex").toUpperCase(),
  };

  test.each(Object.entries(forms))("is masked in its %s form, split at every byte", (_, form) => {
    const text = `before ${form} after`;
    for (let cut = 0; cut <= Buffer.byteLength(text); cut++) {
      expect(mask({ token: SECRET }, text, [cut])).toBe("before [redacted] after");
    }
  });

  test("is masked when every byte comes alone", () => {
    const text = `x${SECRET}y${SECRET}`;
    const cuts = Array.from({ length: Buffer.byteLength(text) }, (_, index) => index);
    expect(mask({ token: SECRET }, text, cuts)).toBe("x[redacted]y[redacted]");
  });

  test.each(["base64", "base64url"] as const)(
    "is masked inside %s at any alignment, whatever surrounds it",
    (encoding) => {
      for (const before of ["", "u", "us", "usr", "user", "user:"]) {
        for (const after of ["", "!", "!!", "!!!"]) {
          const encoded = Buffer.from(before + SECRET + after).toString(encoding);
          for (let cut = 0; cut <= encoded.length; cut++) {
            const masked = mask({ token: SECRET }, encoded, [cut]);
            expect(masked).toContain("[redacted]");
            // At most the characters that a neighbour shares with the secret remain.
            const neighbours = Math.ceil((before.length * 4) / 3) + Math.ceil((after.length * 4) / 3) + 5;
            expect(masked.replace("[redacted]", "").length).toBeLessThanOrEqual(neighbours);
          }
        }
      }
    },
  );

  test("of several lines is masked as a whole and line by line", () => {
    const key = "-----BEGIN KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\nshort\n-----END KEY-----\n";
    expect(mask({ key }, `<${key}>`)).toBe("<[redacted]\n>");
    expect(mask({ key }, "MC4CAQAwBQYDK2VwBCIEIA\r\nshort!")).toBe("[redacted]\r\nshort!");
    for (const blank of [" ", "\r\n", "\n    ", "\t\n\n"])
      expect(mask({ key }, `<${key.trim().replaceAll("\n", blank)}>`)).toBe("<[redacted]>");
  });

  test("is masked when base64 or hex of it is broken into lines", () => {
    const value = "a private key that is rather long, so that its base64 does not fit into one line of an e-mail";
    const lines = (text: string): string => text.replace(/.{1,20}/g, "$&\n");
    expect(mask({ value }, `<${lines(Buffer.from(value).toString("base64"))}`)).toMatch(/^<\[redacted\].{0,2}\n$/);
    expect(mask({ value }, `<${lines(Buffer.from(value).toString("hex"))}`)).toBe("<[redacted]\n");
  });

  test("is masked when colours stand inside it, at every cut", () => {
    const text = `a \u001B[31mhunter\u001B[1;38;5;196m-two\u001B[0m and\u001B[K three b`;
    for (let cut = 0; cut <= text.length; cut++)
      expect(mask({ token: "hunter-two and three" }, text, [cut])).toBe("a \u001B[31m[redacted] b");
  });

  test("is masked when it is not text", () => {
    const value = Uint8Array.from([0xff, 0xfe, 0x1b, 0x5b, 0x31, 0x6d, 0x00, 0x80, 0x0a, 0x81, 0xc3, 0x28]);
    const masked = (text: Uint8Array | string): string => {
      const stream = createRedactor({ value }).stream();
      return Buffer.concat([stream.push(Buffer.from(text)), stream.flush()]).toString();
    };
    expect(masked(Buffer.concat([Buffer.from("<"), value, Buffer.from(">")]))).toBe("<[redacted]>");
    expect(masked(`<${Buffer.from(value).toString("hex")}>`)).toBe("<[redacted]>");
    expect(masked(`<${Buffer.from(value).toString("base64")}>`)).toBe("<[redacted]>");
  });

  test("is never given out, whatever surrounds it and however it is cut", () => {
    const noise = fc.string({
      unit: fc.constantFrom("s", "e", "c", "r", "t", "-", " ", "\n", "\u001B", "[", "m", "3"),
    });
    fc.assert(
      fc.property(noise, noise, fc.array(fc.nat(80), { maxLength: 6 }), (before, after, at) => {
        const text = `${before} ::secret-tester:: ${after}`;
        const cuts = at.map((one) => Math.min(one, text.length)).toSorted((a, b) => a - b);
        return !mask({ token: "secret-tester" }, text, cuts).includes("secret-tester");
      }),
      { numRuns: 2_000 },
    );
  });

  test("is found in long output as it is when every byte comes alone", () => {
    const token = "rather-a-long-secret-0123456789";
    const word = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.constantFrom("plain words of a build, ", "rather-a-", "-secret-", "0123", "\n", " ".repeat(70)),
      },
      {
        weight: 1,
        arbitrary: fc.constantFrom(token, Buffer.from(token).toString("base64"), "\u001B[31m", "\u001B[m", "\u001B"),
      },
      { weight: 1, arbitrary: fc.nat(token.length).map((at) => `${token.slice(0, at)}\n \u001B[1m${token.slice(at)}`) },
      { weight: 1, arbitrary: fc.nat(token.length).map((at) => token.slice(0, at)) },
    );
    fc.assert(
      fc.property(fc.array(word, { minLength: 20, maxLength: 60 }), fc.nat(900), (words, cut) => {
        const text = words.join("");
        const each = Array.from({ length: text.length }, (_, at) => at);
        expect(mask({ token }, text, [Math.min(cut, text.length)])).toBe(mask({ token }, text, each));
      }),
      { numRuns: 150 },
    );
  });

  test("that overlaps another leaves nothing of either", () => {
    const secrets = { one: "abcdefgh", two: "efghijkl", three: "cdefgh" };
    for (let cut = 0; cut <= 14; cut++) expect(mask(secrets, "-abcdefghijkl-", [cut])).toBe("-[redacted]-");
    expect(mask(secrets, "cdefghxabcdefg")).toBe("[redacted]xabcdefg");
  });

  test("is counted by name, once for each place, over all streams and texts", () => {
    const all = redactor({ one: "secret-one\nsecond line", two: "secret-two", none: "never seen" });
    const stream = all.stream();
    stream.push(Buffer.from("secret-one\nsecond line, secret-one, "));
    stream.push(Buffer.from(Buffer.from("secret-two").toString("hex")));
    stream.flush();
    all.text("secret-two");
    expect([...all.counts]).toEqual([
      ["one", 2],
      ["two", 2],
      ["none", 0],
    ]);
  });

  test("is masked in texts and in JSON, without making them longer, and all else stays as it is", () => {
    const all = redactor({ token: "secret-value" });
    const half = "half \uD800";
    expect(all.text(half)).toBe(half);
    const value = { code: "secret-value", list: ["secret-value", 1, null, { deep: "a secret-value" }], half };
    expect(all.json(value)).toEqual({
      code: "secret-value",
      list: ["[redacted]", 1, null, { deep: "a [redacted]" }],
      half,
    });
    expect(redactor({ pin: "123456" }).json(["123456 is", "it is 123456 and"])).toEqual([
      "[redacted]",
      "it is [redacted]",
    ]);
  });
});

describe("a stream", () => {
  test("holds back only what may become a secret", () => {
    const stream = redactor({ token: "secret-value" }).stream();
    const push = pushTo(stream);
    expect(push("a line\n")).toBe("a line\n");
    expect(push("it is sec")).toBe("it is ");
    expect(push("ond, not secret-v")).toBe("second, not ");
    expect(push("alue.")).toBe("[redacted].");
    expect(push("secre")).toBe("");
    expect(Buffer.from(stream.flush()).toString()).toBe("secre");
  });

  test("gives out after a while what is at most half of a secret, and still masks the rest when it comes", () => {
    const stream = redactor({ token: "secret-value", other: "etna mountain and more" }).stream();
    const push = pushTo(stream);
    const settle = (): string => Buffer.from(stream.settle()).toString();
    expect([push("see secret"), settle(), settle()]).toEqual(["see ", "secret", ""]);
    expect(push("-value!")).toBe("[redacted]!");
    expect([push("see secret-"), settle(), push("value!")]).toEqual(["see ", "", "[redacted]!"]);
  });

  test("does not continue what another stream of the same run began", () => {
    const all = redactor({ token: "secret-value" });
    const [one, two] = [all.stream(), all.stream()];
    expect([pushTo(one)("secret-"), pushTo(two)("value")]).toEqual(["", "value"]);
  });

  test("passes any bytes through unchanged when there is no secret in them", () => {
    const bytes = Uint8Array.from({ length: 1_024 }, (_, index) => index % 256);
    const stream = redactor({ token: "secret-value" }).stream();
    expect(Buffer.concat([stream.push(bytes), stream.flush()])).toEqual(Buffer.from(bytes));
    expect(mask({}, "anything")).toBe("anything");
  });

  test("may be read into one buffer that is overwritten for each chunk", () => {
    const stream = redactor({ token: "secret-value" }).stream();
    const buffer = Buffer.alloc(8);
    const given = ["see secr", "et-value", " and sec", "rets too"].map((chunk) => {
      buffer.write(chunk);
      return Buffer.from(stream.push(buffer)).toString();
    });
    expect(given.join("") + Buffer.from(stream.flush()).toString()).toBe("see [redacted] and secrets too");
  });

  test("copes with the largest secret in little memory and time", () => {
    const key = Buffer.from(Array.from({ length: 12 * 1024 }, (_, index) => (index * 7919) % 251)).toString("base64");
    expect(mask({ key }, `<${key}>`)).toBe("<[redacted]>");
  });
});

test("short values are named, because they would mask ordinary words", () => {
  expect(redactor({ ok: "long enough", pin: "12345", blank: "   a   " }).tooShort).toEqual(["pin", "blank"]);
  expect(mask({ pin: "12345" }, "12345")).toBe("12345");
});
