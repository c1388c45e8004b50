import { CLOSE_CODES, LIMITS, PROTOCOL_VERSION, utf8, type ServerFrame } from "@plumule/protocol";
import { afterEach, expect, it, vi } from "vitest";
import { cursorAt } from "#durable-objects/shared/cursor.ts";
import { inStream, RUN, upgrade, type Client } from "./stream-harness.ts";

const SUBSCRIBE = { op: "subscribe", id: "a" } as const;

afterEach(() => {
  vi.useRealTimers();
});

const is = (op: ServerFrame["op"]) => (frame: ServerFrame) => frame.op === op;
const ops = (client: Client): string[] => client.frames.map((frame) => frame.op);
const sequences = (client: Client): number[] =>
  client.frames.flatMap((frame) => (frame.op === "events" ? frame.events.map((event) => Number(event.sequence)) : []));
const upTo = (count: number, from = 1): number[] => Array.from({ length: count }, (_, index) => from + index);
const untilSequence = (client: Client, sequence: number): Promise<ServerFrame> =>
  client.until((frame) => frame.op === "events" && Number(frame.events.at(-1)?.sequence) >= sequence);
const untilClosed = async (client: Client): Promise<Client["closed"]> => {
  for (let attempt = 0; attempt < 200 && client.closed === null; attempt += 1) await scheduler.wait(5);
  return client.closed;
};
const silence = (): Promise<void> => scheduler.wait(40);

it("welcomes a socket with its limits and names the subprotocol alone, not the ticket", async () => {
  await inStream("welcome", async ({ watchers, connect }) => {
    const response = watchers.accept(upgrade());
    expect(response.status).toBe(101);
    expect(response.headers.get("Sec-WebSocket-Protocol")).toBe("plumule.v1");
    const client = connect();
    expect(await client.until(is("welcome"))).toMatchObject({
      protocol: PROTOCOL_VERSION,
      limits: { subscriptions: LIMITS.subscriptions },
    });
  });
});

it("refuses a request that is no upgrade, and closes one that speaks another subprotocol", async () => {
  await inStream("handshake", async ({ watchers, state }) => {
    const plain = watchers.accept(new Request("http://broker/stream"));
    expect(plain.status).toBe(426);
    expect(await plain.json()).toMatchObject({ code: "upgrade-required" });
    const other = watchers.accept(upgrade({ "Sec-WebSocket-Protocol": "plumule.v9" }));
    const closed = new Promise<number>((resolve) =>
      other.webSocket?.addEventListener("close", ({ code }) => resolve(code)),
    );
    other.webSocket?.accept();
    expect(await closed).toBe(CLOSE_CODES.wrongSubprotocol);
    expect(state.getWebSockets()).toHaveLength(0);
  });
});

it("starts from a snapshot, says that it is live, and sends each commit as one frame", async () => {
  await inStream("snapshot", async ({ log, connect, append, publish }) => {
    append(4);
    const client = connect();
    client.send(SUBSCRIBE);
    publish(3);
    publish(1);
    await untilSequence(client, 8);
    expect(client.frames.slice(1)).toMatchObject([
      { op: "snapshot", cursor: cursorAt(log, 4) },
      { op: "live", cursor: cursorAt(log, 4), recovered: false, replayed: 0 },
      { op: "events", cursor: cursorAt(log, 7) },
      { op: "events", cursor: cursorAt(log, 8) },
    ]);
    expect(sequences(client)).toEqual([5, 6, 7, 8]);
  });
});

it("replays what came after a cursor in pages, then says that nothing was missed", async () => {
  await inStream("replay", async ({ log, connect, append }) => {
    append(3);
    for (let batch = 0; batch < 4; batch += 1) append(300);
    const client = connect();
    client.send({ ...SUBSCRIBE, since: cursorAt(log, 3) });
    expect(await client.until(is("live"))).toMatchObject({
      recovered: true,
      replayed: 1_200,
      cursor: cursorAt(log, 1_203),
    });
    expect(sequences(client)).toEqual(upTo(1_200, 4));
    expect(client.frames.filter(is("events"))).toHaveLength(3);
    expect(ops(client)).not.toContain("snapshot");
  });
});

