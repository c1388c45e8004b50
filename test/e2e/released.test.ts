import { execFileSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import * as protocol from "@plumule/protocol";
import * as runner from "@plumule/runner";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { makeRepository } from "../support/broker.ts";
import { type CommandLine, processesAbout, startCommand } from "../support/command-line.ts";
import { openPeer, type Peer } from "../support/peer.ts";
import { releasedModule, releasedProtocol, releasedRunner, RELEASES } from "../support/released.ts";
import { allOf, type Cast, NOW, startWorkers, type Workers } from "../support/workers.ts";

const shell = (script: string): { task: { kind: "shell"; script: string } } => ({ task: { kind: "shell", script } });
/** The release before this one. */
const LAST = RELEASES.at(-1) ?? "none";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "plumule-released-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Runners that a test left running, with their runs. */
const started: runner.RunningRunner[] = [];
afterAll(async () => {
  for (const one of started) for (let signal = 0; signal < 2; signal += 1) one.stop();
  await Promise.all(started.map(({ done }) => done));
});
async function startRunner(
  peer: Peer,
  release: string,
  options: Partial<runner.RunnerOptions> = {},
): ReturnType<Peer["startRunner"]> {
  const running = await peer.startRunner(await releasedRunner(release), folder, options);
  started.push(running);
  return running;
}

/** Sends a push that a rule of the namespace answers with a held job in the deployment `pushed`. */
async function push({ ns, client }: Peer): Promise<void> {
  const signer = await protocol.signerFromSeed(randomBytes(32));
  const rule = { name: "ci", refs: ["refs/heads/**"], deployment: "pushed", ...shell("true"), hold: true };
  const hooks = [{ id: "seed", keys: [protocol.didKeyOf(signer.publicKey)] }];
  const headers = { "if-match": '"v0"' };
  const put = await protocol.call(client, protocol.putTriggers, {
    params: { ns },
    body: { triggers: [rule], hooks },
    headers,
  });
  expect(put).toMatchObject({ ok: true });
  const place = { audience: `${client.baseUrl}/v1/${ns}`, repository: "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW" };
  const [before, after] = ["a".repeat(40), "b".repeat(40)];
  const body = protocol.utf8(JSON.stringify({ type: "push", ...place, ref: "refs/heads/main", before, after }));
  const timestampSeconds = Math.floor(Date.now() / 1000);
  const signed = await protocol.signWebhook({ id: randomUUID(), timestampSeconds, body, signer });
  const answer = await fetch(`${client.baseUrl}/v1/${ns}/hooks/radicle`, {
    method: "POST",
    headers: { ...signed, "content-type": "application/json" },
    body,
  });
  expect([answer.status, await answer.text()]).toEqual([202, expect.any(String)]);
}

const sequencesOf = (events: readonly protocol.Event[]): number[] => events.map(({ sequence }) => Number(sequence));
const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

describe.each(RELEASES)("a broker of today with a runner and a command line of %s", (release) => {
  let workers: Workers;
  let peer: Peer;
  let old: typeof protocol;
  beforeAll(async () => {
    workers = await startWorkers({ today: allOf(NOW) });
    old = await releasedProtocol(release);
    peer = await openPeer(workers.urls["today"] ?? "", old);
  });
  afterAll(() => workers?.stop());

  const plumule = (...args: string[]): CommandLine => {
    const { baseUrl, bearer = "" } = peer.client;
    const env = { PLUMULE_URL: baseUrl, PLUMULE_NAMESPACE: peer.ns, PLUMULE_TOKEN: bearer, HOME: folder };
    return startCommand(args, env, releasedModule(release, "cli"));
  };
  const printedBy = async (...args: string[]): Promise<string> => {
    const command = plumule(...args);
    expect([await command.done, command.err()]).toEqual([0, expect.any(String)]);
    return command.out();
  };

  it("has it register, work, upload its log, deliver a signed result and obey a cancel", async () => {
    const worker = await startRunner(peer, release, { allowLocal: true });
    const { url, commit } = await makeRepository(folder, { "notes.txt": "grow\n" });
    const source = { repository: url, commit };
    // More than rides on a result, so that the log is uploaded by offset.
    const lines = 20_000;
    const first = await peer.submit("lane", { ...shell(`cat notes.txt; seq ${lines}`), source });
    const followed = plumule("watch", first.id, "--json");
    const ended = await peer.until(first.id);
    expect(ended.job).toMatchObject({ state: "succeeded", runner: worker.id, attempt: 1 });
    const run = ended.runs[0]?.id ?? "";
    expect(ended.runs[0]?.log).toMatchObject({ state: "complete" });
    expect(await peer.log(run)).toBe(`grow\n${upTo(lines).join("\n")}\n`);
    expect(await followed.done).toBe(0);
    expect(await printedBy("logs", first.id)).toContain(`\n${lines}\n`);
    expect(await printedBy("get", first.id, "--json")).toContain(first.id);
    expect(await printedBy("runner", "ls")).toContain("online");
    expect(await printedBy("verify", first.id, "--trust", worker.id)).not.toBe("");

    const mark = `cancelled-${release}-${process.pid}`;
    const second = await peer.submit("lane", {
      ...shell(`echo up; exec -a ${mark} sleep 300`),
      timeouts: { graceMs: 500 },
    });
    await peer.until(
      second.id,
      ({ job, runs }) => job.state === "running" && (runs[0]?.log.bytes ?? 0) >= 0 && processesAbout(mark).length > 0,
    );
    await printedBy("cancel", second.id);
    expect((await peer.until(second.id)).job).toMatchObject({ state: "cancelled" });
    expect(processesAbout(mark)).toEqual([]);
    const events = await peer.events("lane");
    expect(sequencesOf(events)).toEqual(upTo(events.length));
  });

  it("tells one that is older than what is served what to do, and it leaves", async () => {
    const older: typeof fetch = (input, init) => {
      const body = typeof init?.body === "string" ? init.body : "";
      return fetch(
        input,
        body.includes('"protocol":') ? { ...init, body: body.replace(/"protocol":\d+/, '"protocol":0') } : init,
      );
    };
    const advice = "the oldest that is served is 1. Update plumule on this machine";
    const asThen = await peer.startRunner(await releasedRunner(release), folder, {}, older);
    expect(await asThen.done).toBe(77);
    expect(asThen.said.join("\n")).toContain(advice);
    const asNow = await peer.startRunner(runner, folder, {}, older);
    expect(await asNow.done).toBe(7);
    expect(asNow.said.join("\n")).toContain(advice);

    // And as a person starts it, with a proxy in between that makes it older than it is.
    const proxy = createServer((asked, answer) => {
      const { method = "GET", headers } = asked;
      const through = request(`${peer.client.baseUrl}${asked.url ?? ""}`, { method, headers });
      through.on("response", (told) => told.pipe(answer.writeHead(told.statusCode ?? 500, told.headers)));
      void text(asked).then((body) => through.end(body.replace(/"protocol":\d/, '"protocol":0')));
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void proxy.close());
    await once(proxy, "listening");
    const state = join(folder, asNow.id.slice(-8));
    const { port } = proxy.address() as AddressInfo;
    const flags = ["--url", `http://127.0.0.1:${port}`, "--namespace", peer.ns, "--state", state];
    const command = startCommand(["runner", "start", ...flags, "--registration", await peer.registration()], {
      HOME: folder,
    });
    expect([await command.done, command.err()]).toEqual([
      76,
      expect.stringContaining("Update plumule on this machine"),
    ]);
  });
});

describe(`code of ${LAST} and of today at once, as while a deploy goes round`, () => {
  const casts: Record<string, Cast> = {
    "an old edge": { ...allOf(NOW), edge: LAST },
    "a new edge": { ...allOf(LAST), edge: NOW },
    "an old deployment": { ...allOf(NOW), deployment: LAST },
    "an old pool": { ...allOf(NOW), pool: LAST },
    "an old namespace": { ...allOf(NOW), namespace: LAST },
    "a new namespace": { ...allOf(LAST), namespace: NOW },
  };
  const slug = (name: string): string => name.replaceAll(" ", "-");
  let workers: Workers;
  beforeAll(async () => {
    workers = await startWorkers(Object.fromEntries(Object.entries(casts).map(([name, cast]) => [slug(name), cast])));
  });
  afterAll(() => workers?.stop());

  it.concurrent.each(Object.keys(casts))(
    "%s serves jobs by both ways, a cancel, a replacement, a push and a list",
    async (name) => {
      const peer = await openPeer(workers.urls[slug(name)] ?? "", await releasedProtocol(LAST));
      // Nobody is there yet: these go through the backlog.
      const queued = await peer.submit("first", shell("echo queued"));
      const dropped = await peer.submit("second", shell("echo never"));
      await peer.cancel(dropped.id);
      await startRunner(peer, LAST);
      expect((await peer.until(queued.id)).job.state).toBe("succeeded");
      expect((await peer.job(dropped.id)).job.state).toBe("cancelled");
      // A runner is parked now: this one is born assigned.
      const slow = await peer.submit("first", { ...shell("sleep 300"), timeouts: { graceMs: 100 } });
      await peer.until(slow.id, ({ job }) => job.state === "running");
      const next = await peer.submit("first", { ...shell("echo next"), mode: "replace" });
      const done = await peer.until(next.id);
      expect(done.job.state).toBe("succeeded");
      expect(await peer.log(done.runs[0]?.id ?? "")).toBe("next\n");
      expect((await peer.job(slow.id)).job).toMatchObject({ state: "superseded", supersededBy: next.id });
      const events = await peer.events("first");
      expect(sequencesOf(events)).toEqual(upTo(events.length));
      await push(peer);
      const newest = async (): Promise<protocol.JobView | undefined> => {
        const query = { deployment: "pushed" };
        const found = await protocol.call(peer.client, protocol.listJobs, { params: { ns: peer.ns }, query });
        return found.ok ? found.answer.body.items[0] : undefined;
      };
      const pushed = (await vi.waitUntil(newest, { timeout: 10_000, interval: 100 })).id;
      expect((await peer.job(pushed)).job).toMatchObject({ deployment: "pushed", state: "held" });
      const listed = await protocol.call(peer.client, protocol.listJobs, { params: { ns: peer.ns }, query: {} });
      expect(listed.ok && listed.answer.body.items.map(({ id }) => id).toSorted()).toEqual(
        [queued.id, dropped.id, slow.id, next.id, pushed].toSorted(),
      );
    },
  );
});

it(`goes on with everything when a broker of ${LAST} becomes one of today: the job that runs, those that wait, and who watches`, async () => {
  const stateDir = join(folder, "upgraded");
  const before = await startWorkers({ broker: allOf(LAST) }, { stateDir });
  const url = before.urls["broker"] ?? "";
  const old = await releasedProtocol(LAST);
  const peer = await openPeer(url, old);
  await startRunner(peer, LAST);
  const gate = join(folder, "gate");
  const running = await peer.submit("lane", shell(`echo before; until [ -e ${gate} ]; do sleep 0.1; done; echo after`));
  const waiting = await peer.submit("lane", shell("echo second"));
  const held = await peer.submit("other", { ...shell("echo held"), hold: true });
  await peer.until(running.id, ({ job }) => job.state === "running");

  const seen: protocol.Event[] = [];
  let live = false;
  const onState = (state: protocol.WatchState, events: readonly protocol.Event[]): void => {
    live = state.phase === "live";
    seen.push(...events);
  };
  const watching = new AbortController();
  const follower = old.followDeployment(
    {
      open: old.streamOpener(peer.client, WebSocket, { ns: peer.ns, deployment: "lane" }),
      random: () => 0,
      wait: old.waitMs,
    },
    { onState, signal: watching.signal },
  );
  onTestFinished(() => watching.abort());
  await expect.poll(() => live, { timeout: 10_000 }).toBe(true);

  await before.stop();
  const after = await startWorkers({ broker: allOf(NOW) }, { stateDir, port: Number(new URL(url).port) });
  onTestFinished(() => after.stop());
  execFileSync("touch", [gate]);
  const { job, runs } = await peer.until(running.id);
  expect(job).toMatchObject({ state: "succeeded", attempt: 1 });
  expect(await peer.log(runs[0]?.id ?? "")).toBe("before\nafter\n");
  expect((await peer.until(waiting.id)).job.state).toBe("succeeded");
  expect((await peer.job(held.id)).job.state).toBe("held");
  const approved = await old.call(peer.client, old.approveJob, { params: { ns: peer.ns, job: held.id } });
  expect(approved.ok).toBe(true);
  expect((await peer.until(held.id)).job.state).toBe("succeeded");

  const events = await peer.events("lane");
  expect(sequencesOf(events)).toEqual(upTo(events.length));
  await expect.poll(() => seen.at(-1)?.sequence, { timeout: 10_000 }).toBe(events.at(-1)?.sequence);
  expect(sequencesOf(seen)).toEqual(sequencesOf(events).slice(-seen.length));
  watching.abort();
  expect(await follower.done).toEqual({ ended: "aborted" });
});
