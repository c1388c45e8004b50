import { describe, expect, test } from "vitest";
import { parseWorkspaceConfig } from "../../runner/src/workspace/config.ts";

const repository = { url: "https://example.org/a.git", path: "./a" };
const parse = (json: unknown): ReturnType<typeof parseWorkspaceConfig> => parseWorkspaceConfig(JSON.stringify(json));

describe("the configuration of a workspace", () => {
  test("is accepted as Derrick's example has it", () => {
    expect(parse({ name: "test-123", repositories: [], setup_script: 'echo "Hello World"' })).toEqual({
      name: "test-123",
      repositories: [],
      setupScript: 'echo "Hello World"',
    });
  });

  test("may hold keys that are not known, and leave out what is optional", () => {
    const extra = { ...repository, name: "a", reference: null };
    expect(parse({ name: "x", repositories: [extra], setup_script: " ", more: 1 })).toEqual({
      name: "x",
      repositories: [{ url: repository.url, credential: null, path: "a", reference: null }],
      setupScript: null,
    });
  });

  test("has its paths inside the workspace, absolute ones too", () => {
    const paths = ["/srv/a", "b/./c/", "d"].map((path) => ({ ...repository, path }));
    expect(parse({ name: "x", repositories: paths })).toMatchObject({
      repositories: [{ path: "srv/a" }, { path: "b/c" }, { path: "d" }],
    });
    expect(parse({ name: "x", repositories: [{ ...repository, path: "/" }] })).toMatchObject({
      repositories: [{ path: "." }],
    });
  });

  test("has credentials taken out of its URLs", () => {
    const url = "https://x-access-token:s%2Fcret@example.org/a.git";
    expect(parse({ name: "x", repositories: [{ ...repository, url }] })).toMatchObject({
      repositories: [{ url: repository.url, credential: { username: "x-access-token", password: "s/cret" } }],
    });
  });

  test.each([
    ["{", "no JSON"],
    ["[]", "/: "],
    ["{}", "/name: "],
    [JSON.stringify({ name: "x", repositories: [{ path: "a" }] }), "/repositories/0/url: "],
    [JSON.stringify({ name: "x", repositories: [{ ...repository, url: "git@example.org:a" }] }), "only https:"],
    [JSON.stringify({ name: "x", repositories: [{ ...repository, path: "../a" }] }), "/repositories/0/path: "],
    [JSON.stringify({ name: "x", repositories: [{ ...repository, path: "a/.git" }] }), "without .git"],
    [JSON.stringify({ name: "x", repositories: [{ ...repository, reference: "--exec=x" }] }), "/reference: "],
    [JSON.stringify({ name: "x", repositories: [{ ...repository, reference: "a..b" }] }), "/reference: "],
    [JSON.stringify({ name: "x", repositories: [repository, { ...repository, path: "a/b" }] }), "/repositories/1/path"],
    [JSON.stringify({ name: "x", setup_script: 1 }), "/setup_script: "],
  ])("%s is refused with the place of the fault", (text, words) => {
    const answer = parseWorkspaceConfig(text);
    expect(answer).toMatchObject({ refused: "invalid", detail: expect.stringContaining(words) as string });
  });

  test("does not show a credential when it is refused", () => {
    const answer = parse({ name: "x", repositories: [{ url: "https://u:hunter2@example.org/a b", path: ".." }] });
    expect(JSON.stringify(answer)).not.toContain("hunter2");
  });
});
