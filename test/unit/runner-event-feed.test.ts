import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { BrokerAnswer } from "../../runner/src/broker.ts";
import { createEventFeed, readBatches } from "../../runner/src/event-feed.ts";
import type { EventBatch } from "../../runner/src/supervisor/records.ts";

const problem = { type: "", title: "", status: 0, code: "unavailable", detail: "", next: "" };
const away: BrokerAnswer<never> = { ok: false, retry: true, problem, logSize: null };

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-feed-"));
  path = join(folder, "events.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const batch = (number: number): EventBatch => ({
  number,
  events: [{ type: "phase", phase: "building", at: "2026-11-21T00:00:00.000Z" }],
});
const write = (...numbers: number[]): void =>
  appendFileSync(path, numbers.map((number) => `${JSON.stringify(batch(number))}\n`).join(""));

/** A broker that applies each number once, and loses the answers to its first `lost` requests. */
function applying(
  lost: number,
  applied: number[] = [],
): { applied: number[]; send: (one: EventBatch) => Promise<BrokerAnswer<{ number: number }>> } {
  return {
    applied,
    async send({ number }) {
      const highest = Math.max(0, ...applied);
      if (number > highest) applied.push(number);
      if (lost-- > 0) return away;
      return { ok: true, value: { number: Math.max(highest, number) } };
    },
  };
}

it("sends each batch in order, also those that are written later", async () => {
  const { applied, send } = applying(0);
  const feed = createEventFeed(path, send);
  write(1, 2);
  feed.grew();
  await expect.poll(() => applied).toEqual([1, 2]);
  write(3);
  feed.grew();
  await expect.poll(() => applied).toEqual([1, 2, 3]);
  expect(await feed.stop()).toBe(3);
});

it("is applied once although answers are lost", async () => {
  const { applied, send } = applying(2);
  const feed = createEventFeed(path, send);
  write(1, 2);
  feed.grew();
  await expect.poll(() => applied, { timeout: 5_000 }).toEqual([1, 2]);
  await feed.stop();
});

it("goes on where the broker is, when an earlier process had sent the first ones", async () => {
  const { applied, send } = applying(0, [1, 2, 3]);
  const sent: number[] = [];
  write(1, 2, 3, 4);
  const feed = createEventFeed(path, (one) => (sent.push(one.number), send(one)));
  feed.grew();
  await expect.poll(() => applied).toEqual([1, 2, 3, 4]);
  expect(sent).toEqual([1, 4]);
  await feed.stop();
});

it("leaves a line that was cut off until it is whole", async () => {
  const line = `${JSON.stringify(batch(2))}\n`;
  write(1);
  appendFileSync(path, line.slice(0, 20));
  const { applied, send } = applying(0);
  const feed = createEventFeed(path, send);
  feed.grew();
  await expect.poll(() => applied).toEqual([1]);
  expect((await readBatches(path)).map(({ number }) => number)).toEqual([1]);
  appendFileSync(path, line.slice(20));
  feed.grew();
  await expect.poll(() => applied).toEqual([1, 2]);
  await feed.stop();
});
