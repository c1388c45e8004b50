import { execFileSync, spawn, spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeRepository } from "../support/broker.ts";
import { type CommandLine, pidsAbout, startCommand } from "../support/command-line.ts";

const root = join(import.meta.dirname, "../..");
const main = join(root, "cli/src/main.ts");

let folder: string;
let env: Record<string, string>;
let started: CommandLine[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "plumule-workspace-"));
  env = { HOME: folder, XDG_STATE_HOME: join(folder, "state"), PLUMULE_WORKSPACES: "" };
  started = [];
});
afterEach(async () => {
  for (const { child, done } of started) {
    child.kill("SIGTERM");
    await done;
  }
  await rm(folder, { recursive: true, force: true });
});

type Ended = { code: number | null; out: string; err: string };

function start(...args: string[]): CommandLine {
  const command = startCommand(args, env);
  started.push(command);
  return command;
}

async function plumule(...args: string[]): Promise<Ended> {
  const { done, out, err } = start("workspace", ...args);
  return { code: await done, out: out(), err: err() };
}

async function configure(config: object): Promise<string> {
  const path = join(folder, "config.json");
  await writeFile(path, JSON.stringify({ name: "test-123", repositories: [], ...config }));
  return path;
}

describe("plumule workspace", () => {
  it("sets up, runs, fetches, resets and takes down what a configuration of Derrick's names", async () => {
    const repository = await makeRepository(folder, { "greeting.txt": "hello\n", ".gitignore": "built\n" });
    const config = await configure({
      repositories: [{ url: repository.url, path: "app", name: "ignored" }],
      setup_script: 'echo "Hello World"; echo built >app/built',
    });
    const up = await plumule("up", "-w", config);
    expect([up.code, up.out]).toEqual([0, "test-123\n"]);
    expect(up.err).toContain("Hello World");
    expect(up.err).toContain("→ plumule workspace exec test-123");
    const again = await plumule("up", "-w", config);
    expect([again.code, again.err]).toEqual([5, expect.stringContaining("plumule workspace down test-123")]);

    const mess = "cat greeting.txt built; echo mess >greeting.txt; echo junk >junk; rm built";
    const ran = await plumule("exec", "-w", config, "--working-dir", "app", "--", "bash", "-c", mess);
    expect(ran).toMatchObject({ code: 0, out: "hello\nbuilt\n" });
    const changed = (await plumule("changes", "test-123")).out.split("\n");
    expect(changed).toEqual(expect.arrayContaining(["M app/greeting.txt", "A app/junk"]));
    expect((await plumule("reset", "-w", config)).code).toBe(0);
    const listed = await plumule("exec", "test-123", "--", "bash", "-c", "cat app/greeting.txt app/built; ls app/junk");
    expect([listed.code, listed.out]).toEqual([2, "hello\nbuilt\n"]);

    await writeFile(join(repository.path, "greeting.txt"), "good evening\n");
    const git = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-C", repository.path];
    execFileSync("git", [...git, "commit", "--quiet", "--all", "--message=evening"]);
    const fetched = await plumule("fetch", "test-123");
    const head = execFileSync("git", ["-C", repository.path, "rev-parse", "HEAD"], { encoding: "utf8" }).trim();
    expect(fetched.err).toContain(`app is at ${head.slice(0, 12)}`);
    expect((await plumule("exec", "test-123", "--", "cat", "app/greeting.txt")).out).toBe("good evening\n");

    expect((await plumule("ls")).out).toMatch(/^ID +NAME +PROVIDER +AGE\ntest-123 +test-123 +local +\w+\n$/);
    expect((await plumule("down", "-w", config)).code).toBe(0);
    expect((await plumule("reset", "test-123")).code).toBe(4);
  }, 120_000);

  it("passes output, input, exit codes and Ctrl-C between a person and a command", async () => {
    const config = await configure({ setup_script: "mkdir deep" });
    await plumule("up", "-w", config, "--id", "mine", "--env", "A=1");
    const exec = (...args: string[]): Promise<Ended> => plumule("exec", ...args);
    const said = await exec(
      "mine",
      "--working-dir",
      "deep",
      "--env",
      "B=2",
      "--",
      "bash",
      "-c",
      'echo "$A$B"; pwd >&2; exit 42',
    );
    expect(said).toMatchObject({ code: 42, out: "12\n", err: expect.stringMatching(/deep\n$/) });
    expect(await exec("mine", "--timeout", "1s", "--", "sleep", "300")).toMatchObject({ code: 124 });
    expect(await exec("nobody", "--", "true")).toMatchObject({
      code: 125,
      err: expect.stringContaining("no workspace"),
    });

    const cat = spawn(process.execPath, [main, "workspace", "exec", "-i", "mine", "--", "tr", "a-z", "A-Z"], {
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "inherit"],
    });
    cat.stdin.end("piped through\n");
    expect(await text(cat.stdout)).toBe("PIPED THROUGH\n");

    const mark = `ctrl-c-${process.pid}-${Date.now()}`;
    const running = start(
      "workspace",
      "exec",
      "mine",
      "--env",
      `MARK=${mark}`,
      "--",
      "bash",
      "-c",
      "sleep 300 & echo ready; wait",
    );
    await running.printed("ready");
    running.child.kill("SIGINT");
    expect(await running.done).toBe(130);
    expect(pidsAbout(mark)).toEqual([]);

    const lines = (await exec("mine", "--json", "--", "echo", "hi")).out.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
      { event: "output", stream: "stdout", text: "hi\n" },
      { event: "exit", exit_code: 0, reason: "exit", signal: null },
    ]);
  }, 120_000);

  it("says what is wrong with flags and configurations, and does nothing", async () => {
    const config = await configure({});
    const broken = join(folder, "broken.json");
    await writeFile(broken, JSON.stringify({ repositories: [{ url: "ssh://x", path: "../out" }] }));
    const token = join(folder, "token");
    await writeFile(token, "a-token-that-others-read\n", { mode: 0o644 });
    for (const [args, code, words] of [
      [["up", "-w", broken], 2, "/repositories/0/path"],
      [["up", "-w", config, "-p", "remote_nats"], 2, "-s nats"],
      [["serve", "-w", config, "--listen", "0.0.0.0:50080"], 2, "SSH tunnel"],
      [["serve", "-w", config, "--token-file", token], 2, "chmod 600"],
      [["serve", "-w", config, "-s", "nats", "--subject", "a.*"], 69, "no subject"],
    ] as const) {
      const { code: ended, err } = await plumule(...args);
      expect([args, ended, err]).toEqual([args, code, expect.stringContaining(words)]);
    }
    expect((await plumule("ls")).err).toContain("no workspace");
  }, 120_000);
});

