import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request, type RequestOptions } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DoorAnswer } from "../../runner/src/workspace-server/answers.ts";
import { createAtWork } from "../../runner/src/workspace-server/commands.ts";
import { serveWorkspacesHttp, type WorkspaceDoor } from "../../runner/src/workspace-server/http.ts";
import { SERVER_LIMITS } from "../../runner/src/workspace-server/limits.ts";
import { createWorkspaceService, type WorkspaceService } from "../../runner/src/workspace-server/requests.ts";
import { openWorkspaceProvider } from "../../runner/src/workspace/open.ts";

import { pidsAbout } from "../support/command-line.ts";
import { ask, type Line, stream } from "../support/workspace-door.ts";

const token = "a-token-for-these-tests";
const config = { name: "test-123", repositories: [], setupScript: 'echo "Hello World"' };

let folder: string;
let service: WorkspaceService;
let doors: WorkspaceDoor[];
let faults: string[];
let socketPath: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "plumule-door-"));
  const provider = await openWorkspaceProvider("local", { folder: join(folder, "state") });
  if ("refused" in provider) throw new Error(provider.detail);
  service = createWorkspaceService(provider, config);
  doors = [];
  faults = [];
  socketPath = join(folder, "run/plumule.sock");
});
afterEach(async () => {
  for (const end of [service.stop, service.stop]) end();
  await Promise.all(doors.map((door) => door.close()));
  await rm(folder, { recursive: true, force: true });
  expect(faults).toEqual([]);
});

/** Opens a door on the socket, or on a port with a token. */
async function open(where: "socket" | "port" = "socket"): Promise<RequestOptions> {
  const address = where === "socket" ? { path: socketPath } : { host: "127.0.0.1", port: 0 };
  const door = await serveWorkspacesHttp(service, {
    address,
    token: where === "socket" ? null : token,
    say: (line) => faults.push(line),
  });
  if ("refused" in door) throw new Error(door.refused);
  doors.push(door);
  return where === "socket" ? { socketPath } : { host: "127.0.0.1", port: new URL(door.address).port };
}

async function setUp(at: RequestOptions, body: object = {}): Promise<string> {
  const made = await ask(at, "POST", "/workspaces", body);
  expect(made.status).toBe(200);
  return (made.json() as { id: string }).id;
}