it("weaves events that are committed during a replay into their place", async () => {
  await inStream("replay-live", async ({ log, connect, append, publish }) => {
    for (let batch = 0; batch < 10; batch += 1) append(500);
    const client = connect();
    client.send({ ...SUBSCRIBE, since: cursorAt(log, 0) });
    publish(2);
    await scheduler.wait(1);
    publish(1);
    await untilSequence(client, 5_003);
    expect(sequences(client)).toEqual(upTo(5_003));
    expect(client.frames.filter(is("live"))).toHaveLength(1);
  });
});

it.each([
  ["expired", "cursor-expired", (epoch: number) => `e${epoch}:3`],
  ["ahead", "cursor-unknown", (epoch: number) => `e${epoch}:21`],
  ["strange", "cursor-unknown", () => "yesterday"],
  ["foreign", "epoch-changed", (epoch: number) => `e${epoch + 1}:20`],
])("starts over with a reset when a cursor is %s", async (name, reason, since) => {
  await inStream(`reset-${name}`, async ({ log, connect, append }) => {
    append(10);
    append(10);
    log.prune(10);
    const client = connect();
    client.send({ ...SUBSCRIBE, since: since(log.epoch()) });
    await client.until(is("live"));
    expect(client.frames.slice(1)).toMatchObject([
      { op: "reset", reason },
      { op: "snapshot" },
      { op: "live", recovered: false },
    ]);
  });
});

it("sends a reader that is slower than the retention a reset instead of a gap", async () => {
  await inStream("overtaken", async ({ log, connect, append, publish }) => {
    for (let row = 0; row < 12; row += 1) append(10, 20_000);
    const client = connect();
    client.busy = true;
    client.send({ ...SUBSCRIBE, since: cursorAt(log, 0) });
    await silence();
    publish(5);
    log.prune(5);
    client.resume();
    await client.until(is("live"));
    const reset = client.frames.findIndex(is("reset"));
    expect(client.frames[reset]).toMatchObject({ reason: "cursor-expired" });
    expect(client.frames.slice(reset + 1)).toMatchObject([
      { op: "snapshot", cursor: cursorAt(log, 125) },
      { op: "live", recovered: false },
    ]);
    expect(sequences(client)).toEqual(upTo(sequences(client).length));
  });
});

it("sends a filtered subscription its events only, and keeps its cursor within a page of the head", async () => {
  await inStream("filter", async ({ log, connect, publish }) => {
    const client = connect();
    client.send({ ...SUBSCRIBE, types: ["job.*"] });
    client.send({ op: "subscribe", id: "b", types: ["run.lost"] });
    publish(400, 0, "token.created");
    publish(1, 0, "job.queued");
    publish(499, 0, "token.created");
    publish(1, 0, "token.created");
    await client.until((frame) => frame.op === "events" && frame.id === "a" && frame.cursor === cursorAt(log, 901));
    await silence();
    const events = client.frames
      .filter(is("events"))
      .map((frame) => (frame.op === "events" ? [frame.id, frame.cursor, frame.events.length] : []));
    expect(events).toEqual([
      ["a", cursorAt(log, 401), 1],
      ["b", cursorAt(log, 900), 0],
      ["a", cursorAt(log, 901), 0],
    ]);
  });
});

it("loses nothing when a commit was not passed on", async () => {
  await inStream("unpublished", async ({ connect, append, publish }) => {
    const client = connect();
    client.send(SUBSCRIBE);
    append(3);
    publish(2);
    await untilSequence(client, 5);
    expect(sequences(client)).toEqual([1, 2, 3, 4, 5]);
  });
});

it("goes on in a fresh instance with the next event, and with a replay that was under way", async () => {
  await inStream("wake", async (stream) => {
    const { log, connect, append } = stream;
    const live = connect();
    live.send(SUBSCRIBE);
    stream.publish(2);
    await untilSequence(live, 2);
    for (let row = 0; row < 20; row += 1) append(10, 20_000);
    const replaying = connect();
    replaying.busy = true;
    replaying.send({ ...SUBSCRIBE, since: cursorAt(log, 0) });
    await silence();
    await stream.wake();
    stream.publish(1);
    replaying.resume();
    await untilSequence(live, 203);
    await untilSequence(replaying, 203);
    expect(sequences(live)).toEqual(upTo(203));
    expect(sequences(replaying)).toEqual(upTo(203));
  });
});

