import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openWorkspaceProvider } from "../../runner/src/workspace/open.ts";
import { isWorkspaceRefusal, type OpenWorkspace, type WorkspaceProvider } from "../../runner/src/workspace/provider.ts";
import { containerImage } from "../support/container.ts";

const state = realpathSync(mkdtempSync(join(tmpdir(), "plumule-container-")));
const environment = { ...process.env };
const found = containerImage();
const missing = "missing" in found ? found.missing : null;
const folder = join(state, "provider");
const origin = join(state, "origin");

function git(...args: string[]): void {
  execFileSync(
    "git",
    ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main", ...args],
    { cwd: origin },
  );
}

afterEach(() => {
  process.env["PATH"] = environment["PATH"];
});
afterAll(() => {
  if (environment["CONTAINERS_CONF"] === undefined) delete process.env["CONTAINERS_CONF"];
  rmSync(state, { recursive: true, force: true });
});

describe("containers on a machine without an engine", () => {
  test("are refused with what is missing", async () => {
    process.env["PATH"] = join(state, "nothing");
    expect(await openWorkspaceProvider("container", { folder })).toMatchObject({
      refused: "unavailable",
      detail: "containers need podman, or docker with its daemon (no podman in PATH; no docker in PATH)",
    });
  });

  test("are refused with what an engine says that does not answer", async () => {
    const bin = join(state, "bin");
    mkdirSync(bin);
    writeFileSync(join(bin, "docker"), "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n", {
      mode: 0o755,
    });
    symlinkSync(execFileSync("sh", ["-c", "command -v sh"], { encoding: "utf8" }).trim(), join(bin, "sh"));
    process.env["PATH"] = bin;
    expect(await openWorkspaceProvider("container", { folder })).toMatchObject({
      refused: "unavailable",
      detail: expect.stringContaining("docker does not answer: Cannot connect to the Docker daemon") as string,
    });
  });
});

describe.skipIf(missing !== null)(
  `a workspace in containers${missing === null ? "" : ` (missing: ${missing})`}`,
  () => {
    let provider: WorkspaceProvider;
    let workspace: OpenWorkspace;
    const text = async (command: string | string[], env: Record<string, string> = {}): Promise<[string, unknown]> => {
      let output = "";
      const end = await workspace.exec({
        command,
        env,
        onOutput: (chunk) => void (output += Buffer.from(chunk).toString()),
      });
      return [output, isWorkspaceRefusal(end) ? end : end.exitCode];
    };

    beforeAll(async () => {
      mkdirSync(origin);
      git("init", "-q");
      writeFileSync(join(origin, "a"), "1");
      git("add", "-A");
      git("commit", "-qm", "x");
      const opened = await openWorkspaceProvider("container", {
        folder,
        image: "missing" in found ? "" : found.image,
      });
      if (isWorkspaceRefusal(opened)) throw new Error(opened.detail);
      provider = opened;
      const repositories = [{ url: origin, credential: null, path: "code", reference: null }];
      const config = { name: "test", repositories, setupScript: "echo dep >dep; echo $PWD $HOME >~/where" };
      const made = await provider.setup({ config, env: { GREETING: "it's\nme" } });
      if (isWorkspaceRefusal(made)) throw new Error(made.detail);
      workspace = made;
    });
    afterAll(async () => {
      expect(await workspace.teardown()).toEqual({ removed: true });
      expect(readdirSync(join(folder, "workspaces"))).toEqual([]);
    });

    test("has its files, its setup layer and its environment, and nothing else of the machine", async () => {
      expect(
        await text(
          'cat code/a dep ~/where; git -C code status --porcelain; echo "$GREETING $MORE"; ls -d /root /work /home/*',
          { MORE: "x" },
        ),
      ).toEqual([
        "1dep\n/workspace /home/workspace\nit's\nme x\nls: cannot access '/root': No such file or directory\nls: cannot access '/work': No such file or directory\n/home/workspace\n",
        2,
      ]);
      // The engine's own settings are not a command's to choose.
      expect(await text("echo $CONTAINER_HOST", { CONTAINER_HOST: "ssh://nowhere" })).toEqual(["ssh://nowhere\n", 0]);
    });

    test("ends commands, with all that they started", async () => {
      expect(await text(["sh", "-c", "exit 7"])).toEqual(["", 7]);
      expect(await text(["no-such-program"])).toEqual([expect.stringContaining("not found"), 127]);
      expect(await workspace.exec({ command: "kill -9 $$" })).toMatchObject({ exitCode: 137, signal: "SIGKILL" });
      const cancel = new AbortController();
      let said = "";
      const end = await workspace.exec({
        command: "trap 'echo bye; exit 3' TERM; echo begun; sleep 60 & wait",
        cancel: cancel.signal,
        onOutput(chunk) {
          said += Buffer.from(chunk).toString();
          if (said === "begun\n") cancel.abort();
        },
      });
      expect([end, said]).toEqual([expect.objectContaining({ reason: "cancelled", exitCode: 3 }), "begun\nbye\n"]);
      expect(await workspace.exec({ command: "sleep 60", timeoutMs: 1 })).toMatchObject({ reason: "timeout" });
      expect(
        execFileSync("podman", ["ps", "--all", "--quiet", "--filter", "label=plumule.workspace"], { encoding: "utf8" }),
      ).toBe("");
    });

    test("tells its changes, reads, writes and resets", async () => {
      expect(await workspace.writeFile("code/new", Buffer.from("n"))).toEqual({ bytes: 1 });
      expect(await workspace.readFile("code/new")).toEqual(new Uint8Array(Buffer.from("n")));
      expect(await workspace.changes()).toMatchObject({
        changes: expect.arrayContaining([{ path: "code/new", change: "added", kind: "file" }]) as unknown,
      });
      expect(await workspace.reset()).toEqual({ reset: true });
      expect(await workspace.readFile("code/new")).toMatchObject({ refused: "not-found" });
      expect(await workspace.readFile("dep")).toEqual(new Uint8Array(Buffer.from("dep\n")));
    });
  },
);