// Each command is a tree of processes, on a machine that may be busy.
describe("a workspace server", { timeout: 60_000 }, () => {
  it("does what Derrick's clients ask for, and answers exit codes instead of faults", async () => {
    const at = await open();
    expect((await ask(at, "GET", "/health")).json()).toEqual({ healthy: true });
    const id = await setUp(at, { env: { GREETING: "hello" } });
    const list = (await ask(at, "GET", "/workspaces")).json();
    expect(list).toMatchObject({ workspaces: [{ id, name: "test-123" }] });

    // As Rust's serde writes what is not given.
    const absent = { working_dir: null, env: null, timeout: null };
    const run = await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "exit 3", ...absent });
    expect(run.status).toBe(200);
    expect(run.json()).toEqual({ exit_code: 3, reason: "exit", signal: null });
    const both = { cmd: 'echo "$A"; echo oops >&2; pwd', working_dir: "deep/er", env: { A: "1" } };
    const content = Buffer.from("grüße\n").toString("base64");
    const written = await ask(at, "POST", `/workspaces/${id}/write_file`, { path: "/deep/er/file", content });
    expect(written.json()).toEqual({ success: true });
    const output = (await ask(at, "POST", `/workspaces/${id}/cmd_with_output`, both)).json();
    expect(output).toMatchObject({ exit_code: 0, output: expect.stringMatching(/^1\noops\n.*deep\/er\n$/) });
    const read = await ask(at, "POST", `/workspaces/${id}/read_file`, { path: "file", working_dir: "deep/er" });
    expect(read.headers["content-type"]).toBe("application/octet-stream");
    expect(read.bytes.toString()).toBe("grüße\n");

    const slow = await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "sleep 300", timeout: 0.2 });
    expect(slow.json()).toMatchObject({ exit_code: 124, reason: "timeout" });
    expect((await ask(at, "DELETE", `/workspaces/${id}`)).json()).toBe(true);
    expect((await ask(at, "DELETE", `/workspaces/${id}`)).json()).toBe(false);
    expect((await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "true" })).status).toBe(404);
  });

  it("takes programs without a shell, and standard input", async () => {
    const at = await open();
    const id = await setUp(at);
    const printed = await ask(at, "POST", `/workspaces/${id}/cmd_with_output`, {
      cmd: ["printf", "%s|", "$HOME", "a b"],
    });
    expect(printed.json().output).toBe("$HOME|a b|");
    const piped = await ask(at, "POST", `/workspaces/${id}/cmd_with_output`, { cmd: "wc -c", stdin: "four" });
    expect(piped.json().output.trim()).toBe("4");
  });

  it("streams output while the command runs, with its characters whole and its bytes exact", async () => {
    const at = await open();
    const id = await setUp(at);
    const script = "printf '\\303'; read -r line <wait; printf '\\274\\n'; echo late >&2; exit 7";
    await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "mkfifo wait" });
    const running = await stream(at, `/workspaces/${id}/exec`, { cmd: script });
    expect(await running.next()).toEqual({ event: "started", command: expect.stringMatching(/^[0-9a-f-]{36}$/) });
    // It stands still until it is told to go on, so this came while it ran.
    expect(await running.next()).toEqual({ event: "output", stream: "merged", text: "" });
    await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "echo >wait" });
    let text = "";
    let last: Line | null = null;
    for (let event = await running.next(); event !== null; event = await running.next()) {
      text += event.event === "output" ? event.text : "";
      last = event;
    }
    expect(text).toBe("ü\nlate\n");
    expect(last).toEqual({ event: "exit", exit_code: 7, reason: "exit", signal: null });

    const split = await stream(at, `/workspaces/${id}/exec`, {
      cmd: "printf '\\377'; echo e >&2",
      split: true,
      binary: true,
    });
    const events: Line[] = [];
    for (let event = await split.next(); event !== null; event = await split.next()) events.push(event);
    expect(events).toContainEqual({ event: "output", stream: "stdout", base64: "/w==" });
    expect(events).toContainEqual({ event: "output", stream: "stderr", base64: "ZQo=" });
  });

  it("makes a command wait for a slow reader instead of losing or hoarding its output", async () => {
    const at = await open();
    const id = await setUp(at);
    const asked = request({ ...at, method: "POST", path: `/workspaces/${id}/exec` });
    asked.end(JSON.stringify({ cmd: "head -c 30000000 /dev/zero | tr '\\0' x; touch printed" }));
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    response.pause();
    const waited = await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "sleep 0.5; test ! -e printed" });
    expect(waited.json().exit_code).toBe(0);
    let bytes = 0;
    for await (const line of createInterface({ input: response })) {
      const event = JSON.parse(line) as Line;
      if (event.event === "output") bytes += event.text.length;
    }
    expect(bytes).toBe(30_000_000);
  });

  it("keeps the beginning and the end of what is too long for one answer", async () => {
    const at = await open();
    const id = await setUp(at);
    const cmd = "echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last";
    const { output, omitted_bytes } = (await ask(at, "POST", `/workspaces/${id}/cmd_with_output`, { cmd })).json();
    expect(output).toMatch(/^first\nx+\n\[\d+ bytes are left out here\]\nx+\nlast\n$/);
    expect(omitted_bytes).toBe(20_000_000 + "first\n\nlast\n".length - SERVER_LIMITS.outputBytes);
  });

  it("ends everything that a command started when whoever asked has gone", async () => {
    const at = await open();
    const id = await setUp(at);
    const mark = `gone-${process.pid}-${Date.now()}`;
    const family = `: ${mark}; setsid sleep 300 & sleep 301 & echo ready; sleep 302`;
    const running = await stream(at, `/workspaces/${id}/exec`, { cmd: family, env: { MARK: mark } });
    for (let event = await running.next(); event?.text !== "ready\n"; event = await running.next());
    expect(pidsAbout(mark).length).toBeGreaterThan(2);
    running.leave();
    await expect.poll(() => pidsAbout(mark), { timeout: 30_000 }).toEqual([]);
  });

  it("stops a command by its id, of its own workspace alone", async () => {
    const at = await open();
    const [id, other] = [await setUp(at), await setUp(at)];
    const running = await stream(at, `/workspaces/${id}/exec`, {
      cmd: "trap 'echo bye; exit 5' TERM; echo ready; sleep 300 & wait",
    });
    const command = (await running.next())?.command;
    expect((await running.next())?.text).toBe("ready\n");
    expect((await ask(at, "POST", `/workspaces/${other}/stop`, { command })).status).toBe(404);
    expect((await ask(at, "POST", `/workspaces/${id}/stop`, { command })).json()).toEqual({ stopped: true });
    expect((await running.next())?.text).toBe("bye\n");
    expect(await running.next()).toMatchObject({ event: "exit", exit_code: 5, reason: "cancelled" });
  });

  it("runs eight commands at once, and answers others meanwhile", async () => {
    const at = await open();
    const ids = await Promise.all(Array.from({ length: 8 }, () => setUp(at)));
    const running = await Promise.all(
      ids.map((id) =>
        stream(at, `/workspaces/${id}/exec`, { cmd: `echo ${id}; mkfifo go; read -r line <go; echo "$line"` }),
      ),
    );
    for (const [index, { next }] of running.entries()) {
      await next();
      expect((await next())?.text).toBe(`${ids[index]}\n`);
    }
    expect((await ask(at, "GET", "/workspaces")).json().workspaces).toHaveLength(8);
    for (const [index, id] of ids.entries())
      await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: `echo go-${index} >go` });
    for (const [index, { next }] of running.entries()) {
      expect((await next())?.text).toBe(`go-${index}\n`);
      expect(await next()).toMatchObject({ exit_code: 0 });
    }
  });
});

