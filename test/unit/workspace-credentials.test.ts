import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseWorkspaceConfig, type WorkspaceConfig } from "../../runner/src/workspace/config.ts";
import { openWorkspaceProvider } from "../../runner/src/workspace/open.ts";
import { isWorkspaceRefusal, type WorkspaceProvider } from "../../runner/src/workspace/provider.ts";

const SECRET = "hunter2-s3cret";
const AUTHORIZATION = `Basic ${Buffer.from(`robot:${SECRET}`).toString("base64")}`;
const state = realpathSync(mkdtempSync(join(tmpdir(), "plumule-credentials-")));
const origin = join(state, "repositories/private.git");
const environment = process.env["GIT_SSL_CAINFO"];
let server: Server;
let provider: WorkspaceProvider;
let asked = 0;

function git(...args: string[]): string {
  const identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"];
  return execFileSync("git", [...identity, ...args], { cwd: origin, encoding: "utf8" }).trim();
}

function commit(content: string): void {
  const blob = execFileSync("git", ["hash-object", "-w", "--stdin"], {
    cwd: origin,
    input: content,
    encoding: "utf8",
  }).trim();
  const tree = execFileSync("git", ["mktree"], {
    cwd: origin,
    input: `100644 blob ${blob}\tfile\n`,
    encoding: "utf8",
  }).trim();
  git("update-ref", "refs/heads/main", git("commit-tree", "-m", "x", tree));
}

/** git's own server for smart HTTP (git-http-backend(1)), behind a password. It is slow, so that processes can be looked at meanwhile. */
function serve(): Server {
  const key = { key: readFileSync(join(state, "key.pem")), cert: readFileSync(join(state, "cert.pem")) };
  return createServer(key, (request, response) => {
    if (request.headers.authorization !== AUTHORIZATION) {
      response.writeHead(401, { "www-authenticate": 'Basic realm="git"' }).end();
      return;
    }
    asked += 1;
    const url = new URL(request.url ?? "/", "https://localhost");
    const env = {
      PATH: process.env["PATH"],
      GIT_PROJECT_ROOT: join(state, "repositories"),
      GIT_HTTP_EXPORT_ALL: "1",
      PATH_INFO: url.pathname,
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers["content-type"] ?? "",
      GIT_PROTOCOL: String(request.headers["git-protocol"] ?? ""),
      ...(request.headers["content-encoding"] === undefined
        ? {}
        : { HTTP_CONTENT_ENCODING: String(request.headers["content-encoding"]) }),
    };
    const backend = spawn("git", ["http-backend"], { env, stdio: ["pipe", "pipe", "ignore"] });
    request.pipe(backend.stdin);
    const chunks: Buffer[] = [];
    backend.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    backend.on("close", () => {
      const answer = Buffer.concat(chunks);
      const end = answer.indexOf("\r\n\r\n");
      const headers = answer
        .subarray(0, end)
        .toString()
        .split("\r\n")
        .map((line) => line.split(": ") as [string, string]);
      setTimeout(() => response.writeHead(200, Object.fromEntries(headers)).end(answer.subarray(end + 4)), 100);
    });
  });
}

/** Looks at the arguments of all processes until it is told to stop; answers how many looks saw git, and those that saw the secret. */
function watchArguments(): () => Promise<{ sawGit: boolean; leaks: string[] }> {
  let isOver = false;
  const leaks: string[] = [];
  let sawGit = false;
  const watching = (async () => {
    for (; !isOver; await pause(1))
      for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
        const line = read(`/proc/${pid}/cmdline`);
        if (line.includes("ls-remote") || line.includes("remote-https")) sawGit = true;
        if (line.includes(SECRET) || line.includes(AUTHORIZATION.slice(6))) leaks.push(line);
      }
  })();
  return async () => {
    isOver = true;
    await watching;
    return { sawGit, leaks };
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function configOf(credential: string): WorkspaceConfig {
  const url = `https://${credential}localhost:${(server.address() as AddressInfo).port}/private.git`;
  const parsed = parseWorkspaceConfig(JSON.stringify({ name: "private", repositories: [{ url, path: "code" }] }));
  if (isWorkspaceRefusal(parsed)) throw new Error(parsed.detail);
  return parsed;
}

beforeAll(async () => {
  mkdirSync(origin, { recursive: true });
  git("init", "-q", "--bare", "--initial-branch=main");
  commit("one");
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const files = ["-keyout", join(state, "key.pem"), "-out", join(state, "cert.pem")];
  execFileSync("openssl", ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", ...subject, ...files], {
    stdio: "ignore",
  });
  process.env["GIT_SSL_CAINFO"] = join(state, "cert.pem");
  server = serve();
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  const opened = await openWorkspaceProvider("overlay", { folder: join(state, "provider") });
  if (isWorkspaceRefusal(opened)) throw new Error(opened.detail);
  provider = opened;
});
afterAll(() => {
  if (environment === undefined) delete process.env["GIT_SSL_CAINFO"];
  else process.env["GIT_SSL_CAINFO"] = environment;
  server.close();
  rmSync(state, { recursive: true, force: true });
});

test("the credential of a repository is used by the provider alone, and is in no argument, file or command", async () => {
  const stop = watchArguments();
  const made = await provider.setup({ config: configOf(`robot:${SECRET}@`) });
  if (isWorkspaceRefusal(made)) throw new Error(made.detail);
  commit("two");
  expect(await made.fetch()).toMatchObject({ repositories: [{ path: "code" }] });
  expect(await stop()).toEqual({ sawGit: true, leaks: [] });
  expect(asked).toBeGreaterThan(3);

  expect(await made.readFile("code/file")).toEqual(new Uint8Array(Buffer.from("two")));
  let output = "";
  const everything =
    "env; git -C code config --list --show-origin; cat code/.git/config; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'";
  await made.exec({ command: everything, onOutput: (chunk) => void (output += Buffer.from(chunk).toString()) });
  expect(output).toContain("PLUMULE_WORKSPACE=");
  expect(output).not.toContain(SECRET);
  const found = execFileSync("sh", [
    "-c",
    'grep -rlaF -e "$1" -e "$2" "$3" || true',
    "sh",
    SECRET,
    AUTHORIZATION.slice(6),
    join(state, "provider"),
  ]);
  expect(found.toString()).toBe("");

  // Whoever opens it later brings the credential again.
  const opened = await provider.open(made.id);
  if (isWorkspaceRefusal(opened)) throw new Error(opened.detail);
  expect(await opened.fetch()).toMatchObject({ refused: "unreachable" });
  expect(await opened.fetch({ config: configOf(`robot:${SECRET}@`) })).toMatchObject({ repositories: [{}] });
  expect(await provider.setup({ config: configOf("robot:wrong@") })).toMatchObject({
    refused: "unreachable",
    detail: expect.not.stringContaining("wrong") as string,
  });
  expect(await made.teardown()).toEqual({ removed: true });
});
