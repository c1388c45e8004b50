import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { LIMITS, runChangesSchema } from "@plumule/protocol";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { admitUrl } from "../../runner/src/git.ts";
import { type CommitSource, mirrorCommit } from "../../runner/src/mirror.ts";
import { probeOverlay } from "../../runner/src/workspace/overlay.ts";
import { createWorkspace, listWorkspaces, removeWorkspace, type WorkspaceResult } from "../../runner/src/workspace.ts";

const RID = "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const root = realpathSync(mkdtempSync(join(tmpdir(), "plumule-workspace-")));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let state: string;
let origin: string;
let runs = 0;
const environment = { ...process.env };

/** Plain git of a developer, apart from the code under test. */
function git(cwd: string, ...args: string[]): string {
  const identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
  const env = { PATH: environment["PATH"], HOME: "/nonexistent", GIT_CONFIG_NOSYSTEM: "1" };
  return execFileSync("git", [...identity, ...args], { cwd, env, encoding: "utf8" }).trim();
}

function commit(file: string, content: string): string {
  writeFileSync(join(origin, file), content);
  git(origin, "add", "-A");
  git(origin, "commit", "-qm", `write ${file}`);
  return git(origin, "rev-parse", "HEAD");
}

function nextRun(): string {
  runs += 1;
  return `0192a3b4-0000-7001-8000-${String(runs).padStart(12, "0")}`;
}

/** Whether workspaces get overlays; the second half of the tests below does without. */
let overlay = (await probeOverlay(root)) === "machine";

function folders(): { workspaces: string; warm: string } {
  return { workspaces: join(state, "workspaces"), warm: join(state, "warm") };
}

function workspace(
  source: Partial<CommitSource> & { commit: string },
  runId = nextRun(),
  domain: string | null = "a",
): Promise<WorkspaceResult> {
  return createWorkspace({
    mirrors: join(state, "mirrors"),
    ...folders(),
    overlay,
    domain,
    runId,
    source: { repository: origin, ...source },
    policy: { allowLocal: true },
    timeoutMs: 20_000,
  });
}

beforeEach(() => {
  state = mkdtempSync(join(root, "state-"));
  origin = join(state, "origin");
  mkdirSync(origin);
  git(origin, "init", "-q");
});
afterEach(async () => {
  for (const run of await listWorkspaces(folders())) await removeWorkspace(folders(), run);
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
});