describe("plumule workspace serve", () => {
  /** Blocks of shell below a heading of the document, and the lines that it promises. */
  const document = readFileSync(join(root, "docs/workspaces-server.md"), "utf8");
  const blocks = [...document.matchAll(/```sh\n([^]*?)```/g)].map(([, block = ""]) => block);
  const asked = blocks.filter((block) => block.includes("curl"));

  const hasCurl = spawnSync("curl", ["--version"]).status === 0;
  it.skipIf(!hasCurl).each(asked)(
    `does what docs/workspaces-server.md shows${hasCurl ? "" : " (missing: curl)"}: %#`,
    async (block) => {
      const serve = blocks[blocks.indexOf(block) - 1] ?? "";
      const config = await configure({ setup_script: 'echo "Hello World"' });
      const place = (words: string): string => words.replaceAll("./", `${folder}/`).replace("config.json", config);
      const server = start(...place(serve).replace(":50080", ":0").trim().split(" ").slice(1));
      await server.printed("the workspaces stay");
      const port = /127\.0\.0\.1:(\d+)/.exec(server.err())?.[1] ?? "";
      const script = place(block).replaceAll("50080", port);
      const out = execFileSync("bash", ["-euo", "pipefail", "-c", script], { encoding: "utf8" });
      const promised = block.split("\n").filter((line) => line.startsWith("# "));
      const lines = out.trim().split("\n");
      expect(lines).toHaveLength(promised.length);
      for (const [index, line] of promised.entries()) {
        const pattern = line
          .slice(2)
          .split("…")
          .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
          .join(".*");
        expect(lines[index]).toMatch(new RegExp(`^${pattern}$`));
      }
    },
    60_000,
  );

  it("takes the flags of Derrick's command, keeps its token to itself, and leaves its workspaces to the next", async () => {
    const config = await configure({});
    const socket = join(folder, "a.sock");
    const long = ["--provisioning-mode", "local", "--server-mode", "http", "--workspace-config-path", config];
    const server = start("workspace", "serve", ...long, "--listen", socket);
    await server.printed("are served");
    const curl = (path: string, ...args: string[]): string =>
      execFileSync("curl", ["--silent", "--unix-socket", socket, `http://localhost${path}`, ...args], {
        encoding: "utf8",
      });
    expect(JSON.parse(curl("/workspaces", "--data", '{"id":"kept"}'))).toMatchObject({ id: "kept" });
    const other = await plumule("serve", "-p", "local", "-s", "http", "-w", config, "--listen", socket);
    expect([other.code, other.err]).toEqual([5, expect.stringContaining("Another process")]);
    server.child.kill("SIGTERM");
    expect(await server.done).toBe(0);

    const port = start(
      "workspace",
      "serve",
      "-p",
      "local",
      "-s",
      "http",
      "-w",
      config,
      "--listen",
      "127.0.0.1:0",
      "--json",
    );
    await port.printed("tokenFile");
    const { address, tokenFile } = JSON.parse(port.out()) as { address: string; tokenFile: string };
    expect(statSync(tokenFile).mode & 0o777).toBe(0o600);
    const token = readFileSync(tokenFile, "utf8").trim();
    const ask = (bearer: string): Promise<Response> =>
      fetch(`${address}/workspaces`, { headers: { authorization: `Bearer ${bearer}` } });
    expect((await ask("guess")).status).toBe(401);
    expect(await (await ask(token)).json()).toMatchObject({ workspaces: [{ id: "kept" }] });
    expect(`${port.out()}${port.err()}`).not.toContain(token);
  }, 60_000);
});
