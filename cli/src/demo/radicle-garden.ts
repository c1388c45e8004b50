import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { bridgeOptionsSchema, type JobCobs, openJobCobs, runScribe, startBridge } from "@plumule/bridge";
import { didKeyOf } from "@plumule/protocol";
import { createKey, findExecutable } from "@plumule/runner";
import { shortKey } from "../print.ts";
import { committer, type Garden, gardener, HOOK } from "./garden.ts";
import { setApart, startRadicleNode } from "./radicle-node.ts";
import type { Stage } from "./stage.ts";
import { until } from "./until.ts";

/** The programs without which there is no node, no push to it or no job COB. */
const PROGRAMS = ["rad", "radicle-node", "git-remote-rad", "rad-job"];
/** A bridge tells of a push at once, or, if it was not yet subscribed, two seconds later; the rest is for a busy machine, ms. */
const TELLING_MS = 15_000;

/** Whether Radicle is installed. */
export function hasRadicle(): boolean {
  const path = process.env["PATH"] ?? "";
  return PROGRAMS.every((program) => findExecutable(program, path, "/") !== null);
}

type Parts = Pick<Stage, "broker" | "runner" | "signal" | "keep">;
/** A repository (`z…`) on a node (`z6Mk…`) whose home is `radHome`, and a clone of it. */
type Place = { radHome: string; node: string; id: string; clone: string; command: ReturnType<typeof gardener> };

/**
 * Makes a Radicle node with the home `RAD_HOME`, which is empty, that speaks with nobody, a repository on it, and beside it a bridge that tells the
 * broker of pushes and writes job COBs of what the runner has signed.
 */
export async function makeRadicleGarden(folder: string, parts: Parts): Promise<Garden> {
  // Whoever cleans up may have done so while this was starting.
  const begun = async (end: () => Promise<void>): Promise<void> => {
    parts.keep(end);
    if (parts.signal.aborted) await end();
    parts.signal.throwIfAborted();
  };
  const place = await makePlace(folder, begun);
  const { id, node, clone, command } = place;
  const { cobs, hookKey, saying } = await startBridgeBeside(place, folder, parts, begun);
  return {
    clone,
    hookKey,
    described: `rad:${id} on a Radicle node of its own, ${shortKey(`did:key:${node}`)}, offline, with a bridge beside it`,
    command: "git push rad",
    commit: committer(command, clone),
    async push(commit) {
      await command(clone, "git", "push", "--quiet", "rad", "main");
      return [`bridge: ${await saying("the bridge's word on the push", ` ${commit.slice(0, 7)} `)}`];
    },
    cobRun: (commit, log) =>
      until("the job COB", TELLING_MS, async () => {
        const runs = (await cobs.runsOf(commit)) ?? [];
        return runs.find((run) => run.node === node && run.log === log && run.status !== "started") ?? null;
      }),
  };
}

type Begun = (end: () => Promise<void>) => Promise<void>;

async function makePlace(folder: string, begun: Begun): Promise<Place> {
  const clone = join(folder, "clone");
  await mkdir(clone, { recursive: true });
  const command = gardener(folder);
  const rad = (...args: string[]): Promise<string> => command(clone, "rad", ...args);
  const radHome = process.env["RAD_HOME"] ?? "";
  await rad("auth", "--alias", "gardener", "--stdin");
  await setApart(radHome);
  const running = await startRadicleNode({ ...process.env, RAD_HOME: radHome });
  await begun(() => running.stop());
  await command(clone, "git", "init", "--quiet", "--template=", "--initial-branch=main");
  await command(clone, "git", "commit", "--quiet", "--allow-empty", "--message", "sow");
  const about = ["--name", "garden", "--description", "A plant without inputs", "--default-branch", "main"];
  await rad("init", ...about, "--public", "--no-confirm");
  const [, id = ""] = /^rad:(z\w+)$/m.exec(await rad(".")) ?? [];
  const [node = ""] = /^z6Mk\w+$/m.exec(await rad("self", "--nid")) ?? [];
  return { radHome, node, id, clone, command };
}

/** Starts a bridge with a key of its own. `saying` waits for a line of it that has a text. */
async function startBridgeBeside(
  { radHome, node, id }: Place,
  folder: string,
  { broker: { url, namespace, token }, runner, signal }: Parts,
  begun: Begun,
): Promise<{ cobs: JobCobs; hookKey: string; saying: (what: string, text: string) => Promise<string> }> {
  const key = await createKey(join(folder, "bridge-key.pem"));
  if (!key.ok) throw new Error(key.detail);
  const state = join(folder, "bridge");
  const said: string[] = [];
  const say = (line: string): void => void said.push(line);
  const options = bridgeOptionsSchema.parse({ url, namespace, hook: HOOK, state, radHome });
  const bridge = await startBridge(options, { fetch, signer: key.signer, now: () => new Date(), say });
  // The node knows nobody to whom it could be announced.
  const cobs = { ...openJobCobs(id, radHome), announce: async () => {} };
  const trust = { keys: new Set([runner]), policy: null };
  const leaving = new AbortController();
  const writing = runScribe(
    { url, namespace, state: join(state, "cobs"), radHome, node, trust, repositories: [id] },
    { fetch, bearer: token, now: Date.now, say, openCobs: () => cobs, signal: leaving.signal },
  );
  await begun(async () => {
    bridge.stop();
    leaving.abort();
    await Promise.all([bridge.done, writing]);
  });
  const saying = (what: string, text: string): Promise<string> =>
    until(what, TELLING_MS, async () => {
      signal.throwIfAborted();
      return said.find((line) => line.includes(text)) ?? null;
    });
  await saying("the bridge", "following the node");
  return { cobs, hookKey: didKeyOf(key.signer.publicKey), saying };
}
