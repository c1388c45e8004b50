import { authorizerQuestionSchema, type AuthorizerQuestion, LIMITS, utf8, verifyWebhook } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ask, newTenant, problemIn, settled, storedBy, type Tenant, told } from "./edge-harness.ts";

const SECRET = `whsec_${btoa("s".repeat(32))}`;
const URL_OF_PANEL = "https://panel.example/plumule";
const SHELL = { task: { kind: "shell", script: "true" } };

let tenant: Tenant;
let questions: AuthorizerQuestion[];
let reply: (question: AuthorizerQuestion) => Response | Promise<Response>;

beforeEach(async () => {
  tenant = await newTenant();
  questions = [];
  reply = () => Response.json({ allow: false });
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const request = new Request(input, init);
    expect([request.url, request.redirect]).toEqual([URL_OF_PANEL, "manual"]);
    const body = await request.text();
    const verified = await verifyWebhook(request.headers, utf8(body), {
      ed25519Keys: [],
      secrets: [utf8("s".repeat(32))],
      nowMs: Date.now(),
      toleranceSeconds: 1,
    });
    expect(verified.ok, JSON.stringify(verified)).toBe(true);
    const question = authorizerQuestionSchema.parse(JSON.parse(body));
    questions.push(question);
    return reply(question);
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const put = (authorizer: unknown, version = 0): Promise<Response> =>
  ask("PUT", `${tenant.at}/authorizer`, {
    token: tenant.tokens.admin,
    body: { authorizer },
    headers: { "if-match": `"v${version}"` },
  });
const as = (token: string, method: string, path: string, body?: unknown): Promise<Response> =>
  ask(method, `${tenant.at}${path}`, { token, body });

describe("a namespace with an authorizer", () => {
  beforeEach(async () => void (await told(put({ url: URL_OF_PANEL, secret: SECRET }), 200)));

  it("asks the panel who a credential belongs to, and lets them do what it says, under their own name", async () => {
    reply = () => Response.json({ allow: true, actor: "user:42", role: "developer", deployments: ["shop-*"] });
    await told(as("eyJhbGciOi.panel", "POST", "/deployments/shop-1/jobs", SHELL), 202);
    expect(questions).toMatchObject([{ type: "authenticate", namespace: tenant.ns, credential: "eyJhbGciOi.panel" }]);
    const page = await told<{ events: { actor: string }[] }>(
      as("eyJhbGciOi.panel", "GET", "/deployments/shop-1/events"),
      200,
    );
    expect(page.events[0]?.actor).toBe("panel:user:42");
    expect((await as("eyJhbGciOi.panel", "POST", "/deployments/other/jobs", SHELL)).status).toBe(403);
    expect((await as("eyJhbGciOi.panel", "GET", "/tokens")).status).toBe(403);
    expect(questions).toHaveLength(1);
  });

  it("asks again when the answer is too old", async () => {
    reply = () => Response.json({ allow: true, actor: "ada", scopes: ["read"], cacheMs: 60_000 });
    expect((await as("session", "GET", "/jobs")).status).toBe(200);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 59_000 });
    expect((await as("session", "GET", "/jobs")).status).toBe(200);
    expect(questions).toHaveLength(1);
    vi.setSystemTime(Date.now() + 2_000);
    reply = () => Response.json({ allow: false });
    vi.setSystemTime(Date.now() + LIMITS.credentialCacheMs);
    expect((await as("session", "GET", "/jobs")).status).toBe(401);
    expect(questions).toHaveLength(2);
  });

  it("asks about each thing that somebody does, where the panel wants to be asked", async () => {
    reply = (question) =>
      Response.json(
        question.type === "authenticate"
          ? { allow: true, actor: "ada", role: "operator", ask: true }
          : { allow: question.action === "submitJob" && question.deployment === "web" },
      );
    const { job } = await told<{ job: { id: string } }>(as("session", "POST", "/deployments/web/jobs", SHELL), 202);
    expect((await as("session", "POST", "/deployments/db/jobs", SHELL)).status).toBe(403);
    await settled(tenant);
    const refused = await problemIn(await as("session", "POST", `/jobs/${job.id}/cancel`));
    expect([refused.code, refused.detail]).toEqual([
      "forbidden",
      `The panel of ${tenant.ns} does not allow \`cancelJob\` to panel:ada.`,
    ]);
    expect(questions.at(-1)).toMatchObject({ type: "authorize", actor: "ada", action: "cancelJob", deployment: "web" });
    expect((await ask("GET", `${tenant.at}/stream`, { token: "session", headers: SOCKET })).status).toBe(403);
    expect(questions.at(-1)).toMatchObject({ action: "streamNamespace", deployment: null });
  });

  it.each<[string, () => Response | Promise<Response>]>([
    ["is down", () => Promise.reject(new TypeError("connection refused"))],
    ["fails", () => new Response("oops", { status: 500 })],
    ["redirects", () => new Response(null, { status: 302, headers: { location: "https://169.254.169.254/" } })],
    ["shows a page instead", () => new Response("<html>log in</html>", { headers: { "content-type": "text/html" } })],
    ["answers something else", () => Response.json({ allow: true })],
    ["gives rights that there are not", () => Response.json({ allow: true, actor: "x", scopes: ["root"] })],
    [
      "wants to be believed for ever",
      () => Response.json({ allow: true, actor: "x", scopes: ["read"], cacheMs: 1e12 }),
    ],
    ["sends without end", () => new Response(new ReadableStream({ pull: (c) => c.enqueue(new Uint8Array(65_536)) }))],
  ])("lets nobody in when the panel %s, and stores nothing", async (_, answer) => {
    reply = answer;
    const before = await storedBy(tenant);
    expect((await as("session", "GET", "/jobs")).status).toBe(401);
    expect((await as("session", "GET", "/jobs")).status).toBe(401);
    expect(questions).toHaveLength(1);
    expect(await storedBy(tenant)).toEqual(before);
  });

  it("never sends a credential of its own make to the panel", async () => {
    for (const token of [`plm_abcdefghijkl_${"x".repeat(43)}`, "pls_wrong", "plu_wrong", "plr_wrong"])
      expect((await as(token, "GET", "/jobs")).status).toBe(401);
    expect(questions).toEqual([]);
  });

  it("shows no secret, keeps it when only the address changes, and stops asking when it is taken away", async () => {
    const view = await told(put({ url: `${URL_OF_PANEL}` }, 1), 200);
    expect(view).toEqual({ version: 2, authorizer: { url: URL_OF_PANEL } });
    expect(await told(put(null, 2), 200)).toEqual({ version: 3, authorizer: null });
    expect((await as("session", "GET", "/jobs")).status).toBe(401);
    expect(questions).toEqual([]);
    const events = await (await as(tenant.tokens.read, "GET", "/events")).text();
    expect(events).not.toContain(SECRET);
  });
});

const SOCKET = { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" };

describe("an authorizer", () => {
  it.each([
    ["http://panel.example/"],
    ["https://127.1/"],
    ["https://2130706433/"],
    ["https://[::1]/"],
    ["https://u:p@panel.example/"],
    ["https://panel.example:22/"],
    ["https://metadata.internal/"],
    ["not a url"],
  ])("is not set to %s", async (url) => {
    const problem = await problemIn(await put({ url, secret: SECRET }));
    expect([problem.code, problem.errors?.[0]?.pointer]).toEqual(["invalid-body", "/authorizer/url"]);
  });

  it("needs a secret of Standard Webhooks, and the version that it replaces", async () => {
    for (const secret of [undefined, "a text of more than twenty-four characters"]) {
      const problem = await problemIn(await put({ url: URL_OF_PANEL, secret }));
      expect(problem.errors?.[0]?.pointer).toBe("/authorizer/secret");
    }
    expect((await put({ url: URL_OF_PANEL, secret: SECRET }, 7)).status).toBe(412);
  });
});
