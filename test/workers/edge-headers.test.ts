import { ENDPOINTS } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { ask, runPath } from "./edge-harness.ts";
import { ABSENT_JOB, ABSENT_RUN, running, runner, setStage, tenant } from "./edge-stage.ts";

const ALWAYS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "strict-transport-security": "max-age=63072000; includeSubDomains",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "x-xss-protection": "0",
};
/** What a page made of the answer's bytes could do: nothing. */
const INERT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";

beforeAll(setStage);

function saidBy({ headers }: Response): Record<string, string | null> {
  return Object.fromEntries(Object.keys(ALWAYS).map((name) => [name, headers.get(name)]));
}

describe("an answer", () => {
  it.each(Object.values(ENDPOINTS).map(({ name, method, path }) => [name, method.toUpperCase(), path] as const))(
    "of %s is data to a browser, with and without a right to it",
    async (_, method, path) => {
      const filled = path
        .replace(":ns", tenant.ns)
        .replace(":deployment", "none")
        .replace(":job", ABSENT_JOB)
        .replace(":run", ABSENT_RUN)
        .replace(":runner", runner.id)
        .replace(":commit", "0".repeat(40))
        .replace(/:[a-z]+/, "made-up");
      for (const token of [null, tenant.tokens.admin]) {
        const answer = await ask(method, filled, { token, ...(method === "GET" ? {} : { body: "{" }) });
        expect(saidBy(answer), `${answer.status}`).toEqual(ALWAYS);
        expect(answer.headers.get("content-security-policy")).toBe(INERT);
        expect(answer.headers.get("cache-control")).toBe("no-store");
        expect(answer.headers.get("set-cookie")).toBeNull();
        await answer.body?.cancel();
      }
    },
    20_000,
  );

  it("that is a log is a file of plain text", async () => {
    const path = `${tenant.at}/runs/${running.run}/log`;
    const answer = await ask("GET", path, { token: tenant.tokens.read });
    expect(answer.status).toBe(200);
    expect(saidBy(answer)).toEqual(ALWAYS);
    expect(answer.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect(answer.headers.get("content-disposition")).toBe(`attachment; filename="${running.run}.log"`);
    expect(answer.headers.get("content-security-policy")).toBe(INERT);
    await answer.body?.cancel();
  });

  it("that is a document for people runs no script and stands in no frame", async () => {
    const docs = await ask("GET", "/docs");
    expect(docs.status).toBe(200);
    expect(saidBy(docs)).toEqual(ALWAYS);
    expect(docs.headers.get("content-security-policy")).toBe(
      "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    const text = await docs.text();
    expect(text).not.toMatch(/<script|\son\w+=|javascript:/i);
  });

  it.each([
    ["GET", "/openapi.json"],
    ["GET", "/plumule.schema.json"],
    ["GET", "/.well-known/plumule-page.json"],
    ["GET", "/nothing"],
    ["PATCH", "/v1"],
    ["OPTIONS", "/v1/acme/jobs"],
    ["POST", `${"/x".repeat(100)}`],
  ])("to %s %s is hardened too", async (method, path) => {
    const answer = await ask(method, path);
    expect(saidBy(answer)).toEqual(ALWAYS);
    expect(answer.headers.get("content-security-policy")).toBe(INERT);
  });

  it("to a run's own paths is hardened too", async () => {
    const { leaseToken: token, epoch } = running;
    const answer = await ask("POST", `${runPath(tenant.at, running)}/heartbeat`, { token, body: { epoch } });
    expect(answer.status).toBe(200);
    expect(saidBy(answer)).toEqual(ALWAYS);
  });
});
