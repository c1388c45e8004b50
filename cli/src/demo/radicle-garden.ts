import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { bridgeOptionsSchema, openJobCobs, runScribe, startBridge } from "@plumule/bridge";
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

/**
 * Makes a Radicle node with the home `RAD_HOME`, which is empty, that speaks with nobody, a repository on it, and beside it a bridge that tells the
 * broker of pushes and writes job COBs of what the runner has signed.
 */
export async function makeRadicleGarden(
  folder: string,
  { broker, runner, signal, keep }: Pick<Stage, "broker" | "runner" | "signal" | "keep">,
): Promise<Garden> {
  const clone = join(folder, "clone");
  await mkdir(clone, { recursive: true });
  const command = gardener(folder);
  const rad = (...args: string[]): Promise<string> => command(clone, "rad", ...args);
  const git = (...args: string[]): Promise<string> => command(clone, "git", ...args);
  // Whoever cleans up may have done so while this was starting.
  const begun = async (end: () => Promise<void>): Promise<void> => {
    keep(end);
    if (signal.aborted) await end();
    signal.throwIfAborted();
  };
  const radHome = process.env["RAD_HOME"] ?? "";
  await rad("auth", "--alias", "gardener", "--stdin");
  await setApart(radHome);
  const node = await startRadicleNode({ ...process.env, RAD_HOME: radHome });
  await begun(() => node.stop());
  await git("init", "--quiet", "--template=", "--initial-branch=main");
  await git("commit", "--quiet", "--allow-empty", "--message", "sow");
  const about = ["--name", "garden", "--description", "A plant without inputs", "--default-branch", "main"];
  await rad("init", ...about, "--public", "--no-confirm");
  const [, id = ""] = /^rad:(z\w+)$/m.exec(await rad(".")) ?? [];
  const [self = ""] = /^z6Mk\w+$/m.exec(await rad("self", "--nid")) ?? [];

  const key = await createKey(join(folder, "bridge-key.pem"));
  if (!key.ok) throw new Error(key.detail);
  const { url, namespace, token } = broker;
  const state = join(folder, "bridge");
  const said: string[] = [];
  const say = (line: string): void => void said.push(line);
  const bridge = await startBridge(bridgeOptionsSchema.parse({ url, namespace, hook: HOOK, state, radHome }), {
    fetch,
    signer: key.signer,
    now: () => new Date(),
    say,
  });
  // The node knows nobody to whom it could be announced.
  const cobs = { ...openJobCobs(id, radHome), announce: async () => {} };
  const leaving = new AbortController();
  const writing = runScribe(
    {
      ...{ url, namespace, state: join(state, "cobs"), radHome, node: self, repositories: [id] },
      trust: { keys: new Set([runner]), policy: null },
    },
    {
      fetch,
      bearer: token,
      now: Date.now,
      say,
      openCobs: () => cobs,
      signal: AbortSignal.any([signal, leaving.signal]),
    },
  );
  await begun(async () => {
    bridge.stop();
    leaving.abort();
    await Promise.all([bridge.done, writing]);
  });
  const saying = (what: string, text: string): Promise<string> =>
    until(what, TELLING_MS, async () => said.find((line) => line.includes(text)) ?? null);
  await saying("the bridge", "following the node");
  return {
    clone,
    hookKey: didKeyOf(key.signer.publicKey),
    described: `rad:${id} on a Radicle node of its own, ${shortKey(`did:key:${self}`)}, offline, with a bridge beside it`,
    command: "git push rad",
    commit: committer(command, clone),
    async push(commit) {
      await git("push", "--quiet", "rad", "main");
      return [`bridge: ${await saying("the bridge's word on the push", ` ${commit.slice(0, 7)} `)}`];
    },
    cobRun: (commit, log) =>
      until("the job COB", TELLING_MS, async () => {
        const runs = (await cobs.runsOf(commit)) ?? [];
        return runs.find((run) => run.node === self && run.log === log && run.status !== "started") ?? null;
      }),
  };
}
