import { join } from "node:path";
import { type BridgeOptions, openJobCobs, readNodeId, runScribe, type Trust } from "@plumule/bridge";
import { isFor } from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import type { Context } from "./context.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";
import { readPinned, readPolicy } from "./trust-store.ts";

/** What writes job COBs beside a bridge until the signal aborts, in the name of the node. `policy` is a file with whom it believes, instead of the pinned keys. */
export async function scribeOf(
  { env, cwd, terminal }: Pick<Context, "env" | "cwd" | "terminal">,
  { place }: Connection,
  { url, namespace, state, radHome, repositories, seed, once, dryRun }: BridgeOptions,
  policy: string | undefined,
): Promise<((signal: AbortSignal) => Promise<void>) | Failure> {
  if (seed !== undefined || once || dryRun)
    return misuse("--write-cobs needs a node and time", "Leave --seed, --once and --dry-run away.");
  const trust = policy === undefined ? await pinnedTrust(env) : await trustOf(policy, cwd);
  if (isFailure(trust)) return trust;
  if (trust.keys.size === 0)
    return misuse(
      "No runner is believed, so that nothing could be written",
      "Pin their keys: `plumule ls runners`, `plumule key trust did:key:…`.",
    );
  const node = await readNodeId(radHome);
  if (node === null) return misuse(`There is no node's key in ${join(radHome, "keys")}`, "Make one: `rad auth`.");
  return (signal) =>
    runScribe(
      { url, namespace, state: join(state, "cobs"), radHome, node, trust, repositories },
      {
        fetch,
        bearer: place.token,
        now: () => Date.now(),
        say: terminal.note,
        openCobs: (repository) => openJobCobs(repository, radHome),
        signal,
      },
    );
}

async function pinnedTrust(env: Context["env"]): Promise<Trust | Failure> {
  const pinned = await readPinned(env);
  return isFailure(pinned) ? pinned : { keys: new Set(pinned.map(({ key }) => key)), policy: null };
}

async function trustOf(file: string, cwd: string): Promise<Trust | Failure> {
  const policy = await readPolicy(file, cwd);
  if (isFailure(policy)) return policy;
  const signers = policy.signers.filter((signer) => isFor(signer, "result"));
  return { keys: new Set(signers.map(({ key }) => key)), policy };
}
