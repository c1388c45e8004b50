import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { call, type ClientDeps, pathOf } from "../../protocol/src/client.ts";
import { appendLog, drainRunner, undrainRunner } from "../../protocol/src/endpoints/fleet.ts";
import { cancelJob, getCommitRuns, getDeployment, listJobs } from "../../protocol/src/endpoints/jobs.ts";
import { getHealth, revokeToken } from "../../protocol/src/endpoints/settings.ts";
import { problemOf, refuse } from "../../protocol/src/errors.ts";
import { ACCEPTED_MEDIUM } from "../../protocol/src/version.ts";

const JOB = "0199a0b1-c2d3-7000-8abc-0123456789ab";
const RUNNER = `did:key:z6Mk${"k".repeat(44)}`;
const closers: (() => void)[] = [];
afterEach(() => closers.splice(0).forEach((close) => close()));

type Seen = Pick<IncomingMessage, "method" | "url" | "headers"> & { body: string };

/** A server that answers every request the same way, and what it was asked. */
async function broker(answer: (response: ServerResponse) => void): Promise<{ deps: ClientDeps; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    const { method, url, headers } = request;
    void request.toArray().then((parts) => {
      seen.push({ method, url, headers, body: Buffer.concat(parts).toString() });
      answer(response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  return {
    deps: { fetch: (url, init) => fetch(url, init), baseUrl: `http://127.0.0.1:${port}`, bearer: "plm_x" },
    seen,
  };
}

const answering =
  (status: number, body: string, type = "application/json") =>
  (response: ServerResponse): void => {
    response.writeHead(status, { "content-type": type }).end(body);
  };

it.each([200, 403, 404])(
  "takes a proxy's page for what it is, with status %s: a fault that may pass",
  async (status) => {
    const { deps } = await broker(answering(status, "<html>Sign in to the hotel's network</html>", "text/html"));
    const answer = await call(deps, getHealth, { params: {} });
    expect(answer).toMatchObject({
      ok: false,
      status: 502,
      problem: { status: 502, code: "internal", next: expect.stringContaining("proxy") as string },
    });
  },
);

it("takes an answer that was cut off for a fault that may pass", async () => {
  const { deps } = await broker((response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": 11 }).write('{"ok":');
    setTimeout(() => response.destroy(), 100);
  });
  const answer = await call(deps, getHealth, { params: {} });
  expect(answer).toMatchObject({ status: 502, problem: { status: 502 } });
});

it("takes JSON that does not fit for a problem too", async () => {
  const { deps } = await broker(answering(200, '{"ok":"yes"}'));
  expect(await call(deps, getHealth, { params: {} })).toMatchObject({ ok: false, status: 502 });
});

it("gives back the broker's problem as a value", async () => {
  const problem = problemOf(refuse("already-final", "The job has ended.", { next: "Nothing." }));
  const { deps } = await broker(answering(409, JSON.stringify(problem), "application/problem+json"));
  expect(await call(deps, cancelJob, { params: { ns: "acme", job: JOB } })).toMatchObject({
    ok: false,
    status: 409,
    problem,
  });
});

it("makes a problem of an error page that is none", async () => {
  const { deps } = await broker(answering(504, "Gateway time-out", "text/plain"));
  expect(await call(deps, getHealth, { params: {} })).toMatchObject({
    ok: false,
    status: 504,
    problem: { status: 504, code: "internal" },
  });
});

it("parses what it is answered, and needs no body where there is none", async () => {
  const { deps } = await broker(answering(200, '{"ok":true}'));
  expect(await call(deps, getHealth, { params: {} })).toMatchObject({
    ok: true,
    answer: { status: 200, body: { ok: true } },
  });
  const empty = await broker((response) => response.writeHead(204).end());
  expect(await call(empty.deps, revokeToken, { params: { ns: "acme", token: "abcdefghijkl" } })).toMatchObject({
    ok: true,
    answer: { status: 204, body: null },
  });
});

it("throws what the network throws", async () => {
  const deps: ClientDeps = { fetch: (url, init) => fetch(url, init), baseUrl: "http://127.0.0.1:1" };
  await expect(call(deps, getHealth, { params: {} })).rejects.toThrow(TypeError);
});

it("sends its bearer, its headers and a JSON body, `{}` where the caller has none", async () => {
  const { deps, seen } = await broker(answering(404, "{}"));
  await call(deps, cancelJob, {
    params: { ns: "acme", job: JOB },
    body: { reason: "ü" },
    headers: { "idempotency-key": "k1" },
  });
  await call(deps, cancelJob, { params: { ns: "acme", job: JOB } });
  await call(deps, undrainRunner, {
    params: { ns: "acme", runner: RUNNER },
    headers: { authorization: "Bearer other" },
  });
  expect(seen[0]).toMatchObject({
    method: "POST",
    url: `/v1/acme/jobs/${JOB}/cancel`,
    body: '{"reason":"ü"}',
    headers: {
      authorization: "Bearer plm_x",
      "content-type": "application/json",
      accept: ACCEPTED_MEDIUM,
      "idempotency-key": "k1",
    },
  });
  expect(seen[1]?.body).toBe("{}");
  expect(seen[2]).toMatchObject({ body: "", headers: { authorization: "Bearer other" } });
  expect(seen[2]?.headers["content-type"]).toBeUndefined();
});

it("sends bytes as they are", async () => {
  const { deps, seen } = await broker(answering(200, '{"bytes":3}'));
  const params = { ns: "acme", deployment: "web", run: JOB.replace("7000", "7001") };
  const answer = await call(deps, appendLog, {
    params,
    query: { offset: 0, epoch: 7 },
    body: new TextEncoder().encode("abc"),
  });
  expect(answer).toMatchObject({ ok: true, answer: { body: { bytes: 3 } } });
  expect(seen[0]).toMatchObject({
    method: "PUT",
    body: "abc",
    headers: { "content-type": "application/octet-stream" },
  });
  expect(seen[0]?.url).toBe(`/v1/acme/deployments/web/runs/${params.run}/log?offset=0&epoch=7`);
});

it("encodes what stands in a path and a query, and leaves out what is not there", () => {
  expect(pathOf(getDeployment, { ns: "acme", deployment: "../../x?y#z" })).toBe(
    "/v1/acme/deployments/..%2F..%2Fx%3Fy%23z",
  );
  expect(pathOf(drainRunner, { ns: "acme", runner: RUNNER })).toBe(
    `/v1/acme/runners/${encodeURIComponent(RUNNER)}/drain`,
  );
  expect(pathOf(listJobs, { ns: "acme" }, { state: "failed", cursor: "a&b=c", commit: undefined })).toBe(
    "/v1/acme/jobs?state=failed&cursor=a%26b%3Dc",
  );
  expect(pathOf(getCommitRuns, { ns: "acme", commit: "a".repeat(40) })).toBe(`/v1/acme/commits/${"a".repeat(40)}/runs`);
});
