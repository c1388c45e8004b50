import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type DeliveryView, signerFromSeed, verifyWebhook } from "@plumule/protocol";
import { deliver, type DeliverDeps, type QueuedDelivery } from "@plumule/bridge";

const signer = await signerFromSeed(new Uint8Array(32).fill(7));
const job = "0199c0de-7a11-7000-9b1f-3b0f6a2d9e10";

type Received = { path: string; id: string; timestamp: string; verified: boolean; body: string };
type Reply = { status: number; body?: unknown; location?: string };

let server: Server;
let received: Received[];
let replies: Reply[];
let paused: number[];
let clock: number;

beforeEach(async () => {
  [received, replies, paused, clock] = [[], [], [], Date.UTC(2026, 10, 20)];
  server = createServer((request, response) => {
    void buffer(request).then(async (body) => {
      const headers = new Headers(request.headers as Record<string, string>);
      const trust = { ed25519Keys: [signer.publicKey], secrets: [], nowMs: clock, toleranceSeconds: 1 };
      received.push({
        path: request.url ?? "",
        id: headers.get("webhook-id") ?? "",
        timestamp: headers.get("webhook-timestamp") ?? "",
        verified: (await verifyWebhook(headers, body, trust)).ok,
        body: body.toString(),
      });
      const reply = replies.length > 1 ? replies.shift() : replies[0];
      response.writeHead(reply?.status ?? 500, reply?.location === undefined ? {} : { location: reply.location });
      response.end(JSON.stringify(reply?.body ?? {}));
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
});
afterEach(() => server.close());

function url(): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function queued(): QueuedDelivery {
  const target = { url: url(), namespace: "acme", hook: "git" };
  return { id: "push_1", createdAt: new Date(clock).toISOString(), target, body: '{"type":"push"}' };
}

/** A clock that moves only while somebody waits. */
function deps(budgetMs = 60_000): DeliverDeps {
  const pause = async (ms: number): Promise<void> => {
    paused.push(ms);
    clock += ms;
  };
  return { fetch, signer, budgetMs, now: () => new Date(clock), pause };
}

function view(state: DeliveryView["state"], made: string | null = null): DeliveryView {
  const results = [{ trigger: "main", deployment: "app", job: made, detail: "submitted" }];
  const receivedAt = new Date(0).toISOString();
  const push = { type: "push", repository: "file:///r", ref: "refs/heads/main", after: "a".repeat(40) };
  return { id: "d", webhookId: "push_1", hook: "git", signer: "did:key:z", receivedAt, state, results, ...push };
}

function problem(status: number, code: string): Reply {
  return { status, body: { type: "x", title: "x", status, code, detail: `it is ${code}`, next: "do this" } };
}

describe("a delivery", () => {
  it("is signed over its exact bytes and sent to its hook", async () => {
    replies = [{ status: 202, body: view("submitted", job) }];
    expect(await deliver(queued(), deps())).toMatchObject({ end: "delivered", delivery: { results: [{ job }] } });
    expect(received).toEqual([
      {
        path: "/v1/acme/hooks/radicle/git",
        id: "push_1",
        timestamp: String(clock / 1000),
        verified: true,
        body: '{"type":"push"}',
      },
    ]);
  });

  it("is tried again under the same id with a new time and signature while the broker is away", async () => {
    replies = [
      problem(503, "unavailable"),
      problem(429, "rate-limited"),
      { status: 202, body: view("submitted", job) },
    ];
    const slow = { ...deps(), pause: async (ms: number): Promise<void> => void (clock += ms + 1_000) };
    expect(await deliver(queued(), slow)).toMatchObject({ end: "delivered" });
    expect(new Set(received.map(({ id }) => id))).toEqual(new Set(["push_1"]));
    expect(new Set(received.map(({ timestamp }) => timestamp)).size).toBe(3);
    expect(received.every(({ verified }) => verified)).toBe(true);
  });

  it("waits longer from try to try, and stays in the queue when the time is up", async () => {
    replies = [problem(503, "unavailable")];
    expect(await deliver(queued(), deps(4_000))).toEqual({ end: "kept", detail: "it is unavailable" });
    expect(received.length).toBeGreaterThan(3);
    // Jitter takes at most half, and every pause doubles.
    for (const [index, ms] of paused.entries()) expect(ms).toBeGreaterThanOrEqual(100 * 2 ** index);
  });

  it("is tried at least once, whatever time is left", async () => {
    replies = [problem(503, "unavailable")];
    expect(await deliver(queued(), deps(0))).toMatchObject({ end: "kept" });
    expect(received).toHaveLength(1);
  });

  it("stays in the queue when nobody listens", async () => {
    const delivery = queued();
    await new Promise((resolve) => server.close(resolve));
    expect(await deliver(delivery, deps(0))).toMatchObject({
      end: "kept",
      detail: expect.stringContaining("cannot be reached"),
    });
  });

  it.each([
    [400, "invalid-body"],
    [401, "bad-signature"],
    [404, "not-found"],
    [422, "idempotency-mismatch"],
  ])("is over when the broker refuses it with %i", async (status, code) => {
    replies = [problem(status, code)];
    expect(await deliver(queued(), deps())).toEqual({ end: "refused", detail: `it is ${code} do this` });
    expect(received).toHaveLength(1);
  });

  it("is over when the hook is switched off", async () => {
    replies = [problem(410, "gone")];
    expect(await deliver(queued(), deps())).toMatchObject({
      end: "refused",
      detail: expect.stringContaining("switched off"),
    });
  });

  it("is tried again when a clock is wrong", async () => {
    replies = [problem(401, "timestamp-out-of-window")];
    expect(await deliver(queued(), deps(0))).toMatchObject({ end: "kept" });
  });

  it("follows no redirect", async () => {
    replies = [{ status: 307, location: "/elsewhere" }];
    expect(await deliver(queued(), deps(0))).toMatchObject({ end: "kept" });
    expect(received.map(({ path }) => path)).toEqual(["/v1/acme/hooks/radicle/git"]);
  });

  it("asks again under its id what became of it, until the job has a name", async () => {
    replies = [
      { status: 202, body: view("accepted") },
      { status: 200, body: view("accepted") },
      { status: 200, body: view("submitted", job) },
    ];
    expect(await deliver(queued(), deps())).toMatchObject({ end: "delivered", delivery: { results: [{ job }] } });
    expect(received).toHaveLength(3);
  });

  it("is delivered even if the name of its job comes too late", async () => {
    replies = [{ status: 202, body: view("accepted") }, problem(503, "unavailable")];
    expect(await deliver(queued(), deps(1_000))).toMatchObject({ end: "delivered", delivery: { state: "accepted" } });
  });

  it("is given up when it has waited longer than the broker remembers ids", async () => {
    const old = { ...queued(), createdAt: new Date(clock - 4 * 24 * 3600_000).toISOString() };
    expect(await deliver(old, deps())).toMatchObject({ end: "expired" });
    expect(received).toEqual([]);
  });
});
