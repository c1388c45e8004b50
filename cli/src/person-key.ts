import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { didKeyOf, parseDidKey, type Signer } from "@plumule/protocol";
import { agentSigner, listAgentKeys, loadKey } from "@plumule/runner/settings";
import { type Failure, misuse } from "./failure.ts";

/** Which key a person signs with: a file, or a did:key that the ssh-agent holds. */
export type KeyFlags = { key?: string };

/** The words of `--key`, for every command that signs in a person's name. */
export const KEY_FLAG = [
  "--key <key>",
  "key file, or a did:key that the ssh-agent holds; by default the Radicle key of this user",
] as const;

/**
 * The key that a person signs with. Without a flag it is the Radicle key of this user (`$RAD_HOME/keys/radicle`): from the ssh-agent, where `rad auth`
 * puts it, or from its file when that has no passphrase.
 */
export async function findPersonKey(
  { key }: KeyFlags,
  { env, cwd }: { env: Readonly<Record<string, string | undefined>>; cwd: string },
): Promise<Signer | Failure> {
  const socket = env["SSH_AUTH_SOCK"];
  if (key?.startsWith("did:") === true) return fromAgent(key, socket);
  const path =
    key === undefined ? join(env["RAD_HOME"] ?? join(homedir(), ".radicle"), "keys", "radicle") : resolve(cwd, key);
  const loaded = await loadKey(path);
  if (loaded.ok) return loaded.signer;
  if (loaded.publicKey !== undefined) return fromAgent(didKeyOf(loaded.publicKey), socket);
  if (key === undefined && loaded.reason === "missing")
    return misuse(`There is no Radicle key at ${path}`, "Make one with `rad auth`, or name another key with --key.");
  return misuse(loaded.detail, "Put the key into the ssh-agent (`rad auth`, `ssh-add`), or name another with --key.");
}

async function fromAgent(did: string, socket: string | undefined): Promise<Signer | Failure> {
  const wanted = parseDidKey(did);
  if (!wanted.ok)
    return misuse(`${did} is no did:key of an Ed25519 key`, "See what there is: `plumule key show --agent`.");
  if (socket === undefined) return misuse("There is no ssh-agent", "Start one and add the key: ssh-add.");
  const held = await listAgentKeys(socket);
  const found = held.find(({ publicKey }) => didKeyOf(publicKey) === did);
  if (found === undefined)
    return misuse(
      `The ssh-agent does not hold ${did}`,
      "Add it: `rad auth` or `ssh-add`; see `plumule key show --agent`.",
    );
  return agentSigner(socket, found.publicKey);
}
