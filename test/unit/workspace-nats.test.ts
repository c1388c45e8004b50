import { spawnSync } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, nkeys, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { WorkspaceDoor } from "../../runner/src/workspace-server/http.ts";
import { piecesOf } from "../../runner/src/workspace-server/nats-messages.ts";
import { serveWorkspacesNats } from "../../runner/src/workspace-server/nats.ts";
import { createWorkspaceService, type WorkspaceService } from "../../runner/src/workspace-server/requests.ts";
import { openWorkspaceProvider } from "../../runner/src/workspace/open.ts";
import { pidsAbout } from "../support/command-line.ts";
import { natsServer, startNats, type TestNats } from "../support/nats.ts";

/** The fields that answers and events have, each of them some. */
type Reply = { id: string; subject: string; output: string; seq: number; text?: string };

const config = { name: "test.123", repositories: [], setupScript: null };
const topic = "workspace.test-123";

it("cuts an event into messages without losing a character", () => {
  const text = "a😀".repeat(1_000);
  const pieces = piecesOf({ event: "output", stream: "merged", text }, 200);
  expect(pieces.every((piece) => JSON.stringify(piece).length <= 200)).toBe(true);
  const texts = pieces.map((piece) => ("text" in piece ? piece.text : ""));
  expect(texts.every((part) => part.isWellFormed())).toBe(true);
  expect(texts.join("")).toBe(text);
  const base64 = Buffer.from(text).toString("base64");
  const bytes = piecesOf({ event: "output", stream: "merged", base64 }, 200).map((piece) =>
    Buffer.from("base64" in piece ? piece.base64 : "", "base64"),
  );
  expect(Buffer.concat(bytes).toString()).toBe(text);
});

it("leaves the client of NATS where it is until somebody serves over NATS", { timeout: 60_000 }, () => {
  const loaded = (then: string): string[] => {
    const index = join(import.meta.dirname, "../../runner/src/index.ts");
    const script = `import { createRequire } from "node:module";
      const { serveWorkspacesNats } = await import(${JSON.stringify(index)});
      ${then}
      console.log(JSON.stringify(Object.keys(createRequire("/").cache).filter((path) => path.includes("@nats-io"))));`;
    const ran = spawnSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" });
    return JSON.parse(ran.stdout) as string[];
  };
  expect(loaded("")).toEqual([]);
  const serve = `await serveWorkspacesNats({ config: { name: "a" } }, { env: { NATS_URL: "http://a" }, say() {} });`;
  expect(loaded(serve).length).toBeGreaterThan(0);
});

