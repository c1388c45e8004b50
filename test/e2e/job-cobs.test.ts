import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { text } from "node:stream/consumers";
import { type DeliveryView, listDeliveries, listRunners, putTriggers, putTrust } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { ControlSocket, newPerson, StorageRepository, writeNodeKey } from "../support/radicle.ts";
import { startCommand } from "../support/command-line.ts";

const main = join(import.meta.dirname, "../../cli/src/main.ts");
const [alice, mallory] = [newPerson(), newPerson()];
const patchId = "e".repeat(40);

let broker: TestBroker;
let home: string;
let repository: StorageRepository;
let tip: string;
let variables: Record<string, string>;

beforeAll(async () => {
  broker = await startTestBroker();
  home = join(broker.folder, "node");
  variables = {
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
    RAD_HOME: home,
    XDG_STATE_HOME: join(broker.folder, "state"),
  };
  repository = new StorageRepository(home, { delegates: [alice] });
  tip = repository.commit("one");
  repository.push(alice, { "refs/heads/main": tip });
  const keyFile = join(broker.folder, "state/plumule/bridge/key.pem");
  const key = spawnSync(process.execPath, [main, "key", "new", keyFile], { encoding: "utf8" }).stdout.trim();
  const put = await broker.ask(putTriggers, {
    headers: { "if-match": '"v0"' },
    body: {
      hooks: [{ id: "radicle", keys: [key] }],
      approvals: { ci: { delegates: [alice.did] } },
      triggers: [
        {
          name: "ci",
          refs: ["refs/heads/main", "refs/tags/*", "refs/patches/*"],
          deployment: "app-{branch}",
          task: { kind: "shell", script: "git log -1 --format=%s | grep -v broken" },
        },
      ],
    },
  });
  if (!put.ok) throw new Error(JSON.stringify(put.problem));
  await broker.startRunner({ allowLocal: false, radHome: home });
}, 60_000);
afterAll(() => broker.stop(), 60_000);

/** What radicle-ci-broker 0.32.1 writes of a push; `before` is always `after`, and an alias may be missing. */
function pushRequest(branch: string, after: string, commits: readonly string[] = [after]): Record<string, unknown> {
  return {
    request: "trigger",
    version: 1,
    event_type: "push",
    repository: {
      id: `rad:${repository.id}`,
      name: "r",
      description: "",
      private: false,
      default_branch: "main",
      delegates: [alice.did],
    },
    pusher: { id: alice.did, alias: null },
    before: after,
    after,
    branch,
    commits,
  };
}

type End = { code: number | null; answers: unknown[]; err: string };

async function ask(request: object | string): Promise<End> {
  const child: ChildProcess = spawn(process.execPath, [main, "adapter"], {
    env: { ...process.env, NO_COLOR: "1", ...variables },
    stdio: ["pipe", "pipe", "pipe"],
  });
  // As radicle-ci-broker does: one line without an end, then the end of stdin.
  child.stdin?.end(typeof request === "string" ? request : JSON.stringify(request));
  const [out, err, [code]] = await Promise.all([text(child.stdout!), text(child.stderr!), once(child, "close")]);
  const lines = out.split("\n").filter((line) => line !== "");
  return { code: code as number | null, answers: lines.map((line) => JSON.parse(line) as unknown), err };
}

async function newestDelivery(): Promise<DeliveryView | undefined> {
  const listed = await broker.ask(listDeliveries, { query: {} });
  return listed.ok ? listed.answer.body.items[0] : undefined;
}

/** The job of the newest delivery of which one came: a bridge that was killed may tell of a push again, and of a repeat comes none. */
async function newestJob(): Promise<string> {
  const listed = await broker.ask(listDeliveries, { query: {} });
  const results = listed.ok ? listed.answer.body.items.flatMap((delivery) => delivery.results) : [];
  return results.find(({ job }) => job != null)?.job ?? "no job";
}

