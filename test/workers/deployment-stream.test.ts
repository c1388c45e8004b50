import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  CLOSE_CODES,
  initialWatch,
  isRefusal,
  LIMITS,
  loseConnection,
  makeJobId,
  reduceFrame,
  replyTo,
  runIdOf,
  serverFrameSchema,
  utf8,
  type Assignment,
  type ServerFrame,
  type WatchState,
} from "@plumule/protocol";
import { afterEach, expect, it, vi } from "vitest";
import { deploymentObject, namespaceObject, poolObject } from "../../durable-objects/shared/names.ts";
import { upgrade } from "./stream-harness.ts";

type Stub = ReturnType<typeof deploymentObject>;

/** A page that watches a deployment: it folds frames, answers what has to be answered, and comes back with its cursor. */
type Page = {
  frames: ServerFrame[];
  watch: WatchState;
  closed: number | null;
  mute: boolean;
  send: (frame: unknown) => void;
  cut: () => void;
};

const RUNNER = `did:key:z6Mk${"k".repeat(44)}`;

/** An open namespace: deployments publish to it. */
async function newNamespace(): Promise<string> {
  const id = `stream-${crypto.randomUUID().slice(0, 8)}`;
  await namespaceObject(env, id).open({ id });
  return id;
}

afterEach(() => {
  vi.useRealTimers();
});

async function submit(deployment: Stub): Promise<void> {
  const guard = { idempotencyKey: null, bodySha256: "0".repeat(64), ifMatch: null };
  const body = { task: { kind: "shell" as const, script: "true" } };
  const answer = await deployment.submit({ actor: "token:test", body, guard, dryRun: false });
  if (isRefusal(answer)) throw new Error(answer.detail);
}

/** Has a runner take the deployment's job and acknowledge it. */
async function startRun(namespace: string, deployment: Stub): Promise<Assignment> {
  const plain = { name: "king", systems: ["x86_64-linux"], features: [], labels: [], version: "1", capacity: 1 };
  const offer = { ...plain, isolation: "process-group" as const };
  const body = { requestKey: crypto.randomUUID(), protocol: 1, pool: "default", offer, busy: 0 };
  const assignment = await poolObject(env, namespace, "default").poll({ runner: RUNNER, body });
  if (assignment === null || !("leaseToken" in assignment)) throw new Error("no assignment");
  const { run, leaseToken, epoch } = assignment;
  const beat = await deployment.heartbeat({ run, leaseToken, body: { epoch } });
  if (isRefusal(beat)) throw new Error(beat.detail);
  return assignment;
}

async function open(deployment: Stub, watch: WatchState = initialWatch()): Promise<Page> {
  const response = await deployment.fetch(upgrade());
  const ws = response.webSocket;
  if (ws === null) throw new Error(`no socket: ${response.status}`);
  const page: Page = {
    frames: [],
    watch,
    closed: null,
    mute: false,
    send: (frame) => ws.send(JSON.stringify(frame)),
    cut: () => ws.close(1000, "cut"),
  };
  ws.addEventListener("message", ({ data }) => {
    const frame = serverFrameSchema.parse(JSON.parse(data as string));
    page.frames.push(frame);
    page.watch = reduceFrame(page.watch, frame);
    const reply = replyTo(frame);
    if (reply !== null && !page.mute) page.send(reply);
  });
  ws.addEventListener("close", ({ code }) => {
    page.closed = code;
  });
  ws.accept();
  return page;
}

const follow = (page: Page): void =>
  page.send({ op: "subscribe", id: "a", ...(page.watch.cursor === null ? {} : { since: page.watch.cursor }) });
const untilLive = (page: Page) => vi.waitFor(() => expect(page.watch.phase).toBe("live"), { timeout: 3_000 });
const cursorOf = async (deployment: Stub): Promise<string> => {
  const snapshot = await deployment.read();
  if (isRefusal(snapshot)) throw new Error(snapshot.detail);
  return snapshot.cursor;
};
const untilHead = (page: Page, deployment: Stub) =>
  vi.waitFor(async () => expect(page.watch.cursor).toBe(await cursorOf(deployment)), { timeout: 3_000 });

