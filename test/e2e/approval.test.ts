import { join } from "node:path";
import {
  didKeyOf,
  getStatements,
  listDeliveries,
  type Push,
  putTriggers,
  receiveHook,
  type Signer,
  signWebhook,
  utf8,
  verifyStatement,
} from "@plumule/protocol";
import { createKey } from "@plumule/runner";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";
import { startCommand } from "../support/command-line.ts";

type Key = Signer & { path: string; did: string };

let broker: TestBroker;
let [seed, delegate, stranger] = [] as unknown as [Key, Key, Key];
beforeAll(async () => {
  broker = await startTestBroker();
  [seed, delegate, stranger] = [await newKey("seed"), await newKey("delegate"), await newKey("stranger")];
});
afterAll(() => broker?.stop());

async function newKey(name: string): Promise<Key> {
  const path = join(broker.folder, name);
  const made = await createKey(path);
  if (!made.ok) throw new Error(made.detail);
  return { path, did: didKeyOf(made.signer.publicKey), ...made.signer };
}

/** Tells of a push as a bridge does, and answers the id of the job that came of it. */
async function tell(push: Partial<Push> & Pick<Push, "repository" | "after">): Promise<string> {
  const audience = `${broker.url}/v1/test`;
  const body = utf8(JSON.stringify({ type: "patch", audience, ref: "refs/heads/main", ...push }));
  const timestampSeconds = Math.floor(Date.now() / 1000);
  const headers = { ...(await signWebhook({ id: push.after, timestampSeconds, body, signer: seed })) };
  const received = await broker.ask(receiveHook, { body, headers });
  if (!received.ok) throw new Error(received.problem.detail);
  return vi.waitFor(async () => {
    const listed = await broker.ask(listDeliveries, { query: {} });
    const job = listed.ok
      ? listed.answer.body.items.find(({ id }) => id === received.answer.body.id)?.results[0]?.job
      : null;
    if (job == null) throw new Error("no job yet");
    return job;
  }, 20_000);
}

async function plumule(...args: string[]): Promise<{ code: number | null; err: string }> {
  const env = { PLUMULE_URL: broker.url, PLUMULE_NAMESPACE: "test", PLUMULE_TOKEN: broker.token, HOME: broker.folder };
  const started = startCommand(args, env);
  return { code: await started.done, err: started.err() };
}

it("runs a stranger's patch after a delegate has signed for it, on a runner that lets strangers in, under a name of its own", async () => {
  const { url: repository, commit: after } = await makeRepository(broker.folder, {
    ".radicle/plumule.yaml": "jobs:\n  test:\n    shell: echo tested\n",
  });
  const rules = {
    triggers: [{ name: "ci", refs: ["**"], deployment: "pr", task: { kind: "repository" as const } }],
    hooks: [{ id: "seed", keys: [seed.did] }],
    approvals: { ci: { isolation: "process-group" as const } },
  };
  const put = await broker.ask(putTriggers, { body: rules, headers: { "if-match": '"v0"' } });
  expect(put.ok).toBe(true);
  const job = await tell({ repository, after, author: stranger.did, delegates: [delegate.did] });
  expect((await broker.job(job)).job).toMatchObject({ state: "held", stranger: { approvers: [delegate.did] } });

  const refused = await plumule("approve", job, "--key", stranger.path);
  expect([refused.code, refused.err]).toEqual([expect.any(Number), expect.stringContaining("neither a delegate")]);
  expect((await broker.job(job)).job.state).toBe("held");
  const approved = await plumule("approve", job, "--key", delegate.path);
  expect([approved.code, approved.err]).toEqual([0, expect.stringContaining(`approving commit ${after}`)]);

  const trusting = await broker.startRunner({ name: "trusting", features: ["untrusted"] });
  await vi.waitFor(async () => {
    const { waiting } = (await broker.job(job)).job;
    expect(waiting?.nearest).toMatchObject({ runner: trusting.id, lacks: [expect.stringContaining("untrusted")] });
  }, 20_000);
  const { id: runner } = await broker.startRunner({ name: "separate", untrusted: true });
  const done = await broker.until(job);
  expect(done.job).toMatchObject({ state: "succeeded", runner, stranger: { approvedBy: delegate.did } });
  expect(await broker.log(done.job.run!)).toContain("tested");

  const answer = await broker.ask(getStatements, { params: { job } });
  const line = answer.ok ? (await answer.response.text()).split("\n")[0]! : "";
  const verified = await verifyStatement(JSON.parse(line), { signers: [runner], expected: { job, commit: after } });
  expect(verified.ok && verified.claims.builderId).toMatch(new RegExp(`^${runner}#untrusted-[a-z-]+-v1$`));
});

it("handles a push again that is named by how its delivery begins, and says which job came of it", async () => {
  const listed = await broker.ask(listDeliveries, { query: {} });
  const delivery = listed.ok ? listed.answer.body.items[0]! : null;
  const job = delivery!.results[0]!.job!;
  expect(await plumule("redeliver", delivery!.id.slice(0, 13))).toEqual({ code: 0, err: expect.any(String) });
  const again = await vi.waitFor(async () => {
    const now = await broker.ask(listDeliveries, { query: {} });
    const made = now.ok ? now.answer.body.items[0]!.results[0]!.job : null;
    if (made == null || made === job) throw new Error("no other job yet");
    return made;
  }, 20_000);
  expect((await broker.job(again)).job).toMatchObject({ state: "held", deployment: "pr" });
  expect((await plumule("redeliver", "ffff")).code).toBe(4);
});
