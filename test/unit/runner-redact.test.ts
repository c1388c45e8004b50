import { describe, expect, test } from "vitest";
import { createRedactor, type Redactor } from "../../runner/src/redact.ts";

function redactor(secrets: Record<string, string>): Redactor {
  const result = createRedactor(secrets);
  if (!result.ok) throw new Error(`too short: ${result.tooShort.join()}`);
  return result.redactor;
}

/** Pushes a text in pieces that end at the given positions. */
function mask(secrets: Record<string, string>, text: string, cuts: readonly number[] = []): string {
  const bytes = Buffer.from(text);
  const stream = redactor(secrets);
  const ends = [...cuts, bytes.length];
  const parts = ends.map((end, index) => stream.push(bytes.subarray(index === 0 ? 0 : ends[index - 1], end)));
  return Buffer.concat([...parts, stream.flush()]).toString();
}

const SECRET = 'pässw"ord+/\\ & more?';

describe("a secret", () => {
  const forms: Record<string, string> = {
    raw: SECRET,
    JSON: JSON.stringify(SECRET).slice(1, -1),
    URL: encodeURIComponent(SECRET),
    "lower-case URL": encodeURIComponent(SECRET).replace(/%../g, (escape) => escape.toLowerCase()),
    form: encodeURIComponent(SECRET).replaceAll("%20", "+"),
    hex: Buffer.from(SECRET).toString("hex"),
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
    expect(mask({ key }, `<${key}>`)).toBe("<[redacted]>");
    expect(mask({ key }, "MC4CAQAwBQYDK2VwBCIEIA\r\nshort")).toBe("[redacted]\r\nshort");
  });

  test("that overlaps another leaves nothing of either", () => {
    const secrets = { one: "abcdefgh", two: "efghijkl", three: "cdefgh" };
    for (let cut = 0; cut <= 14; cut++) expect(mask(secrets, "-abcdefghijkl-", [cut])).toBe("-[redacted]-");
    expect(mask(secrets, "cdefghxabcdefg")).toBe("[redacted]xabcdefg");
  });

  test("is counted by name", () => {
    const stream = redactor({ one: "secret-one", two: "secret-two" });
    stream.push(Buffer.from("secret-one secret-one "));
    stream.push(Buffer.from(Buffer.from("secret-one").toString("hex")));
    expect([...stream.hits]).toEqual([
      ["one", 3],
      ["two", 0],
    ]);
  });
});

describe("a stream", () => {
  test("holds back only what may become a secret", () => {
    const stream = redactor({ token: "secret-value" });
    const push = (text: string): string => Buffer.from(stream.push(Buffer.from(text))).toString();
    expect(push("a line\n")).toBe("a line\n");
    expect(push("it is sec")).toBe("it is ");
    expect(push("ond, not secret-v")).toBe("second, not ");
    expect(push("alue.")).toBe("[redacted].");
    expect(push("secre")).toBe("");
    expect(Buffer.from(stream.flush()).toString()).toBe("secre");
  });

  test("passes any bytes through unchanged when there is no secret in them", () => {
    const bytes = Uint8Array.from({ length: 1_024 }, (_, index) => index % 256);
    const stream = redactor({ token: "secret-value" });
    expect(Buffer.concat([stream.push(bytes), stream.flush()])).toEqual(Buffer.from(bytes));
    expect(mask({}, "anything")).toBe("anything");
  });

  test("copes with a large secret in little memory and time", () => {
    const key = Buffer.from(Array.from({ length: 48 * 1024 }, (_, index) => (index * 7919) % 251)).toString("base64");
    expect(mask({ key }, `<${key}>`)).toBe("<[redacted]>");
  });
});

test("short values are refused by name, because they would mask ordinary words", () => {
  expect(createRedactor({ ok: "long enough", pin: "12345", blank: "   a   " })).toEqual({
    ok: false,
    tooShort: ["pin", "blank"],
  });
});
