import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LIMITS, type Push, pushBodySchema } from "@plumule/protocol";
import { readChangedPaths, withChangedPaths } from "../../bridge/src/changed-paths.ts";

const ZEROS = "0".repeat(40);
let work: string;
let folder: string;
let first: string;

beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "plumule-paths-"));
  folder = join(work, ".git");
  git("init", "--quiet", "--initial-branch=main");
  first = commit({ "docs/a.md": "a", "src/old.ts": "a long enough text to be taken for the same file" });
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

function git(...args: string[]): string {
  const person = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
  const env = { PATH: process.env["PATH"], GIT_CONFIG_NOSYSTEM: "1", GIT_CONFIG_GLOBAL: "/dev/null" };
  return execFileSync("git", [...person, ...args], { cwd: work, env, encoding: "utf8", maxBuffer: 1 << 26 }).trim();
}

function commit(files: Readonly<Record<string, string>>, parent?: string): string {
  if (parent !== undefined) git("checkout", "--quiet", "--force", parent);
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(work, path, ".."), { recursive: true });
    writeFileSync(join(work, path), content);
  }
  git("add", "--all");
  git("commit", "--quiet", "--allow-empty", "--message", "x");
  return git("rev-parse", "HEAD");
}

/** A commit whose tree has entries of these names, which no file system has to hold. */
function commitOfNames(names: readonly Buffer[]): string {
  const blob = execFileSync("git", ["--git-dir", folder, "hash-object", "-w", "--stdin"], { input: "x" });
  const entries = names.map((name) =>
    Buffer.concat([Buffer.from(`100644 blob ${blob.toString().trim()}\t`), name, Buffer.from("\0")]),
  );
  const tree = execFileSync("git", ["--git-dir", folder, "mktree", "-z"], { input: Buffer.concat(entries) });
  return git("commit-tree", tree.toString().trim(), "-m", "x");
}

describe("the paths that differ between two commits", () => {
  it("are those that were added, changed, deleted, and both names of one that was renamed", async () => {
    git("checkout", "--quiet", first);
    git("mv", "src/old.ts", "src/new.ts");
    const second = commit({ "docs/a.md": "b", "a b\nc": "odd" });
    expect(await readChangedPaths(folder, first, second)).toEqual({
      paths: ["a b\nc", "docs/a.md", "src/new.ts", "src/old.ts"],
    });
  });

  it("are none for a commit that changes nothing", async () => {
    expect(await readChangedPaths(folder, first, commit({}, first))).toEqual({ paths: [] });
  });

  it("are not known when the repository lacks a commit", async () => {
    expect(await readChangedPaths(folder, "1".repeat(40), first)).toBeNull();
    expect(await readChangedPaths(join(work, "nowhere"), first, first)).toBeNull();
  });

  it.each([
    ["many", 600, (at: number): string => `f${at}`],
    ["long", 200, (at: number): string => `${at}-${"x".repeat(200)}`],
    ["hostile", 200, (at: number): string => `${at}-${"\u0001".repeat(60)}`],
    ["more than git is let print", 3_000, (at: number): string => `${at}-${"x".repeat(200)}`],
  ])("are cut when they are %s, and the push still fits a webhook", async (_, count, name) => {
    const names = Array.from({ length: count }, (__, at) => Buffer.from(name(at)));
    const changed = await readChangedPaths(folder, first, commitOfNames(names));
    expect(changed?.pathsTruncated).toBe(true);
    expect(changed?.paths?.length).toBeGreaterThan(20);
    const push = pushBodySchema.parse({ ...pushOf({}), ...changed });
    expect(Buffer.byteLength(JSON.stringify(push))).toBeLessThan(20_000);
    expect(push.paths?.length).toBeLessThanOrEqual(LIMITS.changedPaths);
  });

  it("leave out a name that is no UTF-8, and say that there are more", async () => {
    const odd = commitOfNames([Buffer.from([0x61, 0xff]), Buffer.from("b")]);
    expect(await readChangedPaths(folder, commitOfNames([]), odd)).toEqual({ paths: ["b"], pathsTruncated: true });
  });
});

function pushOf(change: Partial<Push>): Push {
  const audience = "https://broker.example/v1/acme";
  const repository = "https://git.example/app.git";
  return { type: "push", audience, repository, ref: "refs/heads/main", before: first, after: first, ...change };
}

describe("a push tells its paths", () => {
  it("beside what its ref led to before, a patch beside what it is to be merged into", async () => {
    const base = commit({ base: "1" }, first);
    const one = commit({ one: "1" }, base);
    const two = commit({ two: "2" }, one);
    const told = async (change: Partial<Push>): Promise<unknown> =>
      (await withChangedPaths(pushOf(change), folder)).paths;
    expect(await told({ before: one, after: two })).toEqual(["two"]);
    expect(await told({ before: two, after: base })).toEqual(["one", "two"]);
    expect(await told({ type: "patch", before: one, after: two, base })).toEqual(["one", "two"]);
  });

  it.each([
    ["a new ref", { before: ZEROS }],
    ["a ref of which nobody knows where it was", { before: null }],
    ["one that is deleted", { after: ZEROS }],
    ["a patch without a base", { type: "patch" as const }],
  ])("but %s does not: nobody knows beside what", async (_, change) => {
    expect(await withChangedPaths(pushOf(change), folder)).not.toHaveProperty("paths");
  });
});
