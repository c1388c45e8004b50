import type { AuditItem, ExecCall, ExecSession } from "@plumule/protocol";
import { EXEC_CHANNELS, EXEC_FEATURE, EXEC_SUBPROTOCOL, execBytes, LIMITS } from "@plumule/protocol";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type Ask,
  ask,
  newRunner,
  newTenant,
  pollBody,
  problemIn,
  type Runner,
  settled,
  storedBy,
  takeJob,
  type Tenant,
  told,
} from "./edge-harness.ts";

let tenant: Tenant;
let runner: Runner;
let run: string;
let auditedBefore = 0;
beforeAll(async () => {
  tenant = await newTenant();
  runner = await newRunner(tenant);
  const body = { task: { kind: "shell", script: "true" } };
  await told(ask("POST", `${tenant.at}/deployments/web/jobs`, { token: tenant.tokens.submit, body }), 202);
  run = (await takeJob(tenant, runner)).run;
  await settled(tenant);
});
beforeEach(async () => {
  auditedBefore = (await allAudited()).length;
});
/** Nobody stays in the workspace, so that the next one may come. */
const ends: End[] = [];
afterEach(async () => {
  for (const { socket } of ends) socket.close();
  await Promise.all(ends.splice(0).map(({ closed }) => closed));
});

const by = (scope: keyof Tenant["tokens"], more: Ask = {}): Ask => ({ token: tenant.tokens[scope], ...more });
const opening = (more: Ask = by("operate")): Promise<Response> => ask("POST", `${tenant.at}/runs/${run}/exec`, more);

/** A poll of the runner, which lets people in. */
function poll(waitMs: number, features: string[] = [EXEC_FEATURE]): Promise<Response> {
  const plain = pollBody(waitMs) as { offer: object };
  return ask("POST", `${tenant.at}/poll`, {
    token: runner.session,
    body: { ...plain, busy: 1, offer: { ...plain.offer, features } },
  });
}

type End = { socket: WebSocket; heard: (string | number[])[]; closed: Promise<{ code: number; reason: string }> };
async function join(token: string): Promise<End> {
  const headers = { upgrade: "websocket", "sec-websocket-protocol": `${EXEC_SUBPROTOCOL}, exec.${token}` };
  const answer = await ask("GET", `${tenant.at}/deployments/web/runs/${run}/exec`, { headers });
  const socket = answer.webSocket;
  if (answer.status !== 101 || socket === null) throw new Error(`${answer.status}: ${await answer.text()}`);
  socket.binaryType = "arraybuffer";
  const heard: End["heard"] = [];
  socket.addEventListener("message", ({ data }) => {
    heard.push(typeof data === "string" ? data : [...new Uint8Array(data as ArrayBuffer)]);
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) =>
    socket.addEventListener("close", ({ code, reason }) => resolve({ code, reason })),
  );
  socket.accept();
  const end = { socket, heard, closed };
  ends.push(end);
  return end;
}

/** What the runner hears first. */
const BEGIN = `{"op":"begin"}`;
/** Both ends of a session. */
async function meet(body: unknown = {}): Promise<{ person: End; king: End; call: ExecCall; session: ExecSession }> {
  const polled = poll(5_000);
  await vi.waitFor(async () => expect(await parked()).toBe(1), { timeout: 5_000 });
  const session = await told<ExecSession>(opening(by("operate", { body })), 201);
  const call = await told<ExecCall>(polled, 202);
  return { session, call, person: await join(session.token), king: await join(call.token) };
}
async function parked(): Promise<number> {
  return (await told<{ parkedCount: number }>(ask("GET", `${tenant.at}/queue`, by("read")), 200)).parkedCount;
}
type Row = { action: string; actor: string; target: string; detail: string };
/** What the audit log says of sessions since the test began. */
async function audited(): Promise<Row[]> {
  return (await allAudited()).slice(auditedBefore);
}
async function allAudited(): Promise<Row[]> {
  const { items } = await told<{ items: AuditItem[] }>(ask("GET", `${tenant.at}/audit`, by("admin")), 200);
  const rows = items.flatMap((item) => ("entry" in item ? [JSON.parse(item.entry) as Row] : []));
  return rows.filter(({ action }) => action.startsWith("exec."));
}

