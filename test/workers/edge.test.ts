import { ENDPOINTS, ERRORS, LIMITS, PROTOCOL_VERSION, taskFileJsonSchema } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { createApp } from "../../src/app.ts";
import { openApiDocument } from "../../src/openapi.ts";
import { ADMIN, ask, newTenant, problemIn, type Tenant, told } from "./edge-harness.ts";

type Operation = { operationId: string; responses: Record<string, unknown>; security: unknown[] };
type OpenApi = {
  openapi: string;
  info: { version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, unknown> };
};

const declared = Object.values(ENDPOINTS).map(({ method, path }) => `${method.toUpperCase()} ${path}`);

describe("the routes", () => {
  it("are exactly the endpoints of the protocol, beside the documents", () => {
    const documents = new Set(["/openapi.json", "/plumule.schema.json", "/docs", "/.well-known/plumule-page.json"]);
    const routes = createApp().routes.filter(({ method, path }) => method !== "ALL" && !documents.has(path));
    expect(routes.map(({ method, path }) => `${method} ${path}`).toSorted()).toEqual(declared.toSorted());
  });

  it("are each declared once", () => {
    expect(new Set(declared).size).toBe(declared.length);
  });
});

describe("the documents", () => {
  it("serve the OpenAPI of the endpoint data", async () => {
    const document = await told<OpenApi>(ask("GET", "/openapi.json"), 200);
    expect(document).toEqual(JSON.parse(JSON.stringify(openApiDocument())));
    expect(document).toMatchObject({ openapi: "3.1.0", info: { version: String(PROTOCOL_VERSION) } });
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { operationId }]) => ({ path, method, operationId })),
    );
    expect(
      operations.map((one) => `${one.method.toUpperCase()} ${one.path.replaceAll(/\{(\w+)\}/g, ":$1")}`).toSorted(),
    ).toEqual(declared.toSorted());
    expect(operations.map((one) => one.operationId).toSorted()).toEqual(Object.keys(ENDPOINTS).toSorted());
  });

  it("serve the JSON Schema of the task file", async () => {
    const answer = await ask("GET", "/plumule.schema.json");
    expect(answer.headers.get("content-type")).toBe("application/schema+json");
    expect(await answer.json()).toEqual(taskFileJsonSchema());
  });

  it("refer to no schema that is not there", async () => {
    const document = await told<OpenApi>(ask("GET", "/openapi.json"), 200);
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]*)"/g)].map(
      ([, reference]) => reference ?? "",
    );
    expect(references.length).toBeGreaterThan(50);
    const present = Object.keys(document.components.schemas).map((name) => `#/components/schemas/${name}`);
    expect([...new Set(references)].filter((reference) => !present.includes(reference))).toEqual([]);
  });

  it("show every endpoint and every error to people, without a script", async () => {
    const response = await ask("GET", "/docs");
    expect(response.headers.get("content-type")).toContain("text/html");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    const page = await response.text();
    expect(Object.keys(ENDPOINTS).filter((name) => !page.includes(`id="${name}"`))).toEqual([]);
    expect(Object.keys(ERRORS).filter((code) => !page.includes(`id="error-${code}"`))).toEqual([]);
    expect(page).not.toContain("<script");
  });

  it("say what the broker speaks and what it takes", async () => {
    expect(await told(ask("GET", "/healthz"), 200)).toEqual({ ok: true });
    expect(await told(ask("GET", "/v1"), 200)).toMatchObject({
      name: "plumule",
      protocol: PROTOCOL_VERSION,
      limits: LIMITS,
    });
  });

  it("give the page no token unless this is a developer's own machine", async () => {
    expect(await problemIn(await ask("GET", "/.well-known/plumule-page.json"))).toMatchObject({ code: "not-found" });
  });
});

describe("a path", () => {
  it("that is none is not found", async () => {
    for (const path of ["/v1/acme", "/v1/acme/nothing", "/v1//jobs", "/v2", "/v1/acme/jobs/"])
      expect(await problemIn(await ask("GET", path))).toMatchObject({ code: "not-found" });
  });

  it("that has other methods names them", async () => {
    const response = await ask("PATCH", "/v1/acme/deployments/web");
    expect(response.headers.get("allow")?.split(", ").toSorted()).toEqual(["DELETE", "GET"]);
    expect(await problemIn(response)).toMatchObject({ code: "method-not-allowed" });
  });

  it("answers HEAD like GET, without a body", async () => {
    const response = await ask("HEAD", "/healthz");
    expect([response.status, await response.text()]).toEqual([200, ""]);
  });
});

