import { env } from "cloudflare:workers";
import { type Endpoint, ENDPOINTS } from "@plumule/protocol";
import * as fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { almost, almostText, bytesOf } from "../support/mess.ts";
import { ADMIN, ask, problemIn, runPath, told } from "./edge-harness.ts";
import { ABSENT_JOB, ABSENT_RUN, finalJob, foreign, runner, running, setStage, tenant } from "./edge-stage.ts";

/** One in seven of all cases: a request costs more than a schema. `npm run fuzz` asks for many more. */
const REQUESTS = Math.ceil(Number(env.FUZZ_CASES ?? 5_000) / 7);
/** Longer than the look-up of a job that may be on its way; a request that takes this long hangs, ms. */
const HANG_MS = 10_000;

const recorded = import.meta.glob<unknown>("../../protocol/fixtures/*/*.json", { import: "default", eager: true });
const messages = Object.values(recorded);
const endpoints = Object.values(ENDPOINTS);

/** What was recorded of an endpoint's body, or anything that was recorded. */
function bodiesOf({ body }: Endpoint): readonly unknown[] {
  const id = body?.meta()?.id;
  const own = Object.entries(recorded).filter(([path]) => path.endsWith(`/${id}.json`));
  return own.length === 0 ? messages : own.map(([, value]) => value);
}

type Sent = {
  endpoint: Endpoint;
  path: string;
  token: string | null;
  headers: Record<string, string>;
  body: Uint8Array | null;
};

/** A request that is almost right. Waits are cut short, because a long poll is meant to hang. */
function request(endpoint: Endpoint): fc.Arbitrary<Sent> {
  const known: Record<string, readonly string[]> = {
    ns: [tenant.ns, tenant.ns, tenant.ns, foreign.ns, "nobody-here"],
    deployment: ["web", "web", "made-up"],
    job: [running.job, finalJob, ABSENT_JOB],
    run: [running.run, ABSENT_RUN],
    runner: [runner.id],
    commit: ["0".repeat(40)],
  };
  const names = [...endpoint.path.matchAll(/:([a-z]+)/g)].map(([, name]) => name ?? "");
  const params = fc.record(
    Object.fromEntries(
      names.map((name) => {
        const good = known[name] ?? ["x", "abcdefghijkl", ABSENT_RUN];
        const odd = almostText(good).map((text) => encodeURIComponent(text.toWellFormed()));
        return [name, fc.oneof({ arbitrary: fc.constantFrom(...good), weight: 12 }, { arbitrary: odd, weight: 1 })];
      }),
    ),
  );
  const query = fc.dictionary(
    fc.constantFrom(
      "limit",
      "cursor",
      "since",
      "offset",
      "epoch",
      "state",
      "commit",
      "dryRun",
      "node",
      "latest",
      "pool",
      "x",
    ),
    almostText(["1", "0", "-1", "1e308", "e1:1", "queued", "cnVubmVyczp4", running.epoch.toString()]),
    { maxKeys: 3 },
  );
  const { leaseToken } = running;
  const token = fc.constantFrom(
    null,
    "x",
    ADMIN,
    leaseToken,
    leaseToken,
    runner.session,
    foreign.tokens.admin,
    ...Object.values(tenant.tokens),
    tenant.tokens.admin,
    tenant.tokens.admin,
  );
  const headers = fc.dictionary(
    fc.constantFrom(
      "idempotency-key",
      "if-match",
      "if-none-match",
      "range",
      "accept",
      "content-type",
      "last-event-id",
      "webhook-id",
      "webhook-timestamp",
      "webhook-signature",
      "x-hub-signature-256",
      "origin",
    ),
    almostText([
      '"v0"',
      '"r1-1"',
      "bytes=0-1",
      "text/event-stream",
      "application/json; plumule=2",
      "1700000000",
      "v1a,AAAA",
      "sha256=00",
      "https://panel.example",
    ]).map((text) => text.replaceAll(/[^\x20-\x7e]/g, "?").trim()),
    { maxKeys: 3 },
  );
  const body = endpoint.method === "get" ? fc.constant(null) : bytesOf(almost(bodiesOf(endpoint)).map(withoutWaits));
  return fc.record({ params, query, token, headers, body }).map(({ params: filled, query: asked, ...rest }) => {
    const path = names.reduce((text, name) => text.replace(`:${name}`, filled[name] ?? ""), endpoint.path);
    const search = new URLSearchParams(Object.entries(asked).map(([name, value]) => [name, value.toWellFormed()]));
    return { endpoint, path: `${path}?${search.toString()}`, ...rest };
  });
}

function withoutWaits(value: unknown): unknown {
  return typeof value === "object" && value !== null && "waitMs" in value ? { ...value, waitMs: 0 } : value;
}

async function send({ endpoint, path, token, headers, body }: Sent): Promise<Response> {
  const upgrade =
    endpoint.answerMedium === "stream" ? { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" } : {};
  const asked = { token, headers: { ...upgrade, ...headers }, ...(body === null ? {} : { body }) };
  // A timer that is left to fire counts against the ten thousand that the engine allows.
  let timer: number | null = null;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${endpoint.method} ${path} was not answered within ${HANG_MS} ms`)),
      HANG_MS,
    );
  });
  return Promise.race([ask(endpoint.method.toUpperCase(), path, asked), late]).finally(() => clearTimeout(timer));
}

beforeAll(setStage);

describe("whatever is sent", () => {
  it(
    "is answered in time, with an answer that is declared or a problem that says what to do, and never with a fault",
    { timeout: 60_000 + REQUESTS * 100 },
    async () => {
      const any = fc.constantFrom(...endpoints).chain(request);
      await fc.assert(
        fc.asyncProperty(any, async (sent) => {
          const answer = await send(sent);
          answer.webSocket?.accept();
          answer.webSocket?.close();
          const told = answer.status >= 400 && answer.status < 600 ? await problemIn(answer) : null;
          expect(told?.code).not.toBe("internal");
          expect(told?.code).not.toBe("unavailable");
          if (told === null && answer.status !== 101 && answer.status !== 206)
            expect(Object.keys(sent.endpoint.answers)).toContain(String(answer.status));
          if (told === null) await answer.body?.cancel();
        }),
        { numRuns: REQUESTS, ...(env.FUZZ_SEED === undefined ? {} : { seed: Number(env.FUZZ_SEED) }) },
      );
    },
  );

  it("leaves a broker that goes on as before", async () => {
    await told(ask("GET", `${tenant.at}/jobs/${running.job}`, { token: ADMIN }), 200);
    const { leaseToken: token, epoch } = running;
    const beat = await ask("POST", `${runPath(tenant.at, running)}/heartbeat`, { token, body: { epoch } });
    // Somebody may have cancelled the job by chance; its runner is told then.
    expect([200, 409]).toContain(beat.status);
  });
});
