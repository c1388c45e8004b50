// People and programs by role: what each may do, and how it ends.
import {
  CLOSE_CODES,
  didKeyOf,
  type Login,
  LOGIN_PAYLOAD_TYPE,
  type Member,
  type Role,
  SESSION_PAYLOAD_TYPE,
  type SessionPayloadType,
  type Signer,
  signerFromSeed,
  signSession,
} from "@plumule/protocol";
import { beforeAll, describe, expect, it, vi } from "vitest";
import {
  ask,
  newRunner,
  newTenant,
  pollBody,
  problemIn,
  runPath,
  settled,
  storedBy,
  takeJob,
  type Tenant,
  told,
} from "./edge-harness.ts";

const SHELL = { task: { kind: "shell", script: "true" } };
let tenant: Tenant;
beforeAll(async () => {
  tenant = await newTenant();
});

const submit = (deployment: string, token: string): Promise<Response> =>
  ask("POST", `${tenant.at}/deployments/${deployment}/jobs`, { token, body: SHELL });
const status = async (answer: Promise<Response>): Promise<number> => (await answer).status;

async function makeToken(body: Record<string, unknown>): Promise<{ id: string; token: string }> {
  return told(ask("POST", `${tenant.at}/tokens`, { token: tenant.tokens.admin, body: { name: "t", ...body } }), 201);
}