it("shows every change to a watcher, and what it missed when it was cut off", async () => {
  const deployment = deploymentObject(env, await newNamespace(), "web");
  await submit(deployment);
  const page = await open(deployment);
  follow(page);
  await untilLive(page);
  expect(page.watch.recovered).toBe(false);
  await submit(deployment);
  await untilHead(page, deployment);
  expect(Object.keys(page.watch.jobs)).toHaveLength(2);
  page.cut();
  const missed = page.watch.sequence;
  await submit(deployment);
  await submit(deployment);
  const again = await open(deployment, loseConnection(page.watch));
  follow(again);
  await untilLive(again);
  await untilHead(again, deployment);
  expect(again.watch).toMatchObject({ recovered: true, gaps: 0, duplicates: 0, resets: 0 });
  expect(again.watch.sequence).toBeGreaterThan(missed + 1);
  expect(Object.keys(again.watch.jobs)).toHaveLength(4);
});

it("keeps a socket and its place through an eviction, without a gap or a repeat", async () => {
  const deployment = deploymentObject(env, await newNamespace(), "web");
  await submit(deployment);
  const page = await open(deployment);
  follow(page);
  await untilLive(page);
  for (let round = 0; round < 3; round += 1) {
    await evictDurableObject(deployment);
    await submit(deployment);
    await untilHead(page, deployment);
  }
  expect(page.closed).toBeNull();
  expect(page.watch).toMatchObject({ gaps: 0, duplicates: 0, resets: 0 });
  expect(Object.keys(page.watch.jobs)).toHaveLength(4);
  expect(page.frames.filter(({ op }) => op === "snapshot")).toHaveLength(1);
});

it("sends a run's log as it is written, through an eviction too", async () => {
  const namespace = await newNamespace();
  const deployment = deploymentObject(env, namespace, "web");
  await submit(deployment);
  const { run, leaseToken, epoch } = await startRun(namespace, deployment);
  const page = await open(deployment);
  page.send({ op: "log", id: "l", run });
  const text = (): string => page.frames.map((frame) => (frame.op === "chunk" ? (frame.text ?? "?") : "")).join("");
  await deployment.appendLog({ run, leaseToken, epoch, offset: 0, bytes: utf8("first\n") });
  await vi.waitFor(() => expect(text()).toBe("first\n"));
  await evictDurableObject(deployment);
  await deployment.appendLog({ run, leaseToken, epoch, offset: 6, bytes: utf8("second\n") });
  await vi.waitFor(() => expect(text()).toBe("first\nsecond\n"));
});

it("sends a silent reader no more than its share, closes it when it stays silent, and serves the others", async () => {
  const namespace = await newNamespace();
  const deployment = deploymentObject(env, namespace, "web");
  await submit(deployment);
  const { run, leaseToken, epoch } = await startRun(namespace, deployment);
  const [silent, reader] = [await open(deployment), await open(deployment)];
  silent.mute = true;
  for (const page of [silent, reader]) {
    follow(page);
    page.send({ op: "log", id: "l", run });
  }
  await untilLive(silent);
  const bytes = new Uint8Array(LIMITS.logChunkBytes).fill(0x61);
  const pieces = 8;
  for (let piece = 0; piece < pieces; piece += 1)
    await deployment.appendLog({ run, leaseToken, epoch, offset: piece * bytes.length, bytes });
  const received = (page: Page): number =>
    page.frames.reduce((sum, frame) => sum + (frame.op === "chunk" ? frame.bytes : 0), 0);
  await vi.waitFor(() => expect(received(reader)).toBe(pieces * bytes.length), { timeout: 3_000 });
  expect(received(silent)).toBeLessThanOrEqual(LIMITS.logCreditBytes);
  expect(silent.closed).toBeNull();
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + LIMITS.socketStallMs + 1_000 });
  await submit(deployment);
  await vi.waitFor(() => expect(silent.closed).toBe(CLOSE_CODES.tooSlow));
  await untilHead(reader, deployment);
  expect(reader.closed).toBeNull();
});

it("answers frames that make no sense and stays open", async () => {
  const deployment = deploymentObject(env, await newNamespace(), "web");
  await submit(deployment);
  const page = await open(deployment);
  page.send({ op: "log", id: "l", run: runIdOf(makeJobId(0, new Uint8Array(8)), 1) });
  page.send({ op: "dance", id: "d" });
  await vi.waitFor(() => expect(page.frames.filter(({ op }) => op === "error")).toHaveLength(2));
  expect(page.frames.slice(1)).toMatchObject([
    { op: "error", id: "l", problem: { code: "not-found" } },
    { op: "error", id: "d", problem: { code: "invalid-body" } },
  ]);
  follow(page);
  await untilLive(page);
});

it("closes a socket for a deployment that does not exist, with a code that a page can read", async () => {
  const page = await open(deploymentObject(env, await newNamespace(), "nothing"));
  await vi.waitFor(() => expect(page.closed).toBe(CLOSE_CODES.notFound));
});