describe.each(overlay ? [true, false] : [false])("a workspace (overlay: %s)", (isOverlay) => {
  beforeEach(() => {
    overlay = isOverlay;
  });

  test("holds the exact commit, whatever the branch has become, with private folders beside it", async () => {
    const first = commit("file", "one");
    commit("file", "two");
    const runId = nextRun();
    const made = await workspace({ commit: first }, runId);
    if (!made.ok) throw new Error(made.detail);
    const { checkout, home, temporary } = made.workspace;
    expect(readFileSync(join(checkout, "file"), "utf8")).toBe("one");
    expect(git(checkout, "rev-parse", "HEAD")).toBe(first);
    expect(git(checkout, "status", "--porcelain")).toBe("");
    expect([readdirSync(home), readdirSync(temporary)]).toEqual([[], []]);
    expect(await listWorkspaces(folders())).toEqual([runId]);
    expect(await removeWorkspace(folders(), runId)).toBe(true);
    expect(await listWorkspaces(folders())).toEqual([]);
  });

  test("needs the network only once per commit, also when many runs ask at the same time", async () => {
    const id = commit("file", "one");
    const options = { mirrors: join(state, "mirrors"), policy: { allowLocal: true }, timeoutMs: 20_000 };
    const asked = await Promise.all([1, 2, 3, 4].map(() => mirrorCommit({ repository: origin, commit: id }, options)));
    expect(asked.map((answer) => answer.ok && answer.fetched)).toEqual([true, false, false, false]);
    renameSync(origin, `${origin}.gone`);
    expect(await workspace({ commit: id })).toMatchObject({ ok: true });
    expect(readdirSync(join(state, "mirrors"))).toHaveLength(1);
  });

  test("is found at a second URL when the first is away", async () => {
    const id = commit("file", "one");
    expect(
      await workspace({ repository: join(state, "nowhere"), urls: [`file://${origin}`], commit: id }),
    ).toMatchObject({ ok: true });
  });

  test("works for a repository with SHA-256 ids", async () => {
    rmSync(origin, { recursive: true });
    mkdirSync(origin);
    git(origin, "init", "-q", "--object-format=sha256");
    const id = commit("file", "one");
    expect(id).toHaveLength(64);
    expect(await workspace({ commit: id })).toMatchObject({ ok: true });
  });

  test("tells what its run has changed, with the first paths by name, and nothing of git's own", async () => {
    for (const file of ["kept", "written", "removed"]) commit(file, "old");
    const id = commit("touched", "old");
    const made = await workspace({ commit: id });
    if (!made.ok) throw new Error(made.detail);
    const { checkout, changes } = made.workspace;
    const none = { addedCount: 0, modifiedCount: 0, deletedCount: 0, paths: [] };
    expect(await changes()).toEqual({ ...none, source: isOverlay ? "overlay" : "git" });
    writeFileSync(join(checkout, "written"), "new");
    writeFileSync(join(checkout, "touched"), "old");
    rmSync(join(checkout, "removed"));
    git(checkout, "add", "-A");
    mkdirSync(join(checkout, "z"));
    for (let at = 0; at < 30; at += 1) writeFileSync(join(checkout, "z", `${"n".repeat(240)}-${at}`), "");
    const found = await changes();
    expect(found).toMatchObject({ addedCount: 30, modifiedCount: 1, deletedCount: 1 });
    expect(runChangesSchema.parse(found).paths.slice(0, 3)).toEqual([
      { path: "removed", change: "deleted" },
      { path: "written", change: "modified" },
      { path: expect.stringMatching(/^z\/n+…$/), change: "added" },
    ]);
    expect(found?.paths).toHaveLength(LIMITS.runChangedPaths);
  });

  test("can be spoiled by its job without harm to the mirror or to another run", async () => {
    const id = commit("file", "one");
    const made = await workspace({ commit: id });
    if (!made.ok) throw new Error(made.detail);
    const mirror = join(state, "mirrors", readdirSync(join(state, "mirrors"))[0] ?? "");
    const before = [git(mirror, "for-each-ref"), readFileSync(join(mirror, "config"), "utf8")];
    const { checkout } = made.workspace;
    git(checkout, "config", "core.hooksPath", "/tmp/evil");
    git(checkout, "config", "core.fsmonitor", "/tmp/evil");
    git(checkout, "update-ref", "refs/heads/main", id);
    git(checkout, "update-ref", `refs/plumule/${"0".repeat(39)}1`, id);
    git(checkout, "rm", "-q", "file");
    git(checkout, "commit", "-qm", "spoil");
    git(checkout, "gc", "-q", "--prune=now");
    expect([git(mirror, "for-each-ref"), readFileSync(join(mirror, "config"), "utf8")]).toEqual(before);
    const other = await workspace({ commit: id });
    if (!other.ok) throw new Error(other.detail);
    expect(readFileSync(join(other.workspace.checkout, "file"), "utf8")).toBe("one");
    expect(git(other.workspace.checkout, "for-each-ref")).toBe("");
  });

  test("starts clean when a run is tried again, and is removed even with read-only folders", async () => {
    const id = commit("file", "one");
    const runId = nextRun();
    const made = await workspace({ commit: id }, runId);
    if (!made.ok) throw new Error(made.detail);
    mkdirSync(join(made.workspace.checkout, "sealed/deep"), { recursive: true });
    writeFileSync(join(made.workspace.checkout, "sealed/deep/file"), "");
    chmodSync(join(made.workspace.checkout, "sealed/deep"), 0o500);
    chmodSync(join(made.workspace.checkout, "sealed"), 0o500);
    const again = await workspace({ commit: id }, runId);
    expect(again.ok && existsSync(join(again.workspace.checkout, "sealed"))).toBe(false);
  });

  test("of a job without a source is an empty folder", async () => {
    const options = { mirrors: join(state, "mirrors"), policy: { allowLocal: false }, timeoutMs: 1_000 };
    const made = await createWorkspace({
      ...options,
      ...folders(),
      overlay,
      domain: "a",
      runId: nextRun(),
      source: null,
    });
    expect(made.ok && readdirSync(made.workspace.checkout)).toEqual([]);
  });

  test("never lies outside its folder", async () => {
    await expect(workspace({ commit: "0".repeat(40) }, "../../etc")).rejects.toThrow(RangeError);
    await expect(removeWorkspace(folders(), "..")).rejects.toThrow(RangeError);
  });
});