describe("plumule adapter", { timeout: 120_000 }, () => {
  it("answers with the page of the job, then with its result", async () => {
    const { code, answers, err } = await ask(pushRequest("main", tip));
    const job = await newestJob();
    expect({ code, answers }, err).toEqual({
      code: 0,
      answers: [
        { response: "triggered", run_id: { id: job }, info_url: `${broker.url}/j/${job}` },
        { response: "finished", result: "success" },
      ],
    });
    expect((await broker.job(job)).job.source?.commit).toBe(tip);
  });

  it("says of a job that failed that it did, and builds what the branch leads to after a reset", async () => {
    const broken = repository.commit("broken", [tip]);
    repository.push(alice, { "refs/heads/main": broken });
    // After a reset to a commit from before, `commits` is what was left behind.
    const { code, answers } = await ask(pushRequest("main", broken, [tip]));
    expect([code, answers.at(-1)]).toEqual([0, { response: "finished", result: "failure" }]);
    expect((await newestDelivery())?.after).toBe(broken);
  });

  it("takes the job of the bridge that was earlier", async () => {
    const next = repository.commit("seen by two", [tip]);
    const state = join(broker.folder, "state/plumule/bridge");
    expect(await startCommand(["bridge", "start", "--once", "--state", state], variables).done).toBe(0);
    repository.push(alice, { "refs/heads/main": next });
    repository.setCanonical("refs/heads/main", next);
    expect(await startCommand(["bridge", "start", "--once", "--state", state], variables).done).toBe(0);
    const job = await newestJob();
    const { answers } = await ask(pushRequest("main", next));
    expect((await newestDelivery())?.state).toBe("duplicate");
    expect(answers).toMatchObject([{ run_id: { id: job } }, { result: "success" }]);
  });

  it("finds out that a name is an annotated tag, and which commit it leads to", async () => {
    const tagged = repository.commit("released", [tip]);
    const tag = repository.tagObject("v1", tagged);
    repository.push(alice, { "refs/tags/v1": tag });
    const { answers } = await ask(pushRequest("v1", tag));
    expect(answers.at(-1)).toEqual({ response: "finished", result: "success" });
    expect(await newestDelivery()).toMatchObject({ type: "tag", ref: "refs/tags/v1", after: tagged });
  });

  it("tells of a patch by its id, with what it is to be merged into", async () => {
    const head = repository.commit("proposed", [tip]);
    repository.push(alice, { [`refs/heads/patches/${patchId}`]: head });
    const { answers, err } = await ask(patchRequest(alice.did, head));
    expect(answers.at(-1), err).toEqual({ response: "finished", result: "success" });
    expect(await newestDelivery()).toMatchObject({ type: "patch", ref: `refs/patches/${patchId}`, after: head });
  });

  it("answers nothing where nothing is run: no request, no rule, a deleted branch, a stranger's patch before its approval", async () => {
    expect(await ask("nonsense")).toMatchObject({ code: 2, answers: [], err: expect.stringContaining("no JSON") });
    const side = repository.commit("aside", [tip]);
    repository.push(alice, { "refs/heads/side": side });
    expect(await ask(pushRequest("side", side))).toMatchObject({ code: 1, answers: [] });
    const gone = await ask(pushRequest("deleted", tip));
    expect(gone).toMatchObject({ code: 4, answers: [], err: expect.stringContaining("there is no deleted of") });
    const head = repository.commit("strange", [tip]);
    repository.push(mallory, { [`refs/heads/patches/${patchId}`]: head });
    const held = await ask(patchRequest(mallory.did, head));
    expect(held).toMatchObject({ code: 1, answers: [], err: expect.stringContaining("waits for an approval") });
  });
});

function patchRequest(did: string, head: string): object {
  const { request, version, repository: about } = pushRequest("main", head);
  const author = { id: did };
  return {
    request,
    version,
    repository: about,
    event_type: "patch",
    action: "Created",
    patch: {
      id: patchId,
      author,
      title: "Propose",
      state: { status: "open", conflicts: [["a".repeat(40), "b".repeat(40)]] },
      before: tip,
      after: head,
      commits: [head],
      target: tip,
      labels: [],
      assignees: [],
      revisions: [{ id: patchId, author, description: "", base: tip, oid: head, timestamp: 1_700_000_000 }],
    },
  };
}

describe("plumule bridge start --write-cobs", { timeout: 120_000 }, () => {
  it("writes what has become of a job once, and announces it until a seed has it, over a kill", async () => {
    const standIn = join(import.meta.dirname, "../fixtures/rad-job");
    const around = {
      ...variables,
      PATH: `${standIn}${delimiter}${process.env["PATH"]}`,
      XDG_CONFIG_HOME: join(broker.folder, "config"),
    };
    writeNodeKey(home, alice);
    writeFileSync(join(home, "node-id"), alice.node);
    const node = new ControlSocket(home);
    await node.open();

    const start = (): ReturnType<typeof startCommand> =>
      startCommand(["bridge", "start", "--write-cobs"], { ...around, RAD_SOCKET: node.path });
    const unpinned = start();
    expect([await unpinned.done, unpinned.err()]).toEqual([2, expect.stringContaining("No runner is believed")]);
    const listed = await broker.ask(listRunners, { query: {} });
    const key = listed.ok ? (listed.answer.body.items[0]?.id ?? "") : "";
    expect(await startCommand(["key", "trust", key], around).done).toBe(0);
    const rule = { ref: "refs/heads/*", require: { k: 1 }, onDivergence: "block" } as const;
    const policy = { version: 2, signers: [{ key, operator: "north" }], rules: [rule] };
    expect((await broker.ask(putTrust, { headers: { "if-match": '"v1"' }, body: policy })).ok).toBe(true);

    const first = start();
    await first.printed("following the node");
    const cursor = join(broker.folder, "state/plumule/bridge/cobs/cursor");
    await vi.waitFor(() => expect(readFileSync(cursor, "utf8")).toMatch(/^e/), { timeout: 30_000 });
    const commit = repository.commit("to be told", [tip]);
    const at = repository.push(alice, { "refs/heads/main": commit });
    repository.setCanonical("refs/heads/main", commit);
    const refs = { remote: alice.node, at };
    node.say({ type: "localRefsAnnounced", rid: `rad:${repository.id}`, refs, timestamp: Date.now() });
    await first.printed("it is in its job COB, which nobody else has yet: rad rad:");
    first.child.kill("SIGKILL");
    await first.done;

    writeFileSync(join(home, "has-seed"), "");
    const second = start();
    await second.printed("succeeded in the job COB of");
    second.child.kill("SIGTERM");
    expect(await second.done).toBe(0);
    await node.close();
    const job = await newestJob();
    const commands = readFileSync(join(home, "commands"), "utf8").split("\n");
    expect(commands.filter((line) => !/^(list|announce in vain|)$/.test(line))).toEqual([
      `new ${commit}`,
      `run ${commit} ${broker.url}/j/${job}`,
      `succeeded ${commit}`,
      "announce",
    ]);
    expect(readdirSync(join(broker.folder, "state/plumule/bridge/cobs"))).toEqual(["cursor"]);
  });
});
