// Two tenants do the same things under the same names. Whatever the one wrote carries a mark that must never reach the other (P11).
import { didKeyOf, type Endpoint, ENDPOINTS, signerFromSeed } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { ask, newRunner, newTenant, runPath, settled, storedBy, takeJob, type Tenant, told } from "./edge-harness.ts";

const MARK = "taint5f3b9c";
type Ids = Record<string, string>;
/** Ids of things that nobody made. */
const ABSENT = { delivery: crypto.randomUUID(), secret: "NAME" };
let marked: Tenant;
let other: Tenant;
let idsOfMarked: Ids;
let idsOfOther: Ids;

/** Fills a namespace: every kind of thing that callers can write, with `mark` in every text of it. */
async function live(tenant: Tenant, mark: string): Promise<Ids> {
  const { at, tokens } = tenant;
  const admin = (method: string, path: string, body: unknown, headers = {}): Promise<Response> =>
    ask(method, `${at}${path}`, { token: tokens.admin, body, headers });
  const runner = await newRunner(tenant);
  const signer = await signerFromSeed(crypto.getRandomValues(new Uint8Array(32)));
  const body = {
    task: { kind: "shell", script: `echo ${mark}` },
    configuration: { text: mark },
    type: mark,
    summary: mark,
    labels: { note: mark },
    env: { NOTE: mark },
    source: { repository: `https://seed.test/${mark}`, commit: "c".repeat(40), ref: `refs/heads/${mark}` },
  };
  await told(admin("POST", "/deployments/web/jobs", body), 202);
  const running = await takeJob(tenant, runner);
  const lease = { token: running.leaseToken };
  const { epoch } = running;
  await told(ask("PUT", `${runPath(at, running)}/log?offset=0&epoch=${epoch}`, { ...lease, body: `${mark}\n` }), 200);
  const drv = `/nix/store/${"a".repeat(32)}-${mark}.drv`;
  const nodes = [{ drv, name: mark, state: "building", phase: mark, startedAt: null, finishedAt: null }];
  const events = [{ type: "derivations", derivations: nodes }];
  const reported = await ask("POST", `${runPath(at, running)}/events`, {
    ...lease,
    body: { epoch, number: 1, events },
  });
  await reported.body?.cancel();
  await told(admin("POST", "/deployments/web/jobs", { ...body, mode: "queue" }), 202);
  const token = await told<{ id: string }>(admin("POST", "/tokens", { name: mark, role: "developer" }), 201);
  const member = { key: didKeyOf(signer.publicKey), name: mark, role: "developer" };
  await told(admin("PUT", "/members", { members: [member] }, { "if-match": '"v0"' }), 200);
  const trigger = { name: "ci", refs: [mark], deployment: mark, task: body.task };
  const hook = { id: "seed", secret: `${mark}-of-twenty-four-characters` };
  await told(admin("PUT", "/triggers", { triggers: [trigger], hooks: [hook] }, { "if-match": '"v0"' }), 200);
  const policy = await ask("GET", `${at}/trust`, { token: tokens.admin });
  const trust = {
    version: (await policy.json<{ version: number }>()).version + 1,
    signers: [{ key: runner.id, operator: mark }],
    rules: [{ ref: "*", require: { k: 1 }, onDivergence: "warn" }],
  };
  await told(admin("PUT", "/trust", trust, { "if-match": policy.headers.get("etag") ?? "" }), 200);
  await settled(tenant);
  const { run, job, deployment } = running;
  return { job, run, deployment, runner: runner.id, token: token.id, commit: "c".repeat(40), hook: "seed", ...ABSENT };
}

beforeAll(async () => {
  [marked, other] = [await newTenant(), await newTenant()];
  [idsOfMarked, idsOfOther] = [await live(marked, MARK), await live(other, "harmless")];
}, 60_000);

/** A path of an endpoint with the ids that there are; ids of other kinds are made up. */
function pathOf({ path }: Endpoint, ns: string, ids: Ids): string {
  return path.replaceAll(/:([a-z]+)/g, (_, name: string) => (name === "ns" ? ns : (ids[name] ?? "0".repeat(12))));
}

const asked = Object.values(ENDPOINTS).filter(({ path }) => path.includes("/:ns"));

/** Everything that an endpoint says to a caller; a socket says what comes within a moment of subscribing. */
async function saidBy(endpoint: Endpoint, path: string, token: string): Promise<string> {
  const isStream = endpoint.answerMedium === "stream";
  const headers: Record<string, string> = isStream
    ? { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1" }
    : {};
  const body = endpoint.body === null ? undefined : {};
  const answer = await ask(endpoint.method.toUpperCase(), path, { token, headers, body });
  const head = JSON.stringify([...answer.headers]);
  const ws = answer.webSocket;
  if (ws === null) return `${answer.status} ${head} ${await answer.text()}`;
  const frames: string[] = [];
  const live = Promise.withResolvers<void>();
  ws.addEventListener("message", ({ data }) => {
    frames.push(String(data));
    if (String(data).includes('"op":"live"')) live.resolve();
  });
  ws.addEventListener("close", () => live.resolve());
  ws.accept();
  ws.send(JSON.stringify({ op: "subscribe", id: "all" }));
  await live.promise;
  ws.close(1000);
  return `${answer.status} ${head} ${frames.join("\n")}`;
}

describe("a tenant", () => {
  it("finds its own marks behind most doors, so that this test can see what it looks for", async () => {
    const doors = asked.filter(({ method }) => method === "get");
    const said = await Promise.all(
      doors.map((endpoint) => saidBy(endpoint, pathOf(endpoint, marked.ns, idsOfMarked), marked.tokens.admin)),
    );
    expect(doors.filter((_, at) => said[at]?.includes(MARK)).map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        "getJob",
        "getLog",
        "getTrust",
        "getTriggers",
        "getMembers",
        "getDeployment",
        "getDeploymentEvents",
        "getNamespaceEvents",
        "listJobs",
        "listTokens",
        "getCommitRuns",
        "streamDeployment",
        "streamNamespace",
      ]),
    );
  });

  // Asked all at once: the look-up of a job that is not there waits for it to be indexed.
  it("learns nothing of another one at any door, with any of its ids", { timeout: 30_000 }, async () => {
    const { admin } = other.tokens;
    const said = await Promise.all(
      asked.map(async (endpoint) => ({
        endpoint,
        own: await saidBy(endpoint, pathOf(endpoint, other.ns, idsOfOther), admin),
        stolen: await saidBy(endpoint, pathOf(endpoint, other.ns, idsOfMarked), admin),
        foreign: await saidBy(endpoint, pathOf(endpoint, marked.ns, idsOfMarked), admin),
      })),
    );
    for (const { endpoint, own, stolen, foreign } of said) {
      for (const text of [own, stolen, foreign])
        expect([endpoint.name, text.includes(MARK)]).toEqual([endpoint.name, false]);
      // What needs a credential of the other tenant is closed before anything else is looked at.
      const [status] = foreign.split(" ");
      if (endpoint.access === "lease") expect(["400", "409"]).toContain(status);
      else if (endpoint.access !== "none" && endpoint.access !== "signed")
        expect([endpoint.name, status]).toEqual([endpoint.name, "401"]);
    }
  });

  it("has nothing of another one stored with it", async () => {
    expect(JSON.stringify(await storedBy(other))).not.toContain(MARK);
    expect(JSON.stringify(await storedBy(marked))).toContain(MARK);
  });
});
