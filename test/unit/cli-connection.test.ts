import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getHealth, problemOf, refuse } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectTo, findPlace } from "../../cli/src/connection.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "plumule-cli-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function put(path: string, value: unknown, mode = 0o600): Promise<void> {
  await mkdir(join(root, path, ".."), { recursive: true });
  await writeFile(join(root, path), typeof value === "string" ? value : JSON.stringify(value));
  await chmod(join(root, path), mode);
}

const DEV = { url: "http://localhost:8787", namespace: "local", token: "plm_dev", adminToken: "x", pid: 1 };
const find = (
  more: { flags?: object; env?: Record<string, string>; folder?: string } = {},
): ReturnType<typeof findPlace> =>
  findPlace({
    flags: more.flags ?? {},
    env: { XDG_CONFIG_HOME: join(root, "config"), ...more.env },
    cwd: join(root, more.folder ?? "."),
  });

describe("the broker is found", () => {
  it("in dev.json of the folder or of one above it", async () => {
    await put(".plumule/dev.json", DEV);
    await mkdir(join(root, "a/b"), { recursive: true });
    expect(await find({ folder: "a/b" })).toEqual({
      url: DEV.url,
      namespace: "local",
      token: "plm_dev",
      foundIn: join(root, ".plumule/dev.json"),
    });
  });

  it("in the person's own configuration when there is no dev.json", async () => {
    await put("config/plumule/config.json", { url: "https://plumule.example/", namespace: "team", token: "plm_me" });
    expect(await find()).toMatchObject({ url: "https://plumule.example", namespace: "team", token: "plm_me" });
  });

  it("by flags before variables before files", async () => {
    await put(".plumule/dev.json", DEV);
    const env = { PLUMULE_NAMESPACE: "env", PLUMULE_TOKEN: "plm_env" };
    expect(await find({ env })).toMatchObject({ url: DEV.url, namespace: "env", token: "plm_env" });
    expect(await find({ env, flags: { namespace: "flag", token: "plm_flag" } })).toMatchObject({
      namespace: "flag",
      token: "plm_flag",
    });
  });

  it("and no token of a file is ever sent to another broker", async () => {
    await put(".plumule/dev.json", DEV);
    expect(await find({ flags: { url: "https://elsewhere.example", namespace: "local" } })).toMatchObject({
      url: "https://elsewhere.example",
      token: undefined,
    });
    expect(await find({ env: { PLUMULE_URL: "https://elsewhere.example" } })).toMatchObject({
      exit: 2,
      what: "No namespace is known",
    });
  });

  it("or it is said how to name one", async () => {
    expect(await find()).toMatchObject({
      exit: 2,
      what: "No broker is known",
      next: expect.stringContaining("PLUMULE_URL"),
    });
  });

  it.each([["ftp://x"], ["localhost:8787"], ["what"]])("but not at %s", async (url) => {
    expect(await find({ flags: { url, namespace: "local" } })).toMatchObject({
      exit: 2,
      what: expect.stringContaining("not the URL"),
    });
  });

  it("but not in a file that others may read, nor in one that is damaged", async () => {
    await put(".plumule/dev.json", DEV, 0o644);
    expect(await find()).toMatchObject({ exit: 2, next: expect.stringContaining("chmod 600") });
    await put(".plumule/dev.json", "{", 0o600);
    expect(await find()).toMatchObject({ exit: 2, what: expect.stringContaining("cannot be read") });
    const flags = { url: "http://localhost:1", namespace: "local", token: "plm_x" };
    expect(await find({ flags })).toMatchObject(flags);
  });
});

describe("asking a broker", () => {
  let server: Server;
  let answers: { status: number; body: unknown }[] = [];
  let asked = 0;
  beforeEach(async () => {
    asked = 0;
    server = createServer((_, response) => {
      const answer = answers[Math.min(asked, answers.length - 1)]!;
      asked += 1;
      response.writeHead(answer.status, { "content-type": "application/json" }).end(JSON.stringify(answer.body));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  afterEach(() => new Promise((resolve) => server.close(resolve)));
  const ask = (): Promise<unknown> =>
    connectTo({
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      namespace: "local",
      token: undefined,
      foundIn: "--url",
    }).ask(getHealth, { params: {} });
  const problem = (code: "unavailable" | "forbidden"): { status: number; body: unknown } => {
    const body = problemOf(refuse(code, "because"));
    return { status: body.status, body };
  };

  it("gives the answer, parsed", async () => {
    answers = [{ status: 200, body: { ok: true } }];
    expect(await ask()).toMatchObject({ status: 200, body: { ok: true } });
  });

  it("asks again when the broker was only busy", async () => {
    answers = [problem("unavailable"), { status: 200, body: { ok: true } }];
    expect([await ask(), asked]).toMatchObject([{ status: 200 }, 2]);
  });

  it("takes a refusal for an answer", async () => {
    answers = [problem("forbidden")];
    expect([await ask(), asked]).toMatchObject([{ exit: 3, why: "because" }, 1]);
  });

  it("says that a broker which is not there cannot be reached, and where its address came from", async () => {
    const gone = connectTo({
      url: "http://127.0.0.1:9",
      namespace: "local",
      token: undefined,
      foundIn: "/x/.plumule/dev.json",
    });
    expect(await gone.ask(getHealth, { params: {} })).toMatchObject({
      exit: 69,
      why: expect.stringContaining("dev.json"),
      next: expect.stringContaining("npm start"),
    });
  });
});