test("a checkout that a job has written to serves its own deployment again, and nobody when the job was a stranger's", async () => {
  overlay = false;
  const id = commit("file", "one");
  const inodeOf = async (domain: string | null): Promise<number> => {
    const runId = nextRun();
    const made = await workspace({ commit: id }, runId, domain);
    if (!made.ok) throw new Error(made.detail);
    const { ino } = statSync(made.workspace.checkout);
    writeFileSync(join(made.workspace.checkout, ".git/config"), "[core]\n\tfsmonitor = /tmp/evil\n");
    await removeWorkspace(folders(), runId);
    return ino;
  };
  const slots = (): number =>
    readdirSync(join(state, "warm/slots")).flatMap((kind) =>
      readdirSync(join(state, "warm/slots", kind)).filter((name) => name !== "lock"),
    ).length;
  const first = await inodeOf("a");
  expect([await inodeOf("a"), slots()]).toEqual([first, 1]);
  expect(await inodeOf("b")).not.toBe(first);
  expect(slots()).toBe(2);
  expect(await inodeOf(null)).not.toBe(first);
  expect(slots()).toBe(2);
});

describe("a commit that cannot be had", () => {
  test("says why, and leaves no folder", async () => {
    commit("file", "one");
    const missing = "0123456789012345678901234567890123456789";
    expect(await workspace({ commit: missing })).toMatchObject({ ok: false, reason: "no-such-commit" });
    expect(await workspace({ commit: missing, repository: "/no/such/repository" })).toMatchObject({
      ok: false,
      reason: "unreachable",
    });
    expect(await workspace({ commit: missing, repository: "https://127.0.0.1:1/x" })).toMatchObject({
      ok: false,
      reason: "unreachable",
    });
    for (const id of ["main", "HEAD", "--upload-pack=touch /tmp/x", missing.slice(1), `${missing}\n`, "A".repeat(40)]) {
      expect(await workspace({ commit: id })).toMatchObject({ ok: false, reason: "invalid-commit" });
    }
    for (const ref of ["main", "--exec=x", "refs/heads/-x", "refs/heads/../../x", "refs/heads/a b"]) {
      expect(await workspace({ commit: missing, ref })).toMatchObject({ ok: false, reason: "invalid-ref" });
    }
    expect(await workspace({ commit: missing, urls: ["ext::sh -c x"] })).toMatchObject({
      ok: false,
      reason: "refused-url",
    });
    expect(await listWorkspaces(folders())).toEqual([]);
  });

  test("stops at once when it is cancelled", async () => {
    const id = commit("file", "one");
    const options = { mirrors: join(state, "mirrors"), policy: { allowLocal: true }, timeoutMs: 20_000 };
    const source = { repository: origin, commit: id };
    expect(await mirrorCommit(source, { ...options, cancel: AbortSignal.abort() })).toMatchObject({
      reason: "cancelled",
    });
  });
});

