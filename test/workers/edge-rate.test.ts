import { LIMITS } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { ask, newTenant, problemIn, storedBy, type Tenant } from "./edge-harness.ts";

let tenant: Tenant;
beforeAll(async () => {
  tenant = await newTenant();
});

const from = (address: string): { headers: Record<string, string> } => ({ headers: { "cf-connecting-ip": address } });
/** Sends until it is stopped; how often it was answered before. The window may begin anew on the way, so that up to twice the limit gets through. */
async function untilStopped(
  limit: number,
  send: () => Promise<Response>,
): Promise<{ stopped: Response; count: number }> {
  for (let count = 0; count <= 2 * limit; count += 1) {
    const stopped = await send();
    if (stopped.status === 429) return { stopped, count };
  }
  throw new Error(`nothing stopped ${2 * limit} requests`);
}

describe("an address that guesses credentials", () => {
  it("is stopped with the numbers, at every door, and changes nothing", { timeout: 30_000 }, async () => {
    const before = await storedBy(tenant);
    const guess = { token: `plm_abcdefghijkl_${"x".repeat(43)}`, ...from("192.0.2.1") };
    const path = `${tenant.at}/jobs`;
    const { stopped, count } = await untilStopped(LIMITS.strangersPerMinute, () => ask("GET", path, guess));
    expect(count).toBeGreaterThanOrEqual(LIMITS.strangersPerMinute);
    expect([stopped.status, stopped.headers.get("retry-after"), stopped.headers.get("ratelimit-policy")]).toEqual([
      429,
      "60",
      `"requests";q=${LIMITS.strangersPerMinute};w=60`,
    ]);
    expect((await problemIn(stopped)).detail).toBe(
      `192.0.2.1 has sent more than ${LIMITS.strangersPerMinute} requests without a credential that is known in 60 s.`,
    );
    const headers = { ...guess.headers, upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" };
    const stream = await untilStopped(LIMITS.strangersPerMinute, () =>
      ask("GET", `${tenant.at}/stream`, { ...guess, headers }),
    );
    expect((await problemIn(stream.stopped)).code).toBe("rate-limited");
    expect(await storedBy(tenant)).toEqual(before);
  });

  it("does not stop others, nor those who are known behind the same address", async () => {
    expect((await ask("GET", `${tenant.at}/jobs`, { token: tenant.tokens.read, ...from("192.0.2.1") })).status).toBe(
      200,
    );
    expect((await ask("GET", `${tenant.at}/jobs`, { token: "x", ...from("192.0.2.2") })).status).toBe(401);
  });
});

describe("a caller that writes without end", () => {
  it("is stopped, alone", { timeout: 60_000 }, async () => {
    const path = `${tenant.at}/deployments/nothing-here/cancel`;
    const send = (): Promise<Response> => ask("POST", path, { token: tenant.tokens.submit });
    const { stopped, count } = await untilStopped(LIMITS.writesPerMinute, send);
    expect(count).toBeGreaterThanOrEqual(LIMITS.writesPerMinute);
    expect((await problemIn(stopped)).detail).toContain(`more than ${LIMITS.writesPerMinute} writes in 60 s`);
    expect((await ask("POST", path, { token: tenant.tokens.operate })).status).toBe(404);
    expect((await ask("GET", `${tenant.at}/jobs`, { token: tenant.tokens.submit })).status).toBe(200);
  });
});