it("queues no more than its share for a reader that stands still, and nobody else waits for it", async () => {
  await inStream("slow", async ({ connect, publish }) => {
    const slow = connect();
    const quick = connect();
    slow.send(SUBSCRIBE);
    quick.send(SUBSCRIBE);
    await quick.until(is("live"));
    slow.busy = true;
    for (let batch = 1; batch <= 50; batch += 1) {
      publish(5, 20_000);
      await untilSequence(quick, batch * 5);
    }
    expect(sequences(quick)).toEqual(upTo(250));
    slow.resume();
    await untilSequence(slow, 1);
    const first = sequences(slow).length;
    expect(first * 20_000).toBeLessThan(LIMITS.socketBufferBytes * 1.5);
    await untilSequence(slow, 250);
    expect(sequences(slow)).toEqual(upTo(250));
  });
});

it("closes a reader that stood still for too long when there is something to send", async () => {
  await inStream("stalled", async ({ connect, publish }) => {
    const client = connect();
    client.send(SUBSCRIBE);
    await client.until(is("live"));
    client.busy = true;
    for (let batch = 0; batch < 20; batch += 1) publish(5, 20_000);
    expect(await untilClosed(client)).toBeNull();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + LIMITS.socketStallMs + 1_000 });
    publish(1);
    expect(await untilClosed(client)).toMatchObject({ code: CLOSE_CODES.tooSlow });
  });
});

it("sends a log in chunks that end at whole characters, and its end", async () => {
  await inStream("log", async ({ connect, write }) => {
    const text = "naïve 🌱 ".repeat(50_000);
    const bytes = utf8(text);
    write(bytes.slice(0, 9));
    const client = connect();
    client.send({ op: "log", id: "l", run: RUN });
    write(bytes.slice(9), true);
    expect(await client.until(is("end"))).toMatchObject({ bytes: bytes.length, state: "complete" });
    const chunks = client.frames.flatMap((frame) => (frame.op === "chunk" ? [frame] : []));
    expect(chunks.map((chunk) => chunk.text ?? "").join("")).toBe(text);
    expect(chunks.length).toBeGreaterThan(2);
    expect(Math.max(...chunks.map((chunk) => chunk.bytes))).toBeLessThanOrEqual(LIMITS.logChunkBytes);
  });
});

it("sends bytes that are no text as base64, and an unfinished character at the end too", async () => {
  await inStream("log-binary", async ({ connect, write }) => {
    write(Uint8Array.of(0xff, 0xfe, 0x00));
    const client = connect();
    client.send({ op: "log", id: "l", run: RUN });
    expect(await client.until(is("chunk"))).toMatchObject({ offset: 0, bytes: 3, base64: "//4A" });
    write(Uint8Array.of(0x61, 0xf0, 0x9f), true);
    await client.until(is("end"));
    expect(client.frames.filter(is("chunk")).at(-1)).toMatchObject({ offset: 3, bytes: 3, base64: "YfCf" });
  });
});

it("starts a tail at a whole character", async () => {
  await inStream("log-tail", async ({ connect, write }) => {
    write(utf8("abc🌱def"));
    const client = connect();
    client.send({ op: "log", id: "l", run: RUN, tail: 5 });
    expect(await client.until(is("chunk"))).toMatchObject({ offset: 7, text: "def" });
  });
});

it("skips to the tail of a log that outran its reader, but reads all of what was there at first", async () => {
  await inStream("log-skip", async (stream) => {
    const { connect, write } = stream;
    const piece = new Uint8Array(LIMITS.logChunkBytes).fill(0x61);
    for (let count = 0; count < 12; count += 1) write(piece);
    const old = connect();
    old.send({ op: "log", id: "l", run: RUN });
    await old.until((frame) => frame.op === "chunk" && frame.offset + frame.bytes === 12 * piece.length);
    old.send({ op: "unsubscribe", id: "l" });
    const fresh = connect();
    fresh.send({ op: "log", id: "l", run: RUN, offset: 12 * piece.length });
    fresh.busy = true;
    for (let count = 0; count < 24; count += 1) write(piece);
    await silence();
    fresh.resume();
    expect(await fresh.until(is("skip"))).toMatchObject({ to: 35 * piece.length });
    write(new Uint8Array(), true);
    await fresh.until(is("end"));
    let at = 12 * piece.length;
    for (const frame of fresh.frames) {
      if (frame.op === "chunk") expect(frame.offset).toBe(at);
      if (frame.op === "skip") expect(frame.from).toBe(at);
      at = frame.op === "chunk" ? frame.offset + frame.bytes : frame.op === "skip" ? frame.to : at;
    }
    expect(at).toBe(36 * piece.length);
    expect(ops(old).filter((op) => op === "skip")).toHaveLength(0);
  });
});

