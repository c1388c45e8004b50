import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { Offer, PollBody } from "@plumule/protocol";
import { expect, it, vi } from "vitest";
import { poolObject } from "../../durable-objects/shared/names.ts";

const KING = `did:key:z6Mk${"k".repeat(44)}`;

function bodyOf(over: Partial<PollBody>): PollBody {
  const plain = { name: "king", systems: ["x86_64-linux"], features: [], labels: [], version: "1", capacity: 1 };
  const offer: Offer = { ...plain, isolation: "process-group" };
  return { requestKey: crypto.randomUUID(), protocol: 2, pool: "default", offer, busy: 0, ...over };
}

it("tells a runner once how it is drained, and that it may go on, also after an eviction", async () => {
  const pool = poolObject(env, `drain-${crypto.randomUUID()}`, "default");
  const deadlineAt = Date.now() + 60_000;
  const answer = pool.poll({ runner: KING, body: bodyOf({ seenOrder: 0 }) });
  await vi.waitFor(async () => expect((await pool.presence())[0]?.parked).toBe(true));
  const order = { number: 7, drain: { note: "new disk", deadlineAt, end: "exit" as const } };
  await pool.setDrained({ runner: KING, drained: true, order });
  expect(await answer).toBeNull();
  await evictDurableObject(pool);
  const told = await pool.poll({ runner: KING, body: bodyOf({ seenOrder: 0, waitMs: 0 }) });
  expect(told).toEqual({ number: 7, drain: { note: "new disk", end: "exit", deadlineMs: expect.any(Number) } });
  expect(told !== null && "drain" in told ? told.drain?.deadlineMs : 0).toBeGreaterThan(50_000);
  // Once; and a runner that cannot read orders gets none.
  expect(await pool.poll({ runner: KING, body: bodyOf({ seenOrder: 7, waitMs: 0 }) })).toBeNull();
  expect(await pool.poll({ runner: KING, body: bodyOf({ waitMs: 0 }) })).toBeNull();
  await pool.setDrained({ runner: KING, drained: false, order: { number: 8, drain: null } });
  expect(await pool.poll({ runner: KING, body: bodyOf({ seenOrder: 0, waitMs: 0 }) })).toBeNull();
  expect(await pool.poll({ runner: KING, body: bodyOf({ seenOrder: 7, waitMs: 0 }) })).toEqual({
    number: 8,
    drain: null,
  });
  // A delivery of the outbox that comes late changes nothing.
  await pool.setDrained({ runner: KING, drained: false, order });
  expect(await pool.poll({ runner: KING, body: bodyOf({ seenOrder: 8, waitMs: 0 }) })).toBeNull();
});
