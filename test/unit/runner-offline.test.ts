import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import {
  call,
  didKeyOf,
  type Envelope,
  getLog,
  LIMITS,
  type PollBody,
  problemOf,
  refuse,
  type ResultBody,
  type Signer,
} from "@plumule/protocol";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Broker, connectBroker, type Lease } from "../../runner/src/broker.ts";
import type { Input } from "../../runner/src/core/model.ts";
import { createHeartbeat } from "../../runner/src/heartbeat.ts";
import { monotonicMs } from "../../runner/src/process-identity.ts";
import { openSpool } from "../../runner/src/spool.ts";

const DAY_MS = 86_400_000;
const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const signer: Signer = {
  publicKey: publicKey.export({ type: "spki", format: "der" }).subarray(-32),
  sign: async (message) => sign(null, message, privateKey),
};
const at = { baseUrl: "https://broker.example", namespace: "me", runner: didKeyOf(signer.publicKey), signer };
const lease: Lease = { namespace: "me", deployment: "web", run: "r", epoch: 1, leaseToken: "t" };

const page = async (): Promise<Response> =>
  new Response("<html>Please sign in to this network</html>", { headers: { "content-type": "text/html" } });

describe("a page with status 200, where a proxy stands in for the broker", () => {
  it.each<[string, (broker: Broker) => Promise<{ ok: boolean; retry?: boolean }>]>([
    ["a session", (broker) => broker.pool()],
    ["a poll", (broker) => broker.poll({} as PollBody, AbortSignal.timeout(1_000))],
    ["a recipient", (broker) => broker.publish({} as Envelope)],
    ["a heartbeat", (broker) => broker.heartbeat(lease, {})],
    ["events", (broker) => broker.report(lease, { number: 1 } as Parameters<Broker["report"]>[1])],
    ["a log", (broker) => broker.appendLog(lease, 0, new Uint8Array(1))],
    ["a result", (broker) => broker.result(lease, {} as ResultBody)],
  ])("is tried again: %s", async (_, ask) => {
    expect(await ask(connectBroker({ ...at, fetch: page }))).toMatchObject({ ok: false, retry: true });
  });

  it("is no log of a run either, though a log is any bytes", async () => {
    const answer = await call({ fetch: page, baseUrl: at.baseUrl }, getLog, { params: { ns: "me", run: "r" } });
    expect(answer).toMatchObject({ ok: false, status: 502 });
  });
});

describe("a log", () => {
  const bytes = Buffer.alloc(LIMITS.logUnpackedBytes, "a line as a job prints it\n");
  /** A broker that answers as told, and what it was sent. */
  const brokerThat = (takesPacked: boolean): { broker: Broker; sent: { encoding: string | null; size: number }[] } => {
    const sent: { encoding: string | null; size: number }[] = [];
    const fetch = async (_: string, init: RequestInit): Promise<Response> => {
      const encoding = new Headers(init.headers).get("content-encoding");
      const body = init.body as Uint8Array;
      sent.push({ encoding, size: body.length });
      if (encoding !== null && !takesPacked)
        return Response.json(problemOf(refuse("unsupported-media-type", "not taken")), { status: 415 });
      return Response.json({ bytes: encoding === null ? body.length : zstdDecompressSync(body).length });
    };
    return { broker: connectBroker({ ...at, fetch }), sent };
  };

  it("is sent packed, but for what would not be less", async () => {
    const { broker, sent } = brokerThat(true);
    expect(await broker.appendLog(lease, 0, bytes)).toEqual({ ok: true, value: { bytes: bytes.length } });
    await broker.appendLog(lease, 0, randomBytes(9_000));
    await broker.appendLog(lease, 0, randomBytes(LIMITS.logUnpackedBytes));
    expect(sent).toEqual([
      { encoding: "zstd", size: expect.any(Number) as number },
      { encoding: null, size: 9_000 },
      { encoding: null, size: LIMITS.logAppendBytes },
    ]);
    expect(sent[0]?.size).toBeLessThan(bytes.length / 5);
  });

  it("is sent as version 1 does to a broker that was rolled back", async () => {
    const { broker, sent } = brokerThat(false);
    const taken = { ok: true, value: { bytes: LIMITS.logChunkBytes } };
    expect(await broker.appendLog(lease, 0, bytes)).toEqual(taken);
    expect(await broker.appendLog(lease, 0, bytes)).toEqual(taken);
    expect(sent.map(({ encoding }) => encoding)).toEqual(["zstd", null, null]);
  });
});

describe.each([DAY_MS, -DAY_MS])("a clock that is set by %i ms", (jumpMs) => {
  afterEach(() => vi.useRealTimers());
  const jump = (): void => {
    vi.useFakeTimers({ toFake: ["Date"] });
    vi.setSystemTime(Date.now() + jumpMs);
  };

  it.each([true, false])("ends no session, with a date of the broker's or without: %s", async (dated) => {
    const asked: string[] = [];
    const json = (status: number, body: unknown): Response =>
      new Response(status === 204 ? null : JSON.stringify(body), {
        status,
        headers: dated ? { date: new Date().toUTCString() } : {},
      });
    const fetch = async (url: string, { body }: RequestInit): Promise<Response> => {
      asked.push(url.slice(url.lastIndexOf("/") + 1));
      if (url.endsWith("/poll")) return json(204, null);
      const expiresAt = new Date(Date.now() + 900_000).toISOString();
      if (JSON.stringify(body).includes("proof")) return json(201, { token: "s", pool: "default", expiresAt });
      return json(200, { audience: `${at.baseUrl}/v1/me`, challenge: "c".repeat(43), expiresAt });
    };
    const broker = connectBroker({ ...at, fetch });
    const poll = (): Promise<unknown> => broker.poll({} as PollBody, AbortSignal.timeout(1_000));
    expect(await poll()).toMatchObject({ ok: true });
    jump();
    expect(await poll()).toMatchObject({ ok: true });
    expect(asked).toEqual(["session", "session", "poll", "poll"]);
  });

  it("neither ends nor lengthens a lease", async () => {
    const told: Input[] = [];
    const heartbeat = createHeartbeat({
      broker: { heartbeat: async () => ({ ok: true, value: { leaseMs: 45_000, command: null } }) },
      assignment: { ...lease, acknowledgeMs: 30_000 },
      isolation: "bwrap",
      leaseUntil: null,
      left: new AbortController().signal,
      tell: (input) => void told.push(input),
    });
    await heartbeat({ do: "heartbeat", run: "r", first: true, seenCommand: 0 });
    jump();
    await heartbeat({ do: "heartbeat", run: "r", first: false, seenCommand: 0 });
    const untils = told.map((input) =>
      input.type === "heartbeat accepted" ? input.untilMs - monotonicMs() : Number.NaN,
    );
    expect(untils).toHaveLength(2);
    for (const leftMs of untils) expect(Math.abs(leftMs - 45_000)).toBeLessThan(10_000);
  });
});

it("logs that wait take the room of new work, and never that of a result", async () => {
  const folder = await mkdtemp(join(tmpdir(), "plumule-offline-"));
  try {
    const parse = (value: unknown): { log: number } => value as { log: number };
    const spool = await openSpool(folder, parse, 1_000, ({ log }) => log);
    expect(await spool.put("one", { log: 5_000 })).toEqual({ ok: true });
    expect(spool.freeBytes()).toBeLessThan(0);
    expect(await spool.put("two", { log: 1 })).toEqual({ ok: true });
    await spool.remove("one");
    expect(spool.freeBytes()).toBeGreaterThan(900);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
