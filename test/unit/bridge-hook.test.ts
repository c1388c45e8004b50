import { execFile } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { chmod, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Push } from "@plumule/protocol";

const run = promisify(execFile);
const hook = join(import.meta.dirname, "../../bridge/src/post-receive.ts");
const job = "0199c0de-7a11-7000-9b1f-3b0f6a2d9e10";

let folder: string;
let broker: Server;
let pushes: Push[];
let status: number;

beforeEach(async () => {
  [pushes, status] = [[], 202];
  folder = await mkdtemp(join(tmpdir(), "plumule-hook-"));
  broker = createServer((request, response) => {
    void buffer(request).then((body) => {
      pushes.push(JSON.parse(body.toString()) as Push);
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(status === 202 ? delivery(request.headers["webhook-id"]) : {}));
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => broker.once("listening", resolve));
  await git("init", "--quiet", "--bare", "--initial-branch=main", "origin.git");
  await git("clone", "--quiet", "origin.git", "work");
  const { privateKey } = generateKeyPairSync("ed25519");
  await writeFile(join(folder, "key.pem"), privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  const script = `#!/bin/sh\nexec '${process.execPath}' '${hook}'\n`;
  await writeFile(join(folder, "origin.git/hooks/post-receive"), script, { mode: 0o755 });
  for (const [name, value] of Object.entries({ url: url(), namespace: "acme", key: join(folder, "key.pem") }))
    await git("-C", "origin.git", "config", `plumule.${name}`, value);
});
afterEach(async () => {
  broker.close();
  await rm(folder, { recursive: true, force: true });
});

function url(): string {
  return `http://127.0.0.1:${(broker.address() as AddressInfo).port}`;
}

function delivery(webhookId: unknown): object {
  const results = [{ trigger: "main", deployment: "app", job, detail: "submitted" }];
  const rest = { hook: "git", signer: "did:key:z", type: "push", repository: null, ref: null, after: null };
  return { id: "d", webhookId, receivedAt: new Date().toISOString(), state: "submitted", results, ...rest };
}

/** Runs git for a person without configuration of their own; answers what the person reads. */
async function git(...args: string[]): Promise<string> {
  const person = {
    GIT_AUTHOR_NAME: "a",
    GIT_AUTHOR_EMAIL: "a@example.org",
    GIT_COMMITTER_NAME: "a",
    GIT_COMMITTER_EMAIL: "a@example.org",
  };
  const { PATH } = process.env;
  const env = { PATH, HOME: folder, GIT_CONFIG_NOSYSTEM: "1", ...person };
  const { stdout, stderr } = await run("git", args, { cwd: folder, env });
  return stdout + stderr;
}

async function push(message: string, ref = "HEAD:refs/heads/main"): Promise<string> {
  await git("-C", "work", "commit", "--quiet", "--allow-empty", "--message", message);
  return git("-C", "work", "push", "origin", ref);
}

describe("a post-receive hook", () => {
  it("tells the broker what was pushed, and the person which job came of it", async () => {
    const output = await push("grow");
    const commit = (await git("-C", "work", "rev-parse", "HEAD")).trim();
    expect(pushes).toMatchObject([
      {
        type: "push",
        audience: `${url()}/v1/acme`,
        repository: `file://${folder}/origin.git`,
        ref: "refs/heads/main",
        before: "0".repeat(40),
        after: commit,
        message: "grow",
      },
    ]);
    expect(output).toContain(`plumule: refs/heads/main ${commit.slice(0, 7)} → job ${job} queued: ${url()}/`);
  });

  it("tells every ref of one push", async () => {
    await push("grow", "HEAD:refs/heads/main");
    await git("-C", "work", "tag", "v1");
    await git("-C", "work", "push", "origin", "v1", "HEAD:refs/heads/other");
    expect(pushes.map(({ type, ref }) => `${type} ${ref}`).toSorted()).toEqual([
      "push refs/heads/main",
      "push refs/heads/other",
      "tag refs/tags/v1",
    ]);
  });

  it("tells which paths a push changes, and nothing of them for a new branch", async () => {
    await push("grow");
    await writeFile(join(folder, "work/leaf"), "green");
    await git("-C", "work", "add", "leaf");
    await push("leaf");
    expect(pushes.map(({ paths }) => paths)).toEqual([undefined, ["leaf"]]);
  });

  it("tells the commit that an annotated tag leads to", async () => {
    await push("grow");
    await git("-C", "work", "tag", "--annotate", "--message", "release", "v1");
    await git("-C", "work", "push", "origin", "v1");
    const commit = (await git("-C", "work", "rev-parse", "HEAD")).trim();
    expect(pushes.at(-1)).toMatchObject({ type: "tag", ref: "refs/tags/v1", after: commit, message: "grow" });
  });

  it(
    "keeps what a broker that is away has not taken, and sends it before the next push",
    { timeout: 30_000 },
    async () => {
      status = 503;
      expect(await push("first")).toContain("kept for the next push");
      const attempts = pushes.length;
      status = 202;
      expect(await push("second")).toContain("an earlier push");
      expect(pushes.slice(attempts).map(({ message }) => message)).toEqual(["first", "second"]);
      expect(await readdir(join(folder, "origin.git/plumule"))).toEqual(["number"]);
    },
  );

  it("never fails the push, and says what is missing", async () => {
    await git("-C", "origin.git", "config", "--unset", "plumule.url");
    expect(await push("grow")).toContain("git config plumule.url");
    expect((await git("-C", "origin.git", "log", "--format=%s", "main")).trim()).toBe("grow");
  });

  it("does not use a key that others may read", async () => {
    await chmod(join(folder, "key.pem"), 0o644);
    expect(await push("grow")).toContain("chmod 600");
    expect(pushes).toEqual([]);
  });
});
