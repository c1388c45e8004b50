import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import {
  bridgeOptionsSchema,
  type BridgeSettings,
  type Explained,
  QUEUE_LIMIT_COUNT,
  type RunningBridge,
  startBridge,
} from "@plumule/bridge";
import { type Push, signerFromSeed, verifyWebhook } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ControlSocket, newPerson, serveSeed, StorageRepository, writeNodeKey } from "../support/radicle.ts";

const signer = await signerFromSeed(new Uint8Array(32).fill(9));
const alice = newPerson();
/** A loaded machine may take its time. */
const WITHIN = { timeout: 20_000 };

let home: string;
let broker: Server;
let isAway: boolean;
/** The webhooks that the broker took, by their ids. */
let taken: Map<string, Push>;
let attemptCount: number;
let node: ControlSocket;
let repository: StorageRepository;
let bridges: RunningBridge[];
let said: string[];
let explained: Explained[];

beforeEach(async () => {
  [isAway, taken, attemptCount, bridges, said, explained] = [false, new Map(), 0, [], [], []];
  home = mkdtempSync(join(tmpdir(), "plumule-run-"));
  node = new ControlSocket(home);
  broker = createServer((request, response) => {
    void buffer(request).then(async (body) => {
      attemptCount += 1;
      const headers = new Headers(request.headers as Record<string, string>);
      const trust = { ed25519Keys: [signer.publicKey], secrets: [], nowMs: Date.now(), toleranceSeconds: 60 };
      const verified = await verifyWebhook(headers, body, trust);
      const push = JSON.parse(body.toString()) as Push;
      if (verified.ok && !isAway) taken.set(verified.id, push);
      response.writeHead(isAway ? 503 : 202);
      response.end(JSON.stringify({ ...view, ref: push.ref, after: push.after }));
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => broker.once("listening", resolve));
  repository = new StorageRepository(home, { delegates: [alice] });
  tip = repository.commit("one");
  repository.push(alice, { "refs/heads/main": tip });
});
afterEach(async () => {
  for (const bridge of bridges) bridge.stop();
  await Promise.all(bridges.map(({ done }) => done));
  await node.close();
  broker.close();
  rmSync(home, { recursive: true, force: true });
});

const view = {
  id: "d",
  webhookId: "w",
  hook: "radicle",
  signer: "did:key:z",
  receivedAt: new Date().toISOString(),
  type: "push",
  repository: null,
  state: "submitted",
  results: [{ trigger: "main", deployment: "app", job: "0199c0de-7a11-7000-9b1f-3b0f6a2d9e10", detail: "submitted" }],
};

let tip: string;
/** Alice commits and pushes; nobody is told. */
function push(message: string, ref = "refs/heads/main"): string {
  tip = repository.commit(message, [tip]);
  return repository.push(alice, { [ref]: tip });
}
const announce = (at: string): void =>
  node.say({
    type: "localRefsAnnounced",
    rid: `rad:${repository.id}`,
    refs: { remote: alice.node, at },
    timestamp: Date.now(),
  });

/** Starts a bridge that follows the node; resolves when it has seen what there is. */
async function start(settings: Partial<BridgeSettings> = {}): Promise<RunningBridge> {
  const url = `http://127.0.0.1:${(broker.address() as AddressInfo).port}`;
  const options = { url, namespace: "acme", state: join(home, "state"), radHome: home, ...settings };
  const bridge = await startBridge(bridgeOptionsSchema.parse(options), {
    fetch,
    signer,
    now: () => new Date(),
    budgetMs: 300,
    say: (line) => said.push(line),
    explain: (what) => void explained.push(what),
  });
  bridges.push(bridge);
  return bridge;
}

async function stop(bridge: RunningBridge): Promise<void> {
  bridge.stop();
  await bridge.done;
  bridges = bridges.filter((one) => one !== bridge);
}

/** A bridge that has seen what there is and is gone. */
async function seeHistory(): Promise<void> {
  await (
    await start({ once: true })
  ).done;
  explained = [];
}

const messages = (): unknown[] => [...taken.values()].map(({ message }) => message);
/** The node has the subscription: what it says from now on arrives. */
const seeing = (): Promise<void> =>
  vi.waitFor(() => expect(node.commands).toEqual(['{"command":"subscribe"}']), WITHIN);
const tells = (...expected: string[]): Promise<void> => vi.waitFor(() => expect(messages()).toEqual(expected), WITHIN);

describe("a bridge beside a node", { timeout: 60_000 }, () => {
  it("tells the node's own pushes and fetched ones, signed, as soon as the node says that there is something", async () => {
    await node.open();
    await start();
    await seeing();
    expect(said).toContainEqual(expect.stringContaining("following the node"));
    announce(push("own"));
    await tells("own");
    push("fetched", "refs/heads/next");
    node.say({ type: "somethingNew", rid: "x" });
    node.say("no json");
    node.say({ type: "peerConnected", nid: alice.node });
    node.say({
      type: "refsFetched",
      remote: alice.node,
      rid: `rad:${repository.id}`,
      updated: [{ created: { name: `refs/namespaces/${alice.node}/refs/heads/next`, oid: tip } }],
    });
    await tells("own", "fetched");
    await vi.waitFor(() => expect(said.join()).toMatch(/refs\/heads\/next .* → job .* queued/), WITHIN);
  });

  it("tells the node's own pushes also when the node, which is alone, says nothing of them", async () => {
    writeNodeKey(home, alice);
    await node.open();
    await start();
    // The start, the subscription and what comes a little after it have each looked.
    await vi.waitFor(() => expect(explained.filter(({ kind }) => kind === "look")).toHaveLength(3), WITHIN);
    push("unannounced");
    await tells("unannounced");
  });

  it("misses nothing when the node drops it, or is away, and tells nothing twice", async () => {
    await node.open();
    await start();
    await seeing();
    announce(push("first"));
    await tells("first");
    push("while it is dropped");
    node.drop();
    await tells("first", "while it is dropped");
    await node.close();
    push("while the node is away");
    await node.open();
    await tells("first", "while it is dropped", "while the node is away");
    expect(taken.size).toBe(3);
  });

  it("tells two pushes that were made while it was killed, once and in their order", async () => {
    await seeHistory();
    push("one");
    push("two");
    await start();
    await tells("one", "two");
    const numbers = [...taken.values()].map(({ number }) => number ?? 0);
    expect(numbers[1]).toBeGreaterThan(numbers[0] ?? 0);
  });

  it("does not tell again what was in its queue when it was killed before it could remember that", async () => {
    await seeHistory();
    cpSync(join(home, "state/seen"), join(home, "before"), { recursive: true });
    isAway = true;
    push("once");
    const killed = await start({ once: true });
    expect(await killed.done).toBe(false);
    expect(readdirSync(join(home, "state/queue")).filter((name) => name.endsWith(".json"))).toHaveLength(1);
    cpSync(join(home, "before"), join(home, "state/seen"), { recursive: true });
    isAway = false;
    expect(await (await start({ once: true })).done).toBe(true);
    expect(messages()).toEqual(["once"]);
    expect(await (await start({ once: true })).done).toBe(true);
    expect(taken.size).toBe(1);
  });

  it("keeps what a broker that is away has not taken, and brings it when it is back", async () => {
    await node.open();
    await start();
    await seeing();
    isAway = true;
    announce(push("patient"));
    await vi.waitFor(() => expect(said.join()).toContain("waits in the queue"), WITHIN);
    isAway = false;
    await tells("patient");
    expect(attemptCount).toBeGreaterThan(1);
  });

  it("looks at nothing while its queue is full, and at everything when there is room again", async () => {
    await seeHistory();
    push("patient");
    // What cannot be read is set aside as soon as the queue is gone through.
    for (let count = 0; count < QUEUE_LIMIT_COUNT; count++)
      writeFileSync(join(home, `state/queue/full-${count}.json`), "");
    expect(await (await start({ once: true })).done).toBe(true);
    expect(messages()).toEqual(["patient"]);
  });

  it("says in a dry run what each event would start, or why nothing, and changes nothing", async () => {
    await seeHistory();
    const [secondTip, before] = [push("dry"), readdirSync(join(home, "state/queue"))];
    await node.open();
    const bridge = await start({ dryRun: true });
    await seeing();
    announce(secondTip);
    node.say({ type: "refsAnnounced", nid: alice.node, rid: `rad:${repository.id}`, refs: [], timestamp: 1 });
    await vi.waitFor(
      () =>
        expect(explained.flatMap((one) => (one.kind === "event" ? [one.news] : []))).toEqual([
          { event: "localRefsAnnounced", look: repository.id },
          { event: "refsAnnounced", look: null, why: "a peer has announced refs, which are not fetched yet" },
        ]),
      WITHIN,
    );
    const found = explained.flatMap((one) => (one.kind === "look" ? one.look.findings : []));
    expect(found).toMatchObject([{ push: { message: "dry" } }]);
    await stop(bridge);
    expect([taken.size, readdirSync(join(home, "state/queue"))]).toEqual([0, before]);
    expect(await (await start({ once: true })).done).toBe(true);
    expect(messages()).toEqual(["dry"]);
  });
});

describe("a bridge without a node", { timeout: 60_000 }, () => {
  it("has from a seed what a node would have, and tells what moves there", async () => {
    const seed = await serveSeed(home);
    try {
      const settings = { seed: seed.url, repositories: [`rad:${repository.id}`], radHome: "/nonexistent", once: true };
      expect(await (await start(settings)).done).toBe(true);
      push("one");
      push("two");
      const head = repository.commit("fix", [tip]);
      const bob = newPerson();
      // He comes after the bridge: what he signed before would be history.
      repository.seconds = Math.ceil(Date.now() / 1_000);
      const opened = repository.patchOperation([{ type: "revision", oid: head, base: tip }], [], [head, tip]);
      repository.push(bob, {
        [`refs/heads/patches/${opened}`]: head,
        [`refs/cobs/xyz.radicle.patch/${opened}`]: opened,
      });
      expect(await (await start(settings)).done).toBe(true);
      expect(new Set(messages())).toEqual(new Set(["fix", "one", "two"]));
      const patch = [...taken.values()].find(({ type }) => type === "patch");
      expect(patch).toMatchObject({ author: bob.did, base: tip, delegates: [alice.did] });
    } finally {
      await seed.stop();
    }
  });

  it("says why it cannot look at a repository, and leaves the others alone", async () => {
    const missing = "z3gqcJUoA1n9HaHKufZs5FCSGazv5";
    const bridge = await start({ seed: "http://127.0.0.1:9", repositories: [`rad:${missing}`], once: true });
    expect(await bridge.done).toBe(false);
    expect(said).toContainEqual(expect.stringMatching(new RegExp(`^rad:${missing} cannot be looked at: `)));
  });

  it("has to be told which repositories of a seed are meant", () => {
    const settings = { url: "https://b", namespace: "acme", state: "/s", radHome: "/r", seed: "https://seed.example" };
    expect(bridgeOptionsSchema.safeParse(settings).error?.issues[0]?.message).toContain("name those that are meant");
  });
});
