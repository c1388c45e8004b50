import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type BridgeOptions, openJobCobs, runScribe } from "@plumule/bridge";
import { didKeyOf } from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import type { Context } from "./context.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";
import { readPinned } from "./trust-store.ts";

/** What writes job COBs beside a bridge until the signal aborts, in the name of the node; it believes the runners whose keys are pinned. */
export async function scribeOf(
  { env, terminal }: Pick<Context, "env" | "terminal">,
  { place }: Connection,
  { url, namespace, state, radHome, repositories, seed, once, dryRun }: BridgeOptions,
): Promise<((signal: AbortSignal) => Promise<void>) | Failure> {
  if (seed !== undefined || once || dryRun)
    return misuse("--write-cobs needs a node and time", "Leave --seed, --once and --dry-run away.");
  const pinned = await readPinned(env);
  if (isFailure(pinned)) return pinned;
  if (pinned.length === 0)
    return misuse(
      "No runner is believed, so that nothing could be written",
      "Pin their keys: `plumule runner ls`, `plumule key trust did:key:…`.",
    );
  const node = await readNodeId(radHome);
  if (node === null) return misuse(`There is no node's key in ${join(radHome, "keys")}`, "Make one: `rad auth`.");
  const believed = new Set(pinned.map(({ key }) => key));
  return (signal) =>
    runScribe(
      { url, namespace, state: join(state, "cobs"), radHome, node, believed, repositories },
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

/** The id of the node (`z6Mk…`) from its public key, a line of OpenSSH whose base64 ends with the 32 bytes of the key (RFC 8709). */
async function readNodeId(radHome: string): Promise<string | null> {
  const line = await readFile(join(radHome, "keys", "radicle.pub"), "utf8").catch(() => "");
  const [, base64] = /^ssh-ed25519 (\S+)/.exec(line) ?? [];
  const bytes = base64 === undefined ? null : Buffer.from(base64, "base64");
  return bytes?.length === 51 ? didKeyOf(new Uint8Array(bytes.subarray(19))).slice("did:key:".length) : null;
}