it.each([
  ["is not JSON", "{", "invalid-json", null],
  ["has an unknown op", { op: "dance", id: "a" }, "invalid-body", "a"],
  ["has an unknown field", { ...SUBSCRIBE, deep: true }, "invalid-body", "a"],
  ["names a strange type", { ...SUBSCRIBE, types: ["jobs"] }, "invalid-body", "a"],
  ["ends what does not exist", { op: "unsubscribe", id: "zzz" }, "not-found", "zzz"],
  ["returns a mark that was never sent", { op: "mark", number: 7 }, "invalid-body", null],
  ["asks for the log of an unknown run", { op: "log", id: "l", run: RUN.replace("7001", "7002") }, "not-found", "l"],
  ["starts a log beyond its end", { op: "log", id: "l", run: RUN, offset: 1 }, "log-gap", "l"],
  ["starts a log at two places", { op: "log", id: "l", run: RUN, offset: 0, tail: 0 }, "invalid-body", "l"],
])("answers a frame that %s with an error, and goes on", async (name, frame, code, id) => {
  await inStream(`bad-${name}`, async ({ connect, publish }) => {
    const client = connect();
    client.sendRaw(typeof frame === "string" ? frame : JSON.stringify(frame));
    expect(await client.until(is("error"))).toMatchObject({ id, problem: { code } });
    client.send(SUBSCRIBE);
    publish(1);
    await untilSequence(client, 1);
  });
});

it("closes a socket that sends bytes, too much, or nonsense again and again", async () => {
  await inStream("abuse", async ({ connect }) => {
    const [binary, large, stubborn] = [connect(), connect(), connect()];
    binary.sendRaw(new ArrayBuffer(2));
    large.sendRaw(JSON.stringify({ op: "subscribe", id: "x".repeat(LIMITS.frameBytes) }));
    for (let count = 0; count < LIMITS.badFrames; count += 1) stubborn.sendRaw("?");
    expect(await untilClosed(binary)).toMatchObject({ code: CLOSE_CODES.badFrame });
    expect(await untilClosed(large)).toMatchObject({ code: CLOSE_CODES.frameTooLarge });
    expect(await untilClosed(stubborn)).toMatchObject({ code: CLOSE_CODES.badFrame });
  });
});

it("holds a socket to its number of subscriptions, and to what its attachment can hold", async () => {
  await inStream("many", async ({ state, connect, publish }) => {
    const client = connect();
    for (let count = 0; count <= LIMITS.subscriptions; count += 1) client.send({ op: "subscribe", id: `s${count}` });
    expect(await client.until(is("error"))).toMatchObject({
      id: `s${LIMITS.subscriptions}`,
      problem: { code: "rate-limited" },
    });
    const jobs = Array.from(
      { length: 32 },
      (_, job) => `01234567-89ab-7000-8000-${job.toString(16).padStart(12, "0")}`,
    );
    const greedy = connect();
    for (let count = 0; count < 20; count += 1) greedy.send({ op: "subscribe", id: `g${count}`, jobs });
    expect(await greedy.until(is("error"))).toMatchObject({ problem: { code: "rate-limited" } });
    publish(1, 0, "job.queued");
    await untilSequence(client, 1);
    const sizes = state.getWebSockets().map((ws) => String(ws.deserializeAttachment()).length);
    expect(Math.max(...sizes)).toBeLessThan(16_000);
    expect(Math.max(...sizes)).toBeGreaterThan(10_000);
  });
});

it("refuses a second subscription of the same id and keeps the first", async () => {
  await inStream("twice", async ({ connect, publish }) => {
    const client = connect();
    client.send(SUBSCRIBE);
    client.send(SUBSCRIBE);
    expect(await client.until(is("error"))).toMatchObject({ id: "a", problem: { code: "conflict" } });
    client.send({ op: "unsubscribe", id: "a" });
    publish(1);
    client.send(SUBSCRIBE);
    publish(1);
    await untilSequence(client, 2);
    expect(sequences(client)).toEqual([2]);
  });
});