/** Opens a stream as a program does, and remembers how it ends. */
async function watch(path: string, token: string): Promise<{ closed: number | null; ops: string[]; ws: WebSocket }> {
  const response = await ask("GET", `${tenant.at}${path}`, {
    token,
    headers: { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" },
  });
  const ws = response.webSocket;
  if (ws === null) throw new Error(`${response.status} ${await response.text()}`);
  const seen = { closed: null as number | null, ops: [] as string[], ws };
  ws.addEventListener("close", ({ code }) => {
    seen.closed = code;
  });
  ws.addEventListener("message", ({ data }) => {
    seen.ops.push((JSON.parse(String(data)) as { op: string }).op);
  });
  ws.accept();
  ws.send(JSON.stringify({ op: "subscribe", id: "a" }));
  await vi.waitFor(() => expect(seen.ops).toContain("live"));
  return seen;
}

describe("a token made for a role", () => {
  it.each<[Role, string, Record<string, number>]>([
    ["developer", "submit", { tokens: 403, drain: 403, submit: 202 }],
    ["operator", "operate", { tokens: 403, drain: 404, submit: 202 }],
    ["maintainer", "operate", { tokens: 403, drain: 404, submit: 202 }],
    ["provider", "admin", { tokens: 200, drain: 404, submit: 202 }],
  ])("%s has the scope %s", async (role, scope, may) => {
    const { token, ...view } = await makeToken({ role });
    expect(view).toMatchObject({ role, scopes: [scope] });
    const nobody = `did:key:z6Mk${"k".repeat(44)}`;
    expect({
      tokens: await status(ask("GET", `${tenant.at}/tokens`, { token })),
      drain: await status(ask("POST", `${tenant.at}/runners/${nobody}/drain`, { token })),
      submit: await status(submit(`by-${role}`, token)),
    }).toEqual(may);
  });

  it("needs either a role or scopes", async () => {
    for (const body of [{}, { role: "provider", scopes: ["read"] }]) {
      const answer = await ask("POST", `${tenant.at}/tokens`, {
        token: tenant.tokens.admin,
        body: { name: "t", ...body },
      });
      expect((await problemIn(answer)).errors?.[0]?.pointer).toBe("/scopes");
    }
  });
});

describe("a token that is confined to some deployments", () => {
  it("acts on these, and cannot tell whether others exist", async () => {
    const { token, ...view } = await makeToken({ scopes: ["admin"], deployments: ["shop-*", "blog"] });
    expect(view).toMatchObject({ deployments: ["shop-*", "blog"] });
    const { job } = await told<{ job: { id: string } }>(submit("shop-1", token), 202);
    expect(await status(submit("blog", token))).toBe(202);
    expect(await status(ask("GET", `${tenant.at}/jobs/${job.id}`, { token }))).toBe(200);

    const foreign = await told<{ job: { id: string } }>(submit("shopping", tenant.tokens.submit), 202);
    await settled(tenant);
    const before = await storedBy(tenant);
    for (const deployment of ["shopping", "never-made"]) {
      const problem = await problemIn(await submit(deployment, token));
      expect([problem.code, problem.detail]).toEqual([
        "forbidden",
        `This credential is for shop-*, blog; not ${deployment}.`,
      ]);
    }
    const unseen = [`/jobs/${foreign.job.id}`, `/jobs/${foreign.job.id.replace(/.$/, "0")}`];
    for (const path of unseen) expect(await status(ask("GET", `${tenant.at}${path}`, { token }))).toBe(404);
    for (const path of ["/jobs", "/deployments", "/events", "/tokens", "/queue", "/stream"])
      expect([path, await status(ask("GET", `${tenant.at}${path}`, { token, headers: UPGRADE }))]).toEqual([path, 403]);
    expect(await status(ask("GET", `${tenant.at}/deployments/shopping/stream`, { token, headers: UPGRADE }))).toBe(403);
    expect(await storedBy(tenant)).toEqual(before);
  });

  it.each([["*"], ["-x"], ["a*b"], ["a/b"]])("is not made for %s", async (pattern) => {
    const body = { name: "t", scopes: ["read"], deployments: [pattern] };
    const answer = await ask("POST", `${tenant.at}/tokens`, { token: tenant.tokens.admin, body });
    expect((await problemIn(answer)).errors?.[0]?.pointer).toBe("/deployments/0");
  });
});

const UPGRADE = { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" };

describe("a revoked token", () => {
  it("loses its open sockets at once, and only its own", async () => {
    const [gone, kept] = [await makeToken({ role: "developer" }), await makeToken({ role: "developer" })];
    await told(submit("watched", gone.token), 202);
    const sockets = await Promise.all([
      watch("/deployments/watched/stream", gone.token),
      watch("/stream", gone.token),
      watch("/deployments/watched/stream", kept.token),
    ]);
    expect(await status(ask("DELETE", `${tenant.at}/tokens/${gone.id}`, { token: tenant.tokens.admin }))).toBe(204);
    await vi.waitFor(() => expect(sockets.slice(0, 2).map(({ closed }) => closed)).toEqual([4401, 4401]));
    expect(CLOSE_CODES.unauthenticated).toBe(4401);
    await told(submit("watched", kept.token), 202);
    await vi.waitFor(() => expect(sockets[2]?.ops.at(-1)).toBe("events"));
    expect(sockets[2]?.closed).toBeNull();
    sockets[2]?.ws.close(1000);
  });

  it("gets no answer to a history that it was waiting for", async () => {
    const { id, token } = await makeToken({ role: "developer" });
    await told(submit("waited", token), 202);
    const events = (query: string): Promise<Response> =>
      ask("GET", `${tenant.at}/deployments/waited/events?${query}`, { token });
    const { cursor } = await vi.waitFor(async () => {
      const page = await told<{ cursor: string; events: { type: string }[] }>(events(""), 200);
      expect(page.events.at(-1)?.type).toBe("job.waiting");
      return page;
    });
    const waiting = events(`since=${cursor}&wait=20`);
    await ask("DELETE", `${tenant.at}/tokens/${id}`, { token: tenant.tokens.admin });
    // The edge believes an earlier look-up for some seconds, and no longer.
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 6_000 });
    try {
      await told(submit("waited", tenant.tokens.submit), 202);
      expect(await status(waiting)).toBe(401);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("a revoked runner", () => {
  it("loses its lease in the midst of its work: what it still says changes nothing, and the job goes on elsewhere", async () => {
    const fleet = await newTenant();
    const [gone, kept] = [await newRunner(fleet), await newRunner(fleet)];
    const { job } = await told<{ job: { id: string } }>(
      ask("POST", `${fleet.at}/deployments/web/jobs`, { token: fleet.tokens.submit, body: SHELL }),
      202,
    );
    const taken = await takeJob(fleet, gone);
    expect(taken.job).toBe(job.id);
    await settled(fleet);
    const path = `${fleet.at}/runners/${gone.id}`;
    expect(await status(ask("DELETE", path, { token: fleet.tokens.admin }))).toBe(200);
    const late = await ask("POST", `${runPath(fleet.at, taken)}/heartbeat`, {
      token: taken.leaseToken,
      body: { epoch: taken.epoch },
    });
    expect((await problemIn(late)).code).toBe("stale-lease");
    expect(await status(ask("POST", `${fleet.at}/poll`, { token: gone.session, body: pollBody() }))).toBe(401);
    const detail = await told<{ runs: { state: string; reason: { detail: string } }[] }>(
      ask("GET", `${fleet.at}/jobs/${job.id}`, { token: fleet.tokens.read }),
      200,
    );
    expect(detail.runs[0]).toMatchObject({ state: "lost", reason: { detail: expect.stringContaining("was revoked") } });
    const again = await takeJob(fleet, kept);
    expect([again.job, again.attempt]).toEqual([job.id, 2]);
  });
});

describe("a person with a Radicle key", () => {
  let signer: Signer;
  let key: string;
  let version = 0;
  beforeAll(async () => {
    signer = await signerFromSeed(crypto.getRandomValues(new Uint8Array(32)));
    key = didKeyOf(signer.publicKey);
  });

  async function setMembers(members: Member[]): Promise<void> {
    const answer = await told<{ version: number }>(
      ask("PUT", `${tenant.at}/members`, {
        token: tenant.tokens.admin,
        body: { members },
        headers: { "if-match": `"v${version}"` },
      }),
      200,
    );
    version = answer.version;
  }

  async function logIn(by = signer, payloadType: SessionPayloadType = LOGIN_PAYLOAD_TYPE): Promise<Response> {
    const challenge = await told<{ challenge: string; audience: string }>(
      ask("POST", `${tenant.at}/logins`, { body: { key } }),
      200,
    );
    const proof = await signSession(challenge, by, payloadType);
    return ask("POST", `${tenant.at}/logins`, { body: { key, proof } });
  }

  it("is nobody before somebody named the key, and learns nothing by asking", async () => {
    const before = await storedBy(tenant);
    expect((await logIn()).status).toBe(401);
    expect(await storedBy(tenant)).toEqual(before);
  });

  it("logs in by a signed challenge, acts as the member that the key is, and logs out", async () => {
    await setMembers([{ key, name: "Ada", role: "maintainer" }]);
    const login = await told<Login>(logIn(), 201);
    expect(login).toMatchObject({ role: "maintainer", scopes: ["operate"] });
    const { token } = login;
    const { job } = await told<{ job: { id: string; actor?: string } }>(submit("ada", token), 202);
    const events = await told<{ events: { actor: string }[] }>(
      ask("GET", `${tenant.at}/deployments/ada/events`, { token }),
      200,
    );
    expect(events.events[0]?.actor).toBe(key);
    expect(await status(ask("POST", `${tenant.at}/jobs/${job.id}/cancel`, { token }))).toBe(202);
    expect(await status(ask("GET", `${tenant.at}/members`, { token }))).toBe(403);
    expect(JSON.stringify(await storedBy(tenant))).not.toContain(token);
    expect(await status(ask("DELETE", `${tenant.at}/logins`, { token }))).toBe(204);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 6_000 });
    try {
      expect(await status(ask("GET", `${tenant.at}/jobs`, { token }))).toBe(401);
    } finally {
      vi.useRealTimers();
    }
  });

  it("is not logged in by another key, by a runner's proof, or twice by one proof", async () => {
    const stranger = await signerFromSeed(new Uint8Array(32).fill(7));
    expect((await problemIn(await logIn(stranger))).code).toBe("bad-signature");
    const asRunner = await logIn(signer, SESSION_PAYLOAD_TYPE);
    expect((await problemIn(asRunner)).code).toBe("bad-signature");
    const { challenge, audience } = await told<{ challenge: string; audience: string }>(
      ask("POST", `${tenant.at}/logins`, { body: { key } }),
      200,
    );
    const proof = await signSession({ challenge, audience }, signer, LOGIN_PAYLOAD_TYPE);
    const both = await Promise.all([1, 2].map(() => ask("POST", `${tenant.at}/logins`, { body: { key, proof } })));
    expect(new Set(both.map((answer) => answer.status))).toEqual(new Set([201, 401]));
  });

  it("is logged out, sockets too, as soon as the member is taken out", async () => {
    const { token } = await told<Login>(logIn(), 201);
    const seen = await watch("/stream", token);
    await setMembers([]);
    await vi.waitFor(() => expect(seen.closed).toBe(CLOSE_CODES.unauthenticated));
    expect((await logIn()).status).toBe(401);
  });

  it("is no member under a key that anybody can sign for, or twice", async () => {
    const weak = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj";
    const ada = { key, name: "Ada", role: "developer" };
    for (const [members, code, pointer] of [
      [[{ ...ada, key: weak }], "weak-key", "/members/0/key"],
      [[ada, { ...ada, name: "Eve" }], "invalid-body", "/members/1/key"],
    ] as const) {
      const answer = await ask("PUT", `${tenant.at}/members`, {
        token: tenant.tokens.admin,
        body: { members },
        headers: { "if-match": `"v${version}"` },
      });
      const problem = await problemIn(answer);
      expect([problem.code, problem.errors?.[0]?.pointer]).toEqual([code, pointer]);
    }
  });
});
