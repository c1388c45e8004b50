import { isRefusal, LIMITS } from "@plumule/protocol";
import { expect, it } from "vitest";
import { cursorAt, followCursor } from "#durable-objects/shared/cursor.ts";
import { createEventLog, type EventDraft } from "#durable-objects/shared/event-log.ts";
import { createHistory } from "#durable-objects/shared/history.ts";
import { transact } from "#durable-objects/shared/transact.ts";
import { inStream } from "./stream-harness.ts";

const draft: EventDraft = { type: "job.queued", subject: "jobs/none", data: {} };
const newId = (): string => crypto.randomUUID();

it("numbers events from 1 without a gap, in as many calls as it likes", async () => {
  await inStream("numbers", async ({ log, append }) => {
    expect(log.head()).toBe(0);
    expect(log.oldest()).toBe(1);
    append(3);
    append(1);
    append(0);
    expect(log.page(0, 500).events.map((event) => event.sequence)).toEqual([
      "0000000000000001",
      "0000000000000002",
      "0000000000000003",
      "0000000000000004",
    ]);
    expect(log.head()).toBe(4);
  });
});

it("gives the numbers of a transaction that was taken back to the next one", async () => {
  await inStream("rollback", async ({ state, log, append }) => {
    append(2);
    const attempt = (): void =>
      transact(state.storage, () => {
        log.append([draft, draft], "admin", 0, newId);
        throw new Error("changed its mind");
      });
    expect(attempt).toThrow("changed its mind");
    expect(log.head()).toBe(2);
    expect(append(1)[0]?.sequence).toBe("0000000000000003");
  });
});

it("goes on where another instance stopped, in the same history", async () => {
  await inStream("instances", async ({ state, log, append }) => {
    append(5);
    const next = createEventLog(state.storage, "/test/deployments/one");
    expect(next.head()).toBe(5);
    expect(next.epoch()).toBe(log.epoch());
    expect(log.epoch()).toBeGreaterThan(0);
  });
});

it("writes one row for a call, however many events, and two rows only when a row would be too large", async () => {
  await inStream("rows", async ({ state, append }) => {
    const rows = (): number => state.storage.sql.exec<{ n: number }>("SELECT count(*) AS n FROM event_rows").one().n;
    append(200);
    expect(rows()).toBe(1);
    append(2, 400_000);
    expect(rows()).toBe(3);
    expect(() => append(1, 700_000)).toThrow(RangeError);
    expect(rows()).toBe(3);
  });
});

it("pages from the middle of a row, by number and by size", async () => {
  await inStream("pages", async ({ log, append }) => {
    append(10);
    append(10);
    const numbers = (after: number, limit: number): number[] =>
      log.page(after, limit).events.map((event) => Number(event.sequence));
    expect(numbers(7, 6)).toEqual([8, 9, 10, 11, 12, 13]);
    expect(log.page(7, 6).more).toBe(true);
    expect(log.page(14, 6)).toMatchObject({ more: false });
    expect(numbers(20, 6)).toEqual([]);
    append(1, 300_000);
    append(1, 300_000);
    expect(numbers(19, 6)).toEqual([20]);
    expect(log.page(19, 6).more).toBe(true);
    expect(numbers(20, 6)).toEqual([21]);
    expect(log.page(20, 6).more).toBe(true);
    expect(log.page(21, 6).more).toBe(false);
  });
});

it("forgets old events by whole rows, never the newest, and says which cursors are too old", async () => {
  await inStream("prune", async ({ log, append }) => {
    for (let row = 0; row < 5; row += 1) append(10);
    log.prune(25);
    expect(log.oldest()).toBe(21);
    expect(followCursor(cursorAt(log, 19), log)).toEqual({ lost: "cursor-expired" });
    expect(followCursor(cursorAt(log, 20), log)).toEqual({ after: 20 });
    expect(followCursor(cursorAt(log, 51), log)).toEqual({ lost: "cursor-unknown" });
    expect(followCursor(`e${log.epoch() + 1}:30`, log)).toEqual({ lost: "epoch-changed" });
    expect(followCursor("yesterday", log)).toEqual({ lost: "cursor-unknown" });
    log.prune(0);
    expect(log.head()).toBe(50);
    expect(append(1)[0]?.sequence).toBe("0000000000000051");
  });
});

it("answers history in pages whose cursors lead on", async () => {
  await inStream("history", async ({ log, append }) => {
    append(7);
    const history = createHistory(log);
    const first = await history.read({ since: null, limit: 5, waitMs: 0 });
    if (isRefusal(first)) throw new Error(first.detail);
    expect(first.events).toHaveLength(5);
    expect(first.more).toBe(true);
    const second = await history.read({ since: first.cursor, limit: 5, waitMs: 0 });
    expect(second).toMatchObject({
      more: false,
      cursor: cursorAt(log, 7),
      events: [{ sequence: "0000000000000006" }, { sequence: "0000000000000007" }],
    });
  });
});

it("holds a reader of history until events are committed, or its time is over", async () => {
  await inStream("long-poll", async ({ log, append }) => {
    const history = createHistory(log);
    const held = history.read({ since: cursorAt(log, 0), limit: 5, waitMs: 20_000 });
    await scheduler.wait(20);
    append(1);
    history.wake();
    expect(await held).toMatchObject({ events: [{ sequence: "0000000000000001" }] });
    expect(await history.read({ since: cursorAt(log, 1), limit: 5, waitMs: 30 })).toEqual({
      events: [],
      more: false,
      cursor: cursorAt(log, 1),
    });
  });
});

it("refuses cursors of history that lead nowhere", async () => {
  await inStream("history-cursors", async ({ log, append }) => {
    const history = createHistory(log);
    const read = (since: string) => history.read({ since, limit: 5, waitMs: 0 });
    append(10);
    append(10);
    log.prune(10);
    expect(await read("e1")).toMatchObject({ refused: "invalid-cursor" });
    expect(await read(cursorAt(log, 21))).toMatchObject({ refused: "invalid-cursor" });
    expect(await read(cursorAt(log, 9))).toMatchObject({ refused: "cursor-expired" });
    expect(await read(`e${log.epoch() - 1}:20`)).toMatchObject({ refused: "cursor-expired" });
  });
});

it("refuses more waiting readers than it has places, and has the places again afterwards", async () => {
  await inStream("history-places", async ({ log, append }) => {
    const history = createHistory(log);
    const wait = () => history.read({ since: cursorAt(log, 0), limit: 1, waitMs: 20_000 });
    const held = Array.from({ length: LIMITS.parkedHistories }, wait);
    expect(await wait()).toMatchObject({ refused: "rate-limited" });
    append(1);
    history.wake();
    for (const page of await Promise.all(held)) expect(page).toMatchObject({ events: [{}] });
    expect(await history.read({ since: cursorAt(log, 1), limit: 1, waitMs: 1 })).toMatchObject({ events: [] });
  });
});
