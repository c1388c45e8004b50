import { describe, expect, it } from "vitest";
import { audienceOf, isDeletion, parseRefUpdate, pushOf } from "@plumule/bridge";

const before = "0".repeat(40);
const after = "3f9c1ab".padEnd(40, "0");
const origin = { audience: "https://broker.example/v1/acme", repository: "https://git.example/app.git" };

describe("a line of a post-receive hook", () => {
  it("is old, new and ref", () => {
    expect(parseRefUpdate(`${before} ${after} refs/heads/main`)).toEqual({ before, after, ref: "refs/heads/main" });
  });

  it("may name commits by SHA-256", () => {
    expect(parseRefUpdate(`${"0".repeat(64)} ${"a".repeat(64)} refs/heads/main`)?.after).toBe("a".repeat(64));
  });

  it.each([
    "",
    "main",
    `${before} ${after}`,
    `${before} ${after} refs/heads/main extra`,
    `${before} HEAD refs/heads/main`,
  ])("is refused when git would not write it: %j", (line) => expect(parseRefUpdate(line)).toBeNull());
});

describe("the webhook of a ref update", () => {
  const pushTo = (ref: string): ReturnType<typeof pushOf> => pushOf({ before, after, ref }, origin);

  it.each([
    ["refs/heads/main", "push"],
    ["refs/tags/v1", "tag"],
    ["refs/patches/abc", "patch"],
  ])("says what kind of ref %s is", (ref, type) => {
    expect(pushTo(ref)).toMatchObject({ ok: true, value: { type, ref, before, after, ...origin } });
  });

  it("is none for refs that start no jobs", () => {
    expect(pushTo("refs/notes/commits")).toMatchObject({ ok: false, code: "not-a-push" });
  });

  it("is none for a ref that could be taken for an option", () => {
    expect(pushTo("refs/heads/--upload-pack=x")).toMatchObject({ ok: false, code: "not-a-push" });
  });

  it("cuts a message that is longer than the wire allows", () => {
    const push = pushOf({ before, after, ref: "refs/heads/main" }, { ...origin, message: "x".repeat(5_000) });
    expect(push.ok && push.value.message).toHaveLength(2_000);
  });

  it("is for one broker and namespace, whatever the path of the broker's URL", () => {
    expect(audienceOf("https://broker.example:8443/some/path", "acme")).toBe("https://broker.example:8443/v1/acme");
  });

  it("knows a deletion by its zeros", () => {
    expect(isDeletion({ before: after, after: "0".repeat(40), ref: "refs/heads/main" })).toBe(true);
    expect(isDeletion({ before, after, ref: "refs/heads/main" })).toBe(false);
  });
});
