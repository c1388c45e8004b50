import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseWorkspaceConfig, type WorkspaceConfig } from "../../runner/src/workspace/config.ts";
import { openLocalHost } from "../../runner/src/workspace/command-host.ts";
import { openLocalProvider } from "../../runner/src/workspace/local.ts";
import { type OverlayMode, probeOverlay } from "../../runner/src/workspace/overlay.ts";
import {
  isWorkspaceRefusal,
  type OpenWorkspace,
  type SetupRequest,
  type WorkspaceProvider,
} from "../../runner/src/workspace/provider.ts";

let state: string;
let origin: string;
let provider: WorkspaceProvider;

/** Plain git of a developer, apart from the code under test. */
function git(cwd: string, ...args: string[]): string {
  const identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
  const env = { PATH: process.env["PATH"], HOME: "/nonexistent", GIT_CONFIG_NOSYSTEM: "1" };
  return execFileSync("git", [...identity, ...args], { cwd, env, encoding: "utf8" }).trim();
}

function commit(files: Record<string, string>, cwd = origin): string {
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(join(cwd, file, ".."), { recursive: true });
    writeFileSync(join(cwd, file), content);
  }
  git(cwd, "add", "-A");
  git(cwd, "commit", "-qm", "write");
  return git(cwd, "rev-parse", "HEAD");
}

function originNamed(name: string): string {
  const folder = join(state, name);
  mkdirSync(folder);
  git(folder, "init", "-q");
  return folder;
}

function configOf(extra: object = {}): WorkspaceConfig {
  const config = { name: "test", repositories: [{ url: origin, path: "." }], ...extra };
  const parsed = parseWorkspaceConfig(JSON.stringify(config));
  if (isWorkspaceRefusal(parsed)) throw new Error(parsed.detail);
  return parsed;
}

async function up(extra: object = {}, request: Partial<SetupRequest> = {}): Promise<OpenWorkspace> {
  const made = await provider.setup({ config: configOf(extra), ...request });
  if (isWorkspaceRefusal(made)) throw new Error(`${made.refused}: ${made.detail}`);
  return made;
}

/** Runs a script and answers what it printed. */
async function sh(workspace: OpenWorkspace, command: string): Promise<string> {
  let output = "";
  const end = await workspace.exec({ command, onOutput: (chunk) => void (output += Buffer.from(chunk).toString()) });
  if (isWorkspaceRefusal(end)) throw new Error(`${end.refused}: ${end.detail}`);
  if (end.exitCode !== 0) throw new Error(`exit code ${end.exitCode}: ${output}`);
  return output.trim();
}

async function changed(workspace: OpenWorkspace, options?: { git: boolean }): Promise<string[]> {
  const answer = await workspace.changes(options);
  if (isWorkspaceRefusal(answer)) throw new Error(answer.detail);
  return answer.changes.map(({ path, change, kind }) => `${change} ${kind} ${path}`);
}

beforeEach(() => {
  state = realpathSync(mkdtempSync(join(tmpdir(), "plumule-provider-")));
  origin = originNamed("origin");
});
afterEach(async () => {
  for (const { id } of await provider.list()) {
    const open = await provider.open(id);
    if (!isWorkspaceRefusal(open)) await open.teardown();
  }
  rmSync(state, { recursive: true, force: true });
});

const probeFolder = mkdtempSync(join(tmpdir(), "plumule-probe-"));
const probed = await probeOverlay(probeFolder);
rmSync(probeFolder, { recursive: true });
const modes: (OverlayMode | null)[] =
  probed === "machine" ? ["machine", "namespace", null] : probed === "namespace" ? ["namespace", null] : [null];

/** Long enough for a command to begin, where processors are emulated too. */
const SOON_MS = process.env["PLUMULE_TEST_VM"] === undefined ? 100 : 10_000;
/** The second best mode of a machine need not show again what its best has shown. */
const isFull = (overlay: OverlayMode | null): boolean => overlay !== "namespace" || probed === "namespace";