describe.skipIf(natsServer === null)(
  `workspaces over NATS${natsServer === null ? " (missing: nats-server)" : ""}`,
  { timeout: 60_000 },
  () => {
    let nats: TestNats;
    let folder: string;
    let service: WorkspaceService;
    let doors: WorkspaceDoor[];
    let client: NatsConnection;
    const said: string[] = [];

    beforeAll(async () => {
      nats = await startNats();
    });
    afterAll(() => nats.remove());
    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "plumule-nats-door-"));
      const provider = await openWorkspaceProvider("local", { folder: join(folder, "state") });
      if ("refused" in provider) throw new Error(provider.detail);
      service = createWorkspaceService(provider, config);
      client = await connect({ servers: nats.url });
      doors = [];
      said.length = 0;
    });
    afterEach(async () => {
      for (const end of [service.stop, service.stop]) end();
      await client.close();
      await Promise.all(doors.map((door) => door.close()));
      await rm(folder, { recursive: true, force: true });
      expect(said.filter((line) => line.includes("fault"))).toEqual([]);
    });

    const open = async (env: Record<string, string> = { NATS_URL: nats.url }): Promise<void> => {
      const door = await serveWorkspacesNats(service, { env, say: (line) => said.push(line) });
      if ("refused" in door) throw new Error(door.refused);
      doors.push(door);
    };
    const ask = async (name: string, body?: unknown): Promise<Reply> => {
      const answer = await client.request(`${topic}.${name}`, body === undefined ? "" : JSON.stringify(body), {
        timeout: 20_000,
      });
      return answer.json<Reply>();
    };
    const exec = async (id: string, body: object): Promise<Reply[]> => {
      const events: Reply[] = [];
      const options = { strategy: "sentinel", maxWait: 30_000 } as const;
      for await (const event of await client.requestMany(`${topic}.${id}.exec`, JSON.stringify(body), options))
        if (event.data.length > 0) events.push(event.json<Reply>());
      return events;
    };

    it("answers on subjects of the server and on a subject of each workspace", async () => {
      await open();
      const announced = client.subscribe(`${topic}.announce`, { max: 1 });
      expect(await ask("health")).toEqual({ healthy: true });
      const made = await ask("setup", { env: { A: "1" } });
      expect(made.subject).toBe(`${topic}.${made.id}`);
      for await (const message of announced)
        expect(message.json()).toEqual({
          channel_topic: topic,
          channel_instance_subject: made.subject,
          initial_message: { id: made.id },
        });
      expect(await ask("list")).toMatchObject({ workspaces: [{ id: made.id }] });
      expect(await ask(`${made.id}.cmd`, { cmd: "exit 4" })).toMatchObject({ exit_code: 4, reason: "exit" });
      const content = Buffer.from("grüße\n").toString("base64");
      expect(await ask(`${made.id}.write_file`, { path: "a/b", content })).toEqual({ success: true });
      const read = await client.request(`${made.subject}.read_file`, JSON.stringify({ path: "a/b" }));
      expect(read.string()).toBe("grüße\n");
      expect(await ask(`${made.id}.cmd_with_output`, { cmd: "cat a/b" })).toMatchObject({ output: "grüße\n" });
      expect(await ask(`${made.id}.teardown`)).toBe(true);
      await expect(ask(`${made.id}.cmd`, { cmd: "true" })).rejects.toThrow("no responders");
    });

    it("refuses with a problem document and the headers of a NATS service", async () => {
      await open();
      const { id } = await ask("setup");
      const refused = await client.request(`${topic}.${id}.cmd`, JSON.stringify({ cmd: 1 }));
      expect(refused.headers?.get("Nats-Service-Error-Code")).toBe("400");
      expect(refused.headers?.get("Nats-Service-Error")).toBe("The body is not valid");
      expect(refused.json()).toMatchObject({ code: "invalid-body", errors: [{ pointer: "/cmd" }] });
      expect(await ask(`${id}.format_disk`)).toMatchObject({ status: 404 });
      expect(await ask(`${id}.read_file`, { path: "../../meta.json" })).toMatchObject({ status: 400 });
      expect(await exec(id, { cmd: "true", timeout: 0 })).toMatchObject([{ status: 400 }]);
    });

    it("streams numbered events, and cuts what one message does not carry", async () => {
      await open();
      const { id } = await ask("setup");
      const events = await exec(id, { cmd: "echo begin; head -c 600000 /dev/zero; echo end; exit 3" });
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
      expect(events[0]).toMatchObject({ event: "started" });
      const text = events.map((event) => event.text ?? "").join("");
      expect(text).toBe(`begin\n${"\0".repeat(600_000)}end\n`);
      expect(events.at(-1)).toMatchObject({ event: "exit", exit_code: 3 });
      const answer = await ask(`${id}.cmd_with_output`, { cmd: "echo begin; head -c 600000 /dev/zero; echo end" });
      expect(answer.output).toMatch(/^begin\n\0+\n\[\d+ bytes are left out here\]\n\0+end\n$/);
      await ask(`${id}.cmd`, { cmd: "head -c 2000000 /dev/zero >big" });
      expect(await ask(`${id}.read_file`, { path: "big" })).toMatchObject({ code: "payload-too-large" });
    });

    it("ends everything that a command started when nobody hears it any more", async () => {
      await open();
      const { id } = await ask("setup");
      const mark = `unheard-${process.pid}-${Date.now()}`;
      const cmd = `: ${mark}; setsid sleep 300 & while :; do echo tick; sleep 0.1; done`;
      const inbox = "_INBOX.somebody";
      const heard = client.subscribe(inbox);
      client.publish(`${topic}.${id}.exec`, JSON.stringify({ cmd, env: { MARK: mark } }), { reply: inbox });
      for await (const message of heard) if (message.json<Reply>().text === "tick\n") break;
      expect(pidsAbout(mark).length).toBeGreaterThan(1);
      heard.unsubscribe();
      await expect.poll(() => pidsAbout(mark), { timeout: 30_000 }).toEqual([]);
    });

    it("finds its workspaces again after a restart, and its server after an outage", async () => {
      await open();
      const { id } = await ask("setup");
      await Promise.all(doors.splice(0).map((door) => door.close()));
      await expect(ask(`${id}.cmd`, { cmd: "true" })).rejects.toThrow("no responders");
      await open();
      expect(await ask(`${id}.cmd`, { cmd: "true" })).toMatchObject({ exit_code: 0 });
      await nats.stop();
      await expect.poll(() => said, { timeout: 20_000 }).toContainEqual(expect.stringContaining("away"));
      await nats.start();
      await expect.poll(() => said, { timeout: 30_000 }).toContainEqual(expect.stringContaining("back"));
      await client.close();
      client = await connect({ servers: nats.url });
      expect(await ask(`${id}.cmd`, { cmd: "true" })).toMatchObject({ exit_code: 0 });
    });

    it("shares the work of setting up with other servers of its subject", async () => {
      await open();
      await open();
      const ids = await Promise.all(Array.from({ length: 6 }, async () => (await ask("setup")).id));
      for (const id of ids) expect(await ask(`${id}.cmd`, { cmd: "true" })).toMatchObject({ exit_code: 0 });
    });

    it("connects as the environment says, with keys that nobody else can read", async () => {
      const user = nkeys.createUser();
      const guarded = await startNats(
        `authorization { users = [{ nkey: ${user.getPublicKey()} }, { user: ada, password: "p@ss" }] }`,
      );
      try {
        const file = join(folder, "user.nk");
        await writeFile(file, user.getSeed(), { mode: 0o644 });
        const serve = (env: Record<string, string>): ReturnType<typeof serveWorkspacesNats> =>
          serveWorkspacesNats(service, { env: { NATS_URL: guarded.url, ...env }, say: () => {} });
        expect(await serve({})).toEqual({ refused: expect.stringMatching(/authorization/i) });
        expect(await serve({ NATS_NKEY: file })).toEqual({ refused: expect.stringContaining("run chmod 600") });
        expect(await serve({ NATS_CREDS: join(folder, "none") })).toEqual({
          refused: expect.stringContaining("NATS_CREDS"),
        });
        await chmod(file, 0o600);
        const withUser = guarded.url.replace("//", "//ada:p%40ss@");
        for (const env of [{ NATS_NKEY: file }, { NATS_URL: withUser }, { NATS_USER: "ada", NATS_PASSWORD: "p@ss" }]) {
          const door = await serve(env);
          expect(door).toMatchObject({ address: `${topic} at ${new URL(guarded.url).host}` });
          if (!("refused" in door)) await door.close();
        }
        expect(await serve({ NATS_URL: "http://example.org" })).toEqual({
          refused: expect.stringContaining("nats://"),
        });
        expect(await serve({ NATS_URL: "nats://127.0.0.1:1" })).toEqual({
          refused: expect.stringContaining("refused"),
        });
      } finally {
        await guarded.remove();
      }
    });
  },
);