describe("a session in the workspace of a run", () => {
  it("joins a person and the runner, passes on what they say, and is in the audit log with its end", async () => {
    const argv = ["cat", "a b"];
    const { person, king, call, session } = await meet({ argv, terminal: { columns: 80, rows: 24, term: "xterm" } });
    expect(call).toMatchObject({ exec: session.session, run, deployment: "web", argv, terminal: { columns: 80 } });
    king.socket.send(JSON.stringify({ op: "started", terminal: true, isolation: "bwrap", workspace: "running" }));
    person.socket.send(execBytes(EXEC_CHANNELS.input, new Uint8Array([1, 2])));
    person.socket.send(JSON.stringify({ op: "resize", columns: 100, rows: 30 }));
    await vi.waitFor(() => expect(king.heard).toEqual([BEGIN, [0, 1, 2], `{"op":"resize","columns":100,"rows":30}`]));
    king.socket.send(execBytes(EXEC_CHANNELS.output, new Uint8Array([3])));
    king.socket.send(JSON.stringify({ op: "exit", code: 7, detail: null }));
    await vi.waitFor(() => expect(person.heard).toHaveLength(3));
    expect(person.heard[1]).toEqual([1, 3]);
    king.socket.close(1000);
    expect((await person.closed).reason).toBe("the runner left");
    await vi.waitFor(async () => expect(await audited()).toHaveLength(2), { timeout: 5_000 });
    const [opened, closed] = await audited();
    expect(opened).toMatchObject({ action: "exec.opened", target: `runs/${run}` });
    expect(opened?.actor).toMatch(/^token:/);
    expect(opened?.detail).toContain(`on ${runner.id}: ["cat","a b"]`);
    expect(closed).toMatchObject({ action: "exec.closed", actor: opened?.actor });
    expect(closed?.detail).toMatch(/^ended with 7, after \d+ s$/);
    // Another one may be opened now.
    await meet();
  });

  it("comes to a runner that is between two polls", async () => {
    expect((await poll(0)).status).toBe(204);
    const session = await told<ExecSession>(opening(), 201);
    expect(await told<ExecCall>(poll(0), 202)).toMatchObject({ exec: session.session });
    expect((await poll(0)).status).toBe(204);
    await join(session.token);
  });

  it("is one at a time", async () => {
    await meet();
    const problem = await problemIn(await opening());
    expect([problem.code, problem.detail]).toEqual(["busy", expect.stringMatching(/^token:\S+ is in a session/)]);
  });

  it("stores nothing of what is said", async () => {
    const { person, king } = await meet();
    await vi.waitFor(async () => expect((await audited()).at(-1)?.action).toBe("exec.opened"));
    const before = await storedBy(tenant);
    king.socket.send(execBytes(EXEC_CHANNELS.output, new TextEncoder().encode("a secret word")));
    await vi.waitFor(() => expect(person.heard).toHaveLength(1));
    expect(await storedBy(tenant)).toEqual(before);
  });

  it("ends when the right of the person has ended", async () => {
    const body = { name: "t", scopes: ["operate"] };
    const made = await told<{ id: string; token: string }>(
      ask("POST", `${tenant.at}/tokens`, by("admin", { body })),
      201,
    );
    expect((await poll(0)).status).toBe(204);
    const session = await told<ExecSession>(opening({ token: made.token }), 201);
    const person = await join(session.token);
    await told(poll(0), 202);
    expect((await ask("DELETE", `${tenant.at}/tokens/${made.id}`, by("admin"))).status).toBe(204);
    expect(await person.closed).toMatchObject({ code: 4403 });
  });

  it.each<[string, "person" | "king", (socket: WebSocket) => void, number]>([
    ["a channel of the other side", "person", (socket) => socket.send(execBytes(1, new Uint8Array(1))), 4400],
    ["a frame of the other side", "king", (socket) => socket.send(`{"op":"end-of-input"}`), 4400],
    ["what is no JSON", "person", (socket) => socket.send("{"), 4400],
    ["an empty frame", "king", (socket) => socket.send(new Uint8Array(0)), 4400],
    [
      "a frame that is too large",
      "king",
      (socket) => socket.send(execBytes(1, new Uint8Array(LIMITS.execFrameBytes + 1))),
      4400,
    ],
    [
      "more than was confirmed",
      "king",
      (socket) => {
        for (let sent = 0; sent <= LIMITS.execWindowBytes; sent += LIMITS.execFrameBytes)
          socket.send(execBytes(1, new Uint8Array(LIMITS.execFrameBytes)));
      },
      1013,
    ],
  ])("ends for both when one sends %s", async (_, who, send, code) => {
    const both = await meet();
    send(both[who].socket);
    expect((await both.person.closed).code).toBe(code);
    expect((await both.king.closed).code).toBe(code);
  });

  it("goes on as long as what was sent is confirmed", async () => {
    const { person, king } = await meet();
    const bytes = LIMITS.execFrameBytes;
    for (let frame = 1; frame <= 20; frame += 1) {
      king.socket.send(execBytes(1, new Uint8Array(bytes)));
      await vi.waitFor(() => expect(person.heard).toHaveLength(frame));
      person.socket.send(JSON.stringify({ op: "ack", bytes }));
      await vi.waitFor(() => expect(king.heard).toHaveLength(1 + frame));
    }
  });
});