describe.each(modes)("a workspace of this machine (overlay: %s)", (overlay) => {
  beforeEach(async () => {
    const options = {
      path: process.env["PATH"] ?? "",
      allowLocal: true,
      host: await openLocalHost(),
      quota: { quotaBytes: 1e12, floorBytes: 0 },
    };
    const name = overlay === null ? "local" : "overlay";
    provider = await openLocalProvider({ folder: join(state, "provider"), name, overlay, ...options });
  });

  test.runIf(isFull(overlay))("has several repositories at their paths, each at its reference", async () => {
    const first = commit({ a: "1" });
    git(origin, "tag", "v1");
    commit({ a: "2" });
    git(origin, "checkout", "-qb", "feature");
    const feature = commit({ a: "3" });
    git(origin, "checkout", "-q", "main");
    const other = originNamed("other");
    const second = commit({ b: "x" }, other);
    const repositories = [
      { url: origin, path: "one", reference: "v1" },
      { url: origin, path: "deep/two", reference: "feature" },
      { url: `file://${other}`, path: "deep/three" },
      { url: origin, path: "four", reference: first },
    ];
    const workspace = await up({ repositories });
    expect(await sh(workspace, "cat one/a deep/two/a deep/three/b four/a")).toBe("13x1");
    expect(workspace.repositories.map((repository) => repository.commit)).toEqual([first, feature, second, first]);
    expect(await sh(workspace, "git -C deep/two rev-parse HEAD && git -C one status --porcelain")).toBe(feature);
    const none = await provider.setup({
      config: configOf({ repositories: [{ url: origin, path: "a", reference: "v9" }] }),
    });
    expect(none).toMatchObject({ refused: "invalid", detail: expect.stringContaining("v9") as string });
    const away = await provider.setup({ config: configOf({ repositories: [{ url: "/no/where", path: "a" }] }) });
    expect(away).toMatchObject({ refused: "unreachable" });
    expect(await provider.list()).toHaveLength(1);
  });

  test("runs commands with their input, output, end and time", async () => {
    commit({ "d/a": "1" });
    const workspace = await up({}, { env: { GREETING: "hello" } });
    const chunks: string[] = [];
    const said = await workspace.exec({
      command: ["bash", "-c", 'echo "$GREETING $MORE $PWD"; cat; echo no >&2; exit 3'],
      cwd: "d",
      env: { MORE: "world" },
      stdin: (async function* (): AsyncGenerator<Uint8Array> {
        yield Buffer.from("in");
        yield Buffer.from("put\n");
      })(),
      merged: false,
      onOutput: (chunk, stream) => void chunks.push(`${stream}: ${Buffer.from(chunk).toString()}`),
    });
    expect(said).toMatchObject({ reason: "exit", exitCode: 3, signal: null });
    expect(chunks.toSorted().join("")).toMatch(
      /^stderr: no\nstdout: hello world .*\/d\n(?:stdout: )?in(?:stdout: )?put\n$/,
    );
    expect(await workspace.exec({ command: "sleep 60", timeoutMs: SOON_MS })).toMatchObject({
      reason: "timeout",
      exitCode: 143,
    });
    const cancel = AbortSignal.timeout(100);
    expect(await workspace.exec({ command: "sleep 60", cancel })).toMatchObject({ reason: "cancelled" });
    expect(await workspace.exec({ command: "kill -9 $$" })).toMatchObject({ exitCode: 137, signal: "SIGKILL" });
    expect(await workspace.exec({ command: "true", cwd: "../.." })).toMatchObject({ refused: "invalid" });
    expect(await workspace.exec({ command: "true", cwd: "nowhere" })).toMatchObject({ refused: "not-found" });
    expect(await workspace.exec({ command: "true", env: { LD_PRELOAD: "x" } })).toMatchObject({ refused: "invalid" });
    expect(await workspace.exec({ command: [] })).toMatchObject({ refused: "invalid" });
  });

  test("lists exactly what commands changed, and forgets it all when it is reset", async () => {
    commit({
      kept: "1",
      edited: "1",
      gone: "1",
      "dir/x": "1",
      "dir/y": "1",
      "again/x": "1",
      "again/y": "1",
      touched: "1",
      link: "1",
    });
    const workspace = await up({ setup_script: "mkdir deps && echo dep >deps/a && echo dep >deps/b" });
    expect(await changed(workspace)).toEqual([]);
    await sh(
      workspace,
      `echo 2 >edited; rm gone; rm -r dir; rm -r again; mkdir again; echo 1 >again/new; printf 1 >again/y; touch -d yesterday touched
       rm link; ln -s kept link; mkdir -p empty new; echo n >new/file; rm deps/a; echo more >>deps/b; git config core.hooksPath /evil`,
    );
    const expected = [
      "added file again/new",
      "deleted file again/x",
      "deleted file deps/a",
      "modified file deps/b",
      "deleted file dir/x",
      "deleted file dir/y",
      "modified file edited",
      "added folder empty",
      "deleted file gone",
      ...(overlay === null ? ["modified symlink link"] : ["added symlink link", "deleted file link"]),
      "added file new/file",
    ];
    expect((await changed(workspace)).toSorted()).toEqual(expected.toSorted());
    if (overlay !== null) expect(await changed(workspace, { git: true })).toContain("modified file .git/config");
    expect(await workspace.reset()).toEqual({ reset: true });
    expect(await changed(workspace)).toEqual([]);
    expect(
      await sh(
        workspace,
        "cat kept edited dir/x deps/a; git status --porcelain; git config core.hooksPath || true; ls",
      ),
    ).toBe("111dep\n?? deps/\nagain\ndeps\ndir\nedited\ngone\nkept\nlink\ntouched");
  });

  test("runs its setup script once per content of lock files, over every new commit", async () => {
    commit({ "package-lock.json": "1", code: "1" });
    const setup = {
      setup_script: `echo ran >>${state}/ran; cat package-lock.json >installed; echo spoiled >code; echo h >~/h`,
    };
    const ran = (): number => readFileSync(join(state, "ran"), "utf8").split("\n").length - 1;
    const output: string[] = [];
    const first = await up(setup);
    expect([first.setupCached, await sh(first, "cat installed code ~/h"), ran()]).toEqual([false, "11h", 1]);
    commit({ code: "2" });
    const second = await up(setup, { onOutput: (chunk) => void output.push(Buffer.from(chunk).toString()) });
    expect([second.setupCached, await sh(second, "cat installed code ~/h"), ran()]).toEqual([true, "12h", 1]);
    await sh(first, "echo mine >untracked; echo lost >code");
    expect(await first.fetch()).toMatchObject({ repositories: [{ path: "." }] });
    expect([await sh(first, "cat installed code untracked ~/h"), ran()]).toEqual(["12mine\nh", 1]);
    commit({ "package-lock.json": "2" });
    await first.fetch();
    expect([await sh(first, "cat installed untracked; git status --porcelain"), ran()]).toEqual([
      "2mine\n?? installed\n?? untracked",
      2,
    ]);
    commit({ installed: "now tracked" });
    const third = await up(setup);
    expect(await sh(third, "cat installed; git status --porcelain")).toBe("now tracked");
    expect(output).toEqual([]);
    const failing = await provider.setup({ config: configOf({ setup_script: "echo why >&2; exit 7" }) });
    expect(failing).toMatchObject({
      refused: "setup-failed",
      detail: expect.stringMatching(/exit code 7\nwhy/) as string,
    });
    expect(readdirSync(join(state, "provider/workspaces"))).toHaveLength(3);
  });

  test.runIf(isFull(overlay))("reads and writes files as a command would", async () => {
    commit({ a: "1" });
    const workspace = await up();
    const bytes = new Uint8Array([0, 255, 10]);
    expect(await workspace.writeFile("new/deep/file", bytes, { mode: 0o755 })).toEqual({ bytes: 3 });
    expect(await workspace.readFile("/new/deep/file")).toEqual(bytes);
    expect(await sh(workspace, "stat -c %a new/deep/file; ls new/deep")).toBe("755\nfile");
    expect(await workspace.readFile("nothing")).toMatchObject({ refused: "not-found" });
    expect(await workspace.readFile("new")).toMatchObject({ refused: "not-found" });
    expect(await workspace.readFile("../../x")).toMatchObject({ refused: "invalid" });
    expect(await workspace.writeFile("new", bytes)).toMatchObject({ refused: "invalid" });
    expect(await workspace.writeFile("../x", bytes)).toMatchObject({ refused: "invalid" });
  });

  test("is found again by another process, and gone after its end", async () => {
    commit({ a: "1" });
    const workspace = await up({}, { id: "mine" });
    await sh(workspace, "echo left >b");
    expect(await provider.setup({ config: configOf(), id: "mine" })).toMatchObject({ refused: "busy" });
    expect(await provider.setup({ config: configOf(), id: "../x" })).toMatchObject({ refused: "invalid" });
    const found = await provider.open("mine");
    if (isWorkspaceRefusal(found)) throw new Error(found.detail);
    expect(await sh(found, "cat b")).toBe("left");
    const running = found.exec({ command: "touch begun; sleep 600" });
    await expect.poll(() => changed(workspace)).toContain("added file begun");
    expect(await workspace.reset()).toMatchObject({
      refused: "busy",
      detail: expect.stringContaining("sleep 600") as string,
    });
    expect(await workspace.teardown()).toEqual({ removed: true });
    // Killed with what held it: whether its own end was still seen depends on the level.
    expect(await running).not.toMatchObject({ exitCode: 0 });
    expect(await provider.open("mine")).toMatchObject({ refused: "not-found" });
    expect(await found.exec({ command: "true" })).toMatchObject({ refused: "not-found" });
    expect(existsSync(join(state, "provider/workspaces/mine"))).toBe(false);
  });

  test.runIf(isFull(overlay))(
    "passes nothing of what hostile commands wrote on to the next, eight at once",
    async () => {
      commit({ a: "original", "sub/b": "original" });
      const evil = join(state, "evil");
      const proof = join(state, "executed");
      writeFileSync(evil, `#!/bin/sh\n[ -n "$PLUMULE_WORKSPACE" ] || echo "$0" >>${proof}\ncat\n`);
      chmodSync(evil, 0o755);
      const attack = (n: number): string => `
      echo ${n} >a; echo ${n} >mine-${n}; ln a ../../../../hard-${n} 2>/dev/null || true; mkdir -p nested && (cd nested && git init -q && echo x >y)
      mkdir -p .git/hooks; for h in post-checkout post-index-change reference-transaction; do cp ${evil} .git/hooks/$h; done
      git config core.fsmonitor ${evil}; git config filter.x.smudge ${evil}; git config filter.x.clean ${evil}; git config core.hooksPath .git/hooks
      echo '* filter=x' >.gitattributes; echo '* filter=x' >.git/info-attributes; mkdir -p .git/info; echo '* filter=x' >.git/info/attributes
      echo /nowhere >.git/objects/info/alternates; git update-index --assume-unchanged sub/b 2>/dev/null; echo hidden >sub/b; touch -r a sub/b
      rm -rf sub/../.git/index; chmod 500 nested; ls mine-*; cat a`;
      // Where nothing is used again, nothing can be passed on by that.
      const rounds = (overlay === null ? [1, 2] : [1]).map((round) =>
        Array.from({ length: 8 }, (_, index) => round * 10 + index),
      );
      for (const round of rounds) {
        const outputs = await Promise.all(
          round.map(async (n) => {
            const workspace = await up();
            const before = await sh(
              workspace,
              "cat a sub/b; git status --porcelain; ls -A | grep -v '^.git$'; git config --list --local | grep -c evil || true",
            );
            const after = await sh(workspace, attack(n));
            expect(await workspace.teardown()).toEqual({ removed: true });
            return [before, after];
          }),
        );
        expect(outputs).toEqual(round.map((n) => ["originaloriginala\nsub\n0", `mine-${n}\n${n}`]));
      }
      // Not even a name that a command kept for one of its files leads into the files of a later one.
      for (const name of readdirSync(state).filter((entry) => entry.startsWith("hard-")))
        writeFileSync(join(state, name), "reached");
      const last = await up();
      expect(await sh(last, "cat a sub/b; git status --porcelain")).toBe("originaloriginal");
      expect(existsSync(proof)).toBe(false);
    },
  );
});
