import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DeliveryView, listDeliveries, putTriggers } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { type CommandLine, startCommand } from "../support/command-line.ts";
import { ControlSocket, newPerson, StorageRepository } from "../support/radicle.ts";

const WITHIN = { timeout: 30_000 };
const alice = newPerson();

let broker: TestBroker;
/** Homes of two nodes: Alice's own, and one that has fetched from it. */
let homes: { own: string; peer: string };
let nodes: { own: ControlSocket; peer: ControlSocket };
let repository: StorageRepository;
let tip: string;
const running: CommandLine[] = [];

beforeAll(async () => {
  broker = await startTestBroker();
  homes = { own: join(broker.folder, "own"), peer: join(broker.folder, "peer") };
  repository = new StorageRepository(homes.own, { delegates: [alice] });
  tip = repository.commit("one");
  repository.push(alice, { "refs/heads/main": tip });
  repository.setCanonical("refs/heads/main", tip);
  nodes = { own: new ControlSocket(homes.own), peer: new ControlSocket(homes.peer) };
  await nodes.own.open();
  await nodes.peer.open();
  fetchToPeer();
  const keys = ["own", "peer"].map((name) => {
    const made = spawnSync(process.execPath, [main, "key", "new", keyFile(name)], { encoding: "utf8" });
    return made.stdout.trim();
  });
  const put = await broker.ask(putTriggers, {
    headers: { "if-match": '"v0"' },
    body: {
      hooks: [{ id: "radicle", keys }],
      triggers: [
        {
          name: "ci",
          refs: ["refs/**"],
          deployment: "app-{branch}",
          task: { kind: "shell", script: "git log -1 --format='built %s'" },
        },
      ],
    },
  });
  if (!put.ok) throw new Error(put.problem.detail);
}, 60_000);
afterAll(async () => {
  for (const { child } of running) child.kill("SIGKILL");
  await Promise.all(running.map(({ done }) => done));
  await nodes.own.close();
  await nodes.peer.close();
  await broker.stop();
}, 60_000);

const main = join(import.meta.dirname, "../../cli/src/main.ts");
const keyFile = (name: string): string => join(broker.folder, `${name}.pem`);

/** What the peer's node does when it hears of a push. */
function fetchToPeer(): void {
  mkdirSync(join(homes.peer, "storage"), { recursive: true });
  const folder = join(homes.peer, "storage", repository.id);
  execFileSync("git", ["init", "--quiet", "--bare", folder]);
  execFileSync("git", ["-C", folder, "fetch", "--quiet", "--prune", repository.folder, "+refs/*:refs/*"]);
}

/** Alice pushes, to the repository too, as the only delegate. */
function push(message: string): void {
  tip = repository.commit(message, [tip]);
  const at = repository.push(alice, { "refs/heads/main": tip });
  repository.setCanonical("refs/heads/main", tip);
  const rid = `rad:${repository.id}`;
  nodes.own.say({ type: "localRefsAnnounced", rid, refs: { remote: alice.node, at }, timestamp: Date.now() });
  fetchToPeer();
  const name = `refs/namespaces/${alice.node}/refs/heads/main`;
  nodes.peer.say({ type: "refsFetched", remote: alice.node, rid, updated: [{ created: { name, oid: tip } }] });
  nodes.peer.say({ type: "canonicalRefUpdated", rid, refname: "refs/heads/main", target: tip });
}

function start(name: "own" | "peer", ...flags: string[]): CommandLine {
  const bridge = startCommand(
    ["bridge", "start", "--key", keyFile(name), "--state", join(broker.folder, `bridge-${name}`), ...flags],
    { PLUMULE_URL: broker.url, PLUMULE_NAMESPACE: "test", RAD_HOME: homes[name], RAD_SOCKET: nodes[name].path },
  );
  running.push(bridge);
  return bridge;
}

async function deliveries(): Promise<DeliveryView[]> {
  const listed = await broker.ask(listDeliveries, { query: {} });
  if (!listed.ok) throw new Error(listed.problem.detail);
  return listed.answer.body.items.toReversed();
}

describe("two bridges that see one push", { timeout: 120_000 }, () => {
  it("make one job, which a runner with the storage of a node does; killed, they bring what they missed, once", async () => {
    const runner = await broker.startRunner({ allowLocal: false, radHome: homes.peer });
    const first = [start("own"), start("peer")];
    await Promise.all(first.map((bridge) => bridge.printed("following the node")));
    await vi.waitFor(() => expect([nodes.own.commands, nodes.peer.commands].map((all) => all.length)).toEqual([1, 1]));
    push("seen by two");
    await vi.waitFor(async () => expect(await deliveries()).toHaveLength(2), WITHIN);
    await vi.waitFor(
      async () => expect((await deliveries()).map(({ state }) => state).toSorted()).toEqual(["duplicate", "submitted"]),
      WITHIN,
    );
    const [job] = (await deliveries()).flatMap(({ results }) => results.flatMap((result) => result.job ?? []));
    const { job: done, runs } = await broker.until(job ?? "");
    expect(done).toMatchObject({ state: "succeeded", deployment: "app-main" });
    expect(await broker.log(runs[0]?.id ?? "")).toContain("built seen by two");

    for (const bridge of first) bridge.child.kill("SIGKILL");
    await Promise.all(first.map((bridge) => bridge.done));
    push("missed");
    push("missed too");
    const again = [start("own", "--once"), start("peer", "--once")];
    expect(await Promise.all(again.map((bridge) => bridge.done))).toEqual([0, 0]);
    const settled = await vi.waitFor(async () => {
      const all = await deliveries();
      expect(all.map(({ state }) => state)).not.toContain("accepted");
      return all;
    }, WITHIN);
    const made = settled.filter(({ state }) => state === "submitted");
    expect([settled.length, made.length]).toEqual([6, 3]);
    expect(new Set(made.map(({ after }) => after)).size).toBe(3);
    runner.stop();
    await runner.done;
  });

  it("leave without a word when there is nothing, and say what is wrong when something is", async () => {
    expect(await start("own", "--once").done).toBe(0);
    const refused = start("own", "--seed", "https://seed.example");
    expect([await refused.done, refused.err()]).toEqual([2, expect.stringContaining("name those that are meant")]);
    const bad = start("own", "--repo", "heartwood");
    expect([await bad.done, bad.err()]).toEqual([2, expect.stringContaining("a repository id, rad:z…")]);
    writeFileSync(join(broker.folder, "own-open.pem"), "", { mode: 0o644 });
    const open = start("own", "--key", join(broker.folder, "own-open.pem"));
    expect([await open.done, open.err()]).toEqual([2, expect.stringContaining("chmod 600")]);
  });

  it("are told which key has to stand in the hook, when the broker does not believe theirs", async () => {
    const key = join(broker.folder, "stranger.pem");
    const state = join(broker.folder, "bridge-stranger");
    expect(await start("own", "--once", "--state", state, "--key", keyFile("own")).done).toBe(0);
    spawnSync(process.execPath, [main, "key", "new", key]);
    push("told by a stranger");
    const stranger = start("own", "--once", "--state", state, "--key", key);
    expect([await stranger.done, stranger.err()]).toEqual([75, expect.stringContaining("waits in the queue")]);
    // The key is put into the hook, or as here the right one is used: nothing was lost.
    const trusted = start("own", "--once", "--state", state, "--key", keyFile("own"));
    expect([await trusted.done, trusted.err()]).toEqual([0, expect.stringMatching(/→ job .* queued/)]);
  });
});
