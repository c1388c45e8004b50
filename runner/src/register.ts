import { createHash } from "node:crypto";
import { call, type ClientDeps, didKeyOf, registerRunner, signRegistration, type Signer } from "@plumule/protocol";
import type { RunnerConfig, RunnerFolders } from "./config.ts";
import { RUNNER_EXIT, type StartRefusal } from "./exit-codes.ts";
import { createKey, type KeyRefusal, loadKey } from "./key.ts";
import { agentSigner, listAgentKeys } from "./ssh-agent.ts";

/** How long a registration may take, ms. */
const REGISTER_MS = 30_000;

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

/** The signer of a key that the ssh-agent has. */
export async function openAgentSigner(did: string): Promise<{ signer: Signer; made: boolean } | { refused: string }> {
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

/**
 * Registers the key with the one-time token of the configuration, if it names one. The proof is signed for `<origin>/v1/<namespace>`. A service gives its
 * token at every start: with a key that was there before, one that is used up is no fault, because the session says whether the key is known.
 */
export async function register(
  { url, namespace, name, registration: token }: RunnerConfig,
  { signer, made }: { signer: Signer; made: boolean },
  fetch: ClientDeps["fetch"],
): Promise<StartRefusal | null> {
  if (token === undefined || url === undefined) return null;
  const tokenSha256 = createHash("sha256").update(token).digest("hex");
  const proof = await signRegistration(
    { audience: `${url}/v1/${namespace}`, tokenSha256, issuedAt: new Date().toISOString() },
    signer,
  );
  try {
    const answer = await call({ fetch, baseUrl: url }, registerRunner, {
      params: { ns: namespace },
      body: { token, name, proof },
      signal: AbortSignal.timeout(REGISTER_MS),
    });
    if (answer.ok || (!made && answer.problem.code === "unauthenticated")) return null;
    const { problem, status } = answer;
    return {
      refused: `The broker did not register this runner: ${problem.detail} ${problem.next}`,
      exit: status >= 500 || status === 429 ? RUNNER_EXIT.tryAgain : RUNNER_EXIT.refused,
    };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return {
      refused: `The broker at ${url} cannot be reached: ${String(cause)}. Start the runner again when it can.`,
      exit: RUNNER_EXIT.tryAgain,
    };
  }
}
