import { createHash } from "node:crypto";
import {
  call,
  type ClientDeps,
  didKeyOf,
  type Problem,
  registerRunner,
  signRegistration,
  type Signer,
} from "@plumule/protocol";
import type { RunnerConfig, RunnerFolders } from "./config.ts";
import { createKey, type KeyRefusal, loadKey } from "./key.ts";
import { agentSigner, listAgentKeys } from "./ssh-agent.ts";

/** The runner's signer: of the ssh-agent when the configuration names a key there, else of the key file, which is made when it is missing. */
export async function openSigner(
  config: RunnerConfig,
  folders: RunnerFolders,
): Promise<{ signer: Signer; made: boolean } | { refused: string }> {
  if (config.agentKey !== undefined) return openAgentSigner(config.agentKey);
  const loaded = await loadKey(folders.key);
  if (loaded.ok) return { signer: loaded.signer, made: false };
  if (loaded.reason !== "missing") return refusal(loaded);
  const created = await createKey(folders.key);
  return created.ok ? { signer: created.signer, made: true } : refusal(created);
}

async function openAgentSigner(did: string): Promise<{ signer: Signer; made: boolean } | { refused: string }> {
  const socket = process.env["SSH_AUTH_SOCK"];
  if (socket === undefined)
    return { refused: "SSH_AUTH_SOCK is not set: start an ssh-agent and add the key with ssh-add." };
  const keys = await listAgentKeys(socket);
  const key = keys.find((one) => didKeyOf(one.publicKey) === did);
  if (key === undefined)
    return {
      refused: `The ssh-agent has no key ${did}; it has ${keys.map((one) => didKeyOf(one.publicKey)).join(", ") || "no Ed25519 key"}.`,
    };
  return { signer: agentSigner(socket, key.publicKey), made: false };
}

function refusal({ detail }: KeyRefusal): { refused: string } {
  return { refused: detail };
}

/** Registers the key with a one-time token. `audience` is what the proof is signed for: `<origin>/v1/<namespace>`. */
export async function register(
  config: RunnerConfig,
  token: string,
  signer: Signer,
  fetch: ClientDeps["fetch"],
): Promise<{ ok: true; pool: string | null } | { ok: false; problem: Problem }> {
  const tokenSha256 = createHash("sha256").update(token).digest("hex");
  const proof = await signRegistration(
    { audience: `${config.url}/v1/${config.namespace}`, tokenSha256, issuedAt: new Date().toISOString() },
    signer,
  );
  const answer = await call({ fetch, baseUrl: config.url }, registerRunner, {
    params: { ns: config.namespace },
    body: { token, name: config.name, proof },
  });
  return answer.ok ? { ok: true, pool: answer.answer.body.pool } : { ok: false, problem: answer.problem };
}
