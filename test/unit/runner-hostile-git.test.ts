import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runGit } from "../../runner/src/git.ts";
import { type CommitSource, type FetchOptions, mirrorCommit, placesOf } from "../../runner/src/mirror.ts";

let state: string;
let origin: string;
let id: string;
let options: FetchOptions;

/** Plain git of a developer, apart from the code under test. */
function git(cwd: string, ...args: string[]): string {
  const identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
  const env = { PATH: process.env["PATH"], HOME: "/nonexistent", GIT_CONFIG_NOSYSTEM: "1" };
  return execFileSync("git", [...identity, ...args], { cwd, env, encoding: "utf8" }).trim();
}

const mirror = (source: Partial<CommitSource>): ReturnType<typeof mirrorCommit> =>
  mirrorCommit({ repository: origin, commit: id, ...source }, options);
const executed = (): string[] => readdirSync(state).filter((name) => name.startsWith("executed"));

beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), "plumule-git-"));
  origin = join(state, "origin");
  mkdirSync(origin);
  git(origin, "init", "-q");
  writeFileSync(join(origin, "file"), "x");
  git(origin, "add", "-A");
  git(origin, "commit", "-qm", "x");
  id = git(origin, "rev-parse", "HEAD");
  options = { mirrors: join(state, "mirrors"), policy: { allowLocal: true }, timeoutMs: 20_000 };
});
afterEach(() => rmSync(state, { recursive: true, force: true }));

describe("row 27: what git would take for something else", () => {
  test.each([
    "refs/heads/--upload-pack=touch x",
    "refs/heads/$(id)",
    "refs/heads/a;b",
    "refs/heads/-x",
    "refs/patches/../heads/x",
    "--upload-pack=x",
    "HEAD",
    "",
  ])("is refused as the ref %j, before git is started", async (ref) => {
    expect(await mirror({ ref })).toMatchObject({ ok: false, reason: "invalid-ref" });
    expect(existsSync(options.mirrors)).toBe(false);
  });

  test.each(["--help", "0".repeat(39), "HEAD", `${"0".repeat(40)}^{tree}`, "A".repeat(40), ""])(
    "is refused as the commit %j, before git is started",
    async (commit) => {
      expect(await mirror({ commit })).toMatchObject({ ok: false, reason: "invalid-commit" });
      expect(existsSync(options.mirrors)).toBe(false);
    },
  );

  test.each(["--upload-pack=x", "ext::sh -c x", "ssh://-oProxyCommand=x/y", "-x"])(
    "is refused as the place %j, first or further, before git is started",
    async (place) => {
      expect(await mirror({ repository: place })).toMatchObject({ ok: false, reason: "refused-url" });
      expect(await mirror({ urls: [place] })).toMatchObject({ ok: false, reason: "refused-url" });
      expect(existsSync(options.mirrors)).toBe(false);
    },
  );

  test("does nothing as the name of a branch or tag that the repository has", async () => {
    const names = [
      `--upload-pack=touch\${IFS}${state}/executed-1;`,
      `$(touch\${IFS}${state}/executed-2)`,
      "-x",
      "a;b",
      "`id`",
      "--help",
    ];
    for (const name of names) {
      const ref = name.replaceAll("/", "-");
      git(origin, "update-ref", `refs/heads/${ref}`, id);
      git(origin, "update-ref", `refs/tags/${ref}`, id);
    }
    expect(await mirror({})).toMatchObject({ ok: true });
    const [place] = await placesOf({ repository: origin, commit: id }, options);
    expect(place?.branches).toContain("--help");
    expect(place?.branches).toHaveLength(names.length + 1);
    expect(executed()).toEqual([]);
  });
});

describe("git at the runner", () => {
  test("speaks no other protocol than the place's own, whatever rewrites the place", async () => {
    const made = await mirror({});
    if (!made.ok) throw new Error(made.detail);
    // As if somebody had written into the mirror: no configuration may open what the call did not.
    git(made.mirror, "config", `url.ext::touch ${state}/executed.insteadOf`, origin);
    git(made.mirror, "config", "protocol.ext.allow", "always");
    const from = { url: origin, protocol: "file" } as const;
    const fetched = await runGit({
      args: ["fetch", "--end-of-options", origin, "refs/heads/main"],
      cwd: made.mirror,
      from,
      timeoutMs: 10_000,
    });
    expect(fetched).toMatchObject({
      ok: false,
      detail: expect.stringMatching(/transport 'ext' not allowed/) as string,
    });
    expect(executed()).toEqual([]);
  });

  test("speaks none at all where nothing is fetched", async () => {
    const cloned = await runGit({ args: ["ls-remote", origin], cwd: state, timeoutMs: 10_000 });
    expect(cloned).toMatchObject({
      ok: false,
      detail: expect.stringMatching(/transport 'file' not allowed/) as string,
    });
  });

  test("takes what follows the end of options for a place", async () => {
    const option = `--upload-pack=touch ${state}/executed; git-upload-pack`;
    const args = ["fetch", "--end-of-options", option, origin];
    const from = { url: origin, protocol: "file" } as const;
    expect((await runGit({ args, cwd: origin, from, timeoutMs: 10_000 })).ok).toBe(false);
    expect(executed()).toEqual([]);
  });

  test("asks nobody: its input is closed and it has no home", async () => {
    const asked = await runGit({ args: ["credential", "fill"], cwd: origin, timeoutMs: 10_000 });
    expect(asked).toMatchObject({ ok: false, reason: "exit" });
    const home = await runGit({ args: ["config", "--global", "--list"], cwd: origin, timeoutMs: 10_000 });
    expect(home.ok ? home.stdout : "").toBe("");
  });
});