describe("nobody is let in", () => {
  it.each(["read", "submit"] as const)("with the scope %s", async (scope) => {
    expect((await poll(0)).status).toBe(204);
    expect((await problemIn(await opening(by(scope)))).code).toBe("forbidden");
    expect(await audited()).toEqual([]);
  });

  it("where the owner of the runner does not allow it", async () => {
    expect((await poll(0, [])).status).toBe(204);
    const problem = await problemIn(await opening());
    expect([problem.status, problem.code, problem.next]).toEqual([
      403,
      "forbidden",
      "Its owner may allow it: `plumule runner start --allow-exec`.",
    ]);
    // The next one is not told that somebody is in there.
    expect((await problemIn(await opening())).code).toBe("forbidden");
  });

  it("of another namespace, or confined to other deployments", async () => {
    const foreign = await newTenant();
    const there = await ask("POST", `${foreign.at}/runs/${run}/exec`, { token: foreign.tokens.admin });
    expect((await problemIn(there)).code).toBe("not-found");
    const body = { name: "t", scopes: ["operate"], deployments: ["blog"] };
    const { token } = await told<{ token: string }>(ask("POST", `${tenant.at}/tokens`, by("admin", { body })), 201);
    expect((await problemIn(await opening({ token }))).code).toBe("not-found");
  });

  it("to a run that has not begun, that is not there, or whose runner is away", async () => {
    const body = { task: { kind: "shell", script: "true" } };
    await told(ask("POST", `${tenant.at}/deployments/blog/jobs`, by("submit", { body })), 202);
    const assigned = await told<{ run: string }>(poll(2_000), 200);
    await settled(tenant);
    const begun = await ask("POST", `${tenant.at}/runs/${assigned.run}/exec`, by("operate"));
    expect((await problemIn(begun)).code).toBe("wrong-state");
    const absent = await ask("POST", `${tenant.at}/runs/${run.replace(/.{3}$/, "abc")}/exec`, by("operate"));
    expect((await problemIn(absent)).code).toBe("not-found");
  });

  it("with a token that is made up, or used", async () => {
    const { session, person, king } = await meet();
    for (const token of ["x", session.token, session.session]) {
      const other = await join(token);
      expect((await other.closed).code).toBe(4401);
    }
    person.socket.close();
    expect((await king.closed).reason).toBe("the person left");
    expect((await (await join(session.token)).closed).code).toBe(4401);
    const plain = await ask("GET", `${tenant.at}/deployments/web/runs/${run}/exec`);
    expect((await problemIn(plain)).code).toBe("upgrade-required");
  });

  it.each([
    [{ argv: "ls" }, "/argv"],
    [{ argv: ["a\0b"] }, "/argv/0"],
    [{ argv: Array.from({ length: LIMITS.execArguments + 1 }, () => "x") }, "/argv"],
    [{ terminal: { columns: 0, rows: 1, term: "xterm" } }, "/terminal/columns"],
    [{ terminal: { columns: 1, rows: 1, term: "a;b" } }, "/terminal/term"],
    [{ shell: true }, "/shell"],
  ])("with the request %j", async (body, pointer) => {
    const problem = await problemIn(await opening(by("operate", { body })));
    expect([problem.code, problem.errors?.[0]?.pointer]).toEqual(["invalid-body", pointer]);
  });
});
