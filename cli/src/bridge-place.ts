import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { Signer } from "@plumule/protocol";
import { agentSigner, createKey, listAgentKeys, loadKey, openAgentSigner } from "@plumule/runner/settings";
import type { Context } from "./context.ts";
import { type Failure, misuse } from "./failure.ts";

type Around = Pick<Context, "env" | "cwd">;

/** The folder of what the bridge keeps: the one given, else `plumule/bridge` where programs keep their state. */
export function bridgeState(given: string | undefined, { env, cwd }: Around): string {
  return resolve(cwd, given ?? join(env["XDG_STATE_HOME"] ?? join(homedir(), ".local", "state"), "plumule", "bridge"));
}

/** The home of the Radicle node: the one given, else RAD_HOME, else `~/.radicle`. */
export function radHomeOf(given: string | undefined, { env, cwd }: Around): string {
  return resolve(cwd, given ?? env["RAD_HOME"] ?? join(homedir(), ".radicle"));
}

/** A key of the agent, or of a file, by default `key.pem` of the state folder; of a file with a passphrase the agent may hold the key. */
export async function signerOf(
  { agent, key }: { agent?: string; key?: string },
  state: string,
  { env, cwd }: Around,
): Promise<Signer | Failure> {
  const path = resolve(cwd, key ?? join(state, "key.pem"));
  if (agent !== undefined) {
    const opened = await openAgentSigner(agent);
    return "refused" in opened ? misuse(opened.refused, "See what it has: `plumule key show --agent`.") : opened.signer;
  }
  const loaded = await loadKey(path);
  if (loaded.ok) return loaded.signer;
  if (loaded.reason === "missing" && key === undefined) {
    const made = await createKey(path);
    return made.ok ? made.signer : misuse(made.detail, "Start it again.");
  }
  const socket = env["SSH_AUTH_SOCK"];
  const { publicKey } = loaded;
  if (publicKey !== undefined && socket !== undefined) {
    const held = await listAgentKeys(socket).catch(() => []);
    if (held.some((one) => Buffer.compare(one.publicKey, publicKey) === 0)) return agentSigner(socket, publicKey);
  }
  return misuse(
    `${path}: ${loaded.detail}`,
    "Add it to an ssh-agent (`rad auth`), or leave --key away for a key of its own.",
  );
}