describe("a page of another origin", () => {
  it("is told what it may send, and is never trusted with credentials of the browser", async () => {
    const headers = { origin: "https://panel.example", "access-control-request-method": "POST" };
    const response = await ask("OPTIONS", "/v1/acme/deployments/web/jobs", { headers });
    expect(response.status).toBe(204);
    expect(response.headers.get("access-control-allow-methods")).toContain("DELETE");
    expect(response.headers.get("access-control-allow-headers")).toContain("idempotency-key");
    expect(response.headers.get("access-control-allow-credentials")).toBeNull();
  });

  it("can read answers and refusals", async () => {
    for (const path of ["/healthz", "/v1/acme/jobs", "/nothing"]) {
      const { headers } = await ask("GET", path);
      expect(headers.get("access-control-allow-origin")).toBe("*");
      expect(headers.get("access-control-expose-headers")).toContain("Plumule-Log-Size");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("date")).not.toBeNull();
    }
  });
});

describe("a tenant", () => {
  let tenant: Tenant;
  beforeAll(async () => {
    tenant = await newTenant();
  });

  it("is made once", async () => {
    expect(await told(ask("POST", "/v1/namespaces", { token: ADMIN, body: { id: tenant.ns } }), 200)).toMatchObject({
      id: tenant.ns,
    });
    const { items } = await told<{ items: { id: string }[] }>(
      ask("GET", "/v1/namespaces?limit=200", { token: ADMIN }),
      200,
    );
    expect(items.filter(({ id }) => id === tenant.ns)).toHaveLength(1);
  });

  it("submits, reads, lists and cancels", async () => {
    const { at, tokens } = tenant;
    const body = { task: { kind: "shell", script: "true" }, requires: { systems: ["none"] } };
    const response = await ask("POST", `${at}/deployments/web/jobs`, {
      token: tokens.submit,
      body,
      headers: { "idempotency-key": '"k1"' },
    });
    const { job, cursor } = await told<{ job: { id: string }; cursor: string }>(Promise.resolve(response.clone()), 202);
    expect(response.headers.get("location")).toBe(`${at}/jobs/${job.id}`);
    const again = await told(
      ask("POST", `${at}/deployments/web/jobs`, { token: tokens.submit, body, headers: { "idempotency-key": "k1" } }),
      202,
    );
    expect(again).toEqual(await response.json());
    const read = await ask("GET", `${at}/deployments/web`, { token: tokens.read });
    const etag = read.headers.get("etag") ?? "";
    expect(etag).toMatch(/^"r\d+-\d+"$/);
    expect(
      (await ask("GET", `${at}/deployments/web`, { token: tokens.read, headers: { "if-none-match": etag } })).status,
    ).toBe(304);
    expect(await told(ask("GET", `${at}/jobs/${job.id}`, { token: tokens.read }), 200)).toMatchObject({
      job: { id: job.id, deployment: "web" },
    });
    const cancelled = await told(
      ask("POST", `${at}/jobs/${job.id}/cancel`, { token: tokens.submit, headers: { "if-match": etag } }),
      202,
    );
    expect(cancelled).toMatchObject({ cancelled: [job.id] });
    const history = await told<{ events: { type: string }[] }>(
      ask("GET", `${at}/deployments/web/events?since=${cursor}&wait=5`, { token: tokens.read }),
      200,
    );
    expect(history.events.map(({ type }) => type)).toContain("job.cancelled");
  });

  it("gets a snapshot of settings only when they have changed", async () => {
    const { at, tokens } = tenant;
    for (const name of ["trust", "triggers"]) {
      const etag = (await ask("GET", `${at}/${name}`, { token: tokens.read })).headers.get("etag") ?? "";
      expect(etag).toMatch(/^"v\d+"$/);
      expect(
        (await ask("GET", `${at}/${name}`, { token: tokens.read, headers: { "if-none-match": etag } })).status,
      ).toBe(304);
    }
  });

  it("is followed as server-sent events from the cursor of the last one", async () => {
    const { at, tokens } = tenant;
    const page = await told<{ events: { sequence: string }[]; cursor: string }>(
      ask("GET", `${at}/deployments/web/events?limit=1`, { token: tokens.read }),
      200,
    );
    const response = await ask("GET", `${at}/deployments/web/events`, {
      token: tokens.read,
      headers: { accept: "text/event-stream", "last-event-id": page.cursor },
    });
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    const text = await readUntil(response, "event: live");
    const epoch = page.cursor.split(":")[0];
    const ids = [...text.matchAll(/^id: (.*)\nevent: (?!live)/gm)].map(([, id]) => id);
    expect(ids.length).toBeGreaterThan(1);
    expect(ids).toEqual(ids.map((_, index) => `${epoch}:${index + 2}`));
  });
});

async function readUntil(response: Response, mark: string): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes(mark)) {
    const part = await reader?.read();
    if (part === undefined || part.done) throw new Error(`the stream ended before "${mark}": ${text}`);
    text += part.value;
  }
  await reader?.cancel();
  return text;
}