describe("URLs", () => {
  test.each([
    ["https://example.org/x.git", "https://example.org/x.git"],
    [RID, "rad://z3gqcJUoA1n9HaHKufZs5FCSGazv5"],
    ["rad://z3gqcJUoA1n9HaHKufZs5FCSGazv5", "rad://z3gqcJUoA1n9HaHKufZs5FCSGazv5"],
    ["/srv/git/x", "/srv/git/x"],
    ["file:///srv/git/x", "file:///srv/git/x"],
  ])("%s is fetched as %s", (url, expected) => {
    expect(admitUrl(url, { allowLocal: true })).toMatchObject({ url: expected });
  });

  test.each([
    "ext::sh -c touch% /tmp/x",
    "EXT::sh",
    "--upload-pack=/tmp/x",
    "-x",
    "http://example.org/x",
    "git://example.org/x",
    "ssh://-oProxyCommand=x/y",
    "git@example.org:x",
    "file://host/x",
    "file:x",
    "relative/path",
    "",
    "https://",
    "https://user:secret@example.org/x",
    "https://token@example.org/x",
    "https://example.org/x\n",
    "https://example.org/a b",
    "rad:../../x",
    "rad://x",
    "fd::17",
    "testsvn::x",
    "file:///x?y",
    "file:///x#y",
  ])("%j is refused", (url) => {
    expect(admitUrl(url, { allowLocal: true })).toHaveProperty("refused");
  });

  test("local paths need the owner's consent", () => {
    for (const url of ["/srv/git/x", "file:///srv/git/x"])
      expect(admitUrl(url, { allowLocal: false })).toHaveProperty("refused");
  });
});

describe("git", () => {
  test("runs nothing that a repository, an account or the environment asks for", async () => {
    const proof = join(state, "executed");
    const evil = join(state, "evil");
    writeFileSync(evil, `#!/bin/sh\necho "$0 $*" >>${proof}\ncat\n`, { mode: 0o755 });
    const hooks = join(state, "hooks");
    mkdirSync(hooks);
    for (const hook of ["post-checkout", "reference-transaction", "post-index-change"])
      writeFileSync(join(hooks, hook), readFileSync(evil), { mode: 0o755 });
    const config = `[core]\n\thooksPath = ${hooks}\n\tfsmonitor = ${evil}\n[filter "lfs"]\n\tsmudge = ${evil}\n\tprocess = ${evil}\n[submodule]\n\trecurse = true\n[gc]\n\tauto = 1\n`;
    writeFileSync(join(state, ".gitconfig"), config);
    commit(".gitattributes", "* filter=lfs\n");
    const id = commit(".gitmodules", `[submodule "x"]\n\tpath = x\n\turl = ext::${evil}\n`);
    Object.assign(process.env, { HOME: state, GIT_CONFIG_GLOBAL: join(state, ".gitconfig"), GIT_CONFIG_COUNT: "1" });
    Object.assign(process.env, {
      GIT_CONFIG_KEY_0: "core.hooksPath",
      GIT_CONFIG_VALUE_0: hooks,
      GIT_DIR: origin,
      GIT_SSH_COMMAND: evil,
    });
    Object.assign(process.env, { GIT_TEMPLATE_DIR: hooks, GIT_ASKPASS: evil, GIT_TRACE: proof });
    expect(await workspace({ commit: id })).toMatchObject({ ok: true });
    expect(existsSync(proof)).toBe(false);
  });

  test("fetches rad: through git-remote-rad, and the refs when the server does not serve a commit by its id", async () => {
    const id = commit("file", "one");
    commit("file", "two");
    git(origin, "update-ref", "refs/patches/abc", "HEAD~1");
    const bin = join(state, "bin");
    mkdirSync(bin);
    // A remote helper that connects to the original in protocol 0, which serves advertised ids alone.
    const script = `#!/bin/sh\necho "$2" >>${state}/asked\nread line; printf 'connect\\n\\n'\nread line; printf '\\n'; unset GIT_PROTOCOL\nexec git -c uploadpack.hideRefs=refs/patches upload-pack ${origin}\n`;
    writeFileSync(join(bin, "git-remote-rad"), script, { mode: 0o755 });
    process.env["PATH"] = `${bin}${delimiter}${process.env["PATH"]}`;
    const made = await workspace({ repository: RID, commit: id });
    expect(made).toMatchObject({ ok: true });
    expect(readFileSync(join(state, "asked"), "utf8").trim().split("\n")).toEqual(
      [RID, RID].map((rid) => rid.replace("rad:", "rad://")),
    );
  });
});