describe("what a workspace server does not do", { timeout: 60_000 }, () => {
  it("listens to nobody without the token, and to nobody by another name", async () => {
    const at = await open("port");
    const bearer = (text: string): Record<string, string> => ({ authorization: `Bearer ${text}` });
    expect((await ask(at, "GET", "/health")).status).toBe(200);
    expect((await ask(at, "GET", "/workspaces", undefined, bearer(token))).status).toBe(200);
    for (const headers of [{}, bearer("wrong"), bearer(`${token}x`), { authorization: `Basic ${token}` }]) {
      const refused = await ask(at, "POST", "/workspaces", {}, headers);
      expect(refused.status).toBe(401);
      expect(refused.headers["www-authenticate"]).toBe("Bearer");
      expect(refused.json()).toMatchObject({ code: "unauthenticated", next: expect.stringContaining("token file") });
    }
    const named = await ask(at, "GET", "/workspaces", undefined, { ...bearer(token), host: "rebound.example" });
    expect(named.status).toBe(403);
    expect((await ask(at, "GET", "/workspaces", undefined, bearer(token))).json()).toEqual({ workspaces: [] });
  });

  it("serves no port without a token, and takes no socket away from others", async () => {
    const options = { say: () => {}, token: null };
    const refused = await serveWorkspacesHttp(service, { address: { host: "127.0.0.1", port: 0 }, ...options });
    expect(refused).toEqual({ refused: expect.stringContaining("token") });
    await open();
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
    expect(await serveWorkspacesHttp(service, { address: { path: socketPath }, ...options })).toEqual({
      refused: expect.stringContaining("Another process"),
    });
    const file = join(folder, "file");
    await writeFile(file, "precious");
    expect(await serveWorkspacesHttp(service, { address: { path: file }, ...options })).toEqual({
      refused: expect.stringContaining("no socket"),
    });
    const port = createServer().listen(0, "127.0.0.1");
    await once(port, "listening");
    const taken = { host: "127.0.0.1", port: (port.address() as { port: number }).port };
    expect(await serveWorkspacesHttp(service, { address: taken, say: () => {}, token })).toEqual({
      refused: expect.stringContaining("EADDRINUSE"),
    });
    port.close();
  });

  it("is led out of a workspace by no path and no link", async () => {
    const at = await open();
    const id = await setUp(at);
    const secret = join(folder, "secret");
    await writeFile(secret, "precious");
    await ask(at, "POST", `/workspaces/${id}/cmd`, {
      cmd: `ln -s ${secret} link; ln -s ${folder} folder; ln -s .. up`,
    });
    const content = Buffer.from("overwritten").toString("base64");
    const paths = [
      "../../secret",
      "a/../../../secret",
      "link",
      "folder/secret",
      "up/up/up/secret",
      `/../../${secret}`,
      "a\0b",
    ];
    for (const path of paths) {
      const read = await ask(at, "POST", `/workspaces/${id}/read_file`, { path });
      expect([path, [400, 403, 404].includes(read.status ?? 0)]).toEqual([path, true]);
      expect(read.bytes.toString()).not.toContain("precious");
      const written = await ask(at, "POST", `/workspaces/${id}/write_file`, { path, content });
      expect([path, (written.status ?? 0) < 500]).toEqual([path, true]);
    }
    const outside = await ask(at, "POST", `/workspaces/${id}/write_file`, { path: "x", working_dir: "../..", content });
    expect(outside.status).toBe(400);
    expect(existsSync(join(folder, "x"))).toBe(false);
    expect((await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "true", working_dir: "../.." })).status).toBe(400);
    for (const name of ["..", "%2e%2e", "a%2fb", "A", "-", "x".repeat(200)])
      expect((await ask(at, "POST", `/workspaces/${name}/cmd`, { cmd: "true" })).status).toBe(404);
  });

  it("says what is wrong with a request, and changes nothing", async () => {
    const at = await open();
    const id = await setUp(at);
    const wrong = await ask(at, "POST", `/workspaces/${id}/cmd`, { cmd: "", timeout: -1, shell: "zsh" });
    expect(wrong.status).toBe(400);
    expect(wrong.headers["content-type"]).toBe("application/problem+json");
    expect(wrong.json().errors.map(({ pointer }: { pointer: string }) => pointer)).toEqual([
      "/cmd",
      "/timeout",
      "/shell",
    ]);
    expect((await ask(at, "POST", `/workspaces/${id}/cmd`, "{")).json()).toMatchObject({ code: "invalid-json" });
    expect((await ask(at, "POST", `/workspaces/${id}/exec`, { cmd: [] })).status).toBe(400);
    expect((await ask(at, "POST", `/workspaces/${id}/write_file`, { path: "a", content: "%" })).status).toBe(400);
    expect((await ask(at, "POST", "/workspaces", { id: "../evil" })).status).toBe(400);
    expect((await ask(at, "POST", "/workspaces", { id })).json()).toMatchObject({ code: "conflict" });
    expect((await ask(at, "POST", `/workspaces/${id}/read_file`, { path: "none" })).status).toBe(404);
    const method = await ask(at, "PUT", "/workspaces");
    expect([method.status, method.headers.allow]).toEqual([405, "GET, POST"]);
    for (const path of ["/", "/workspaces/", `/workspaces/${id}/teardown`, `/workspaces/${id}/cmd/x`, "//", "/%"])
      expect((await ask(at, "POST", path)).status).toBe(404);
  });

  it("takes files, and nothing that is larger than it says", async () => {
    const at = await open();
    const id = await setUp(at);
    const file = Buffer.alloc(8 * SERVER_LIMITS.bodyBytes, 1);
    const written = { path: "big", content: file.toString("base64") };
    expect((await ask(at, "POST", `/workspaces/${id}/write_file`, written)).status).toBe(200);
    expect((await ask(at, "POST", `/workspaces/${id}/read_file`, { path: "big" })).bytes.equals(file)).toBe(true);
    const larger = { "content-length": String(SERVER_LIMITS.fileBodyBytes + 1) };
    const tooLarge = await ask(at, "POST", `/workspaces/${id}/write_file`, "{", larger);
    expect([tooLarge.status, tooLarge.json().detail]).toEqual([
      413,
      expect.stringContaining(String(SERVER_LIMITS.fileBodyBytes)),
    ]);
    const declared = { "content-length": String(SERVER_LIMITS.bodyBytes + 1), expect: "100-continue" };
    const unread = request({ ...at, method: "POST", path: `/workspaces/${id}/cmd`, headers: declared });
    unread.flushHeaders();
    const [early] = (await once(unread, "response")) as [IncomingMessage];
    expect(early.statusCode).toBe(413);
    unread.destroy();
    const endless = request({ ...at, method: "POST", path: `/workspaces/${id}/cmd` });
    endless.on("error", () => {});
    endless.write(Buffer.alloc(SERVER_LIMITS.bodyBytes, " "));
    endless.write(" ");
    const [late] = (await once(endless, "response")) as [IncomingMessage];
    expect([late.statusCode, JSON.parse((await buffer(late)).toString())]).toMatchObject([
      413,
      { code: "payload-too-large" },
    ]);
    endless.destroy();
  });

  it("begins no more than it can hold, and nothing while it stops", async () => {
    const atWork = createAtWork();
    const stays = new AbortController().signal;
    const stopped: Promise<unknown>[] = [];
    for (let index = 0; index < SERVER_LIMITS.workCount; index += 1)
      stopped.push(
        atWork.during("a", stays, async ({ cancel, kill }) => {
          return { value: await Promise.all([once(cancel, "abort"), once(kill, "abort")]) };
        }),
      );
    const begin = (): Promise<DoorAnswer> => atWork.during("a", stays, () => Promise.reject(new Error("it began")));
    expect(await begin()).toMatchObject({ refused: "unavailable", headers: { "retry-after": "1" } });
    atWork.stop();
    expect(await begin()).toMatchObject({ refused: "unavailable", detail: "The server is stopping." });
    atWork.stop();
    expect(await Promise.all(stopped)).toHaveLength(SERVER_LIMITS.workCount);
  });
});
