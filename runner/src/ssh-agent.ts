import { createPublicKey, verify } from "node:crypto";
import { createConnection } from "node:net";
import type { Signer } from "@plumule/protocol";
import { sshPublicKey, SshReader, sshString, sshUint32 } from "./ssh-wire.ts";

/** An Ed25519 key that an agent holds. */
export interface AgentKey {
  publicKey: Uint8Array;
  comment: string;
}

/** Message numbers of draft-ietf-sshm-ssh-agent, section 5.1. */
const REQUEST_IDENTITIES = 11;
const IDENTITIES_ANSWER = 12;
const SIGN_REQUEST = 13;
const SIGN_RESPONSE = 14;

/** An agent may ask a person to confirm a signature, ms. */
const ANSWER_MS = 30_000;
/** Longest answer that is read, as in OpenSSH. */
const ANSWER_BYTES = 256 * 1024;

/** The Ed25519 keys of the agent behind a socket (`SSH_AUTH_SOCK`); keys of other kinds are left out. Rejects when it does not answer. */
export async function listAgentKeys(socketPath: string): Promise<AgentKey[]> {
  const answer = await ask(socketPath, REQUEST_IDENTITIES, new Uint8Array(), IDENTITIES_ANSWER);
  const count = answer.uint32();
  const keys: AgentKey[] = [];
  for (let index = 0; index < count; index++) {
    const blob = new SshReader(answer.string());
    const comment = answer.text();
    if (blob.text() === "ssh-ed25519") keys.push({ publicKey: blob.string(), comment });
  }
  return keys;
}

/**
 * A signer whose key stays in the agent, such as the key of a Radicle node. With flags 0 an agent signs the bytes themselves, so the signature
 * is plain RFC 8032 and not an SSHSIG. Each signature is checked before it is returned; `sign` rejects when the agent refuses.
 */
export function agentSigner(socketPath: string, publicKey: Uint8Array): Signer {
  return {
    publicKey,
    sign: async (message) => {
      const request = Buffer.concat([sshString(sshPublicKey(publicKey)), sshString(message), sshUint32(0)]);
      const answer = await ask(socketPath, SIGN_REQUEST, request, SIGN_RESPONSE);
      const blob = new SshReader(answer.string());
      const format = blob.text();
      const signature = blob.string();
      if (format !== "ssh-ed25519" || !isSignature(publicKey, message, signature)) {
        throw new Error(`ssh-agent answered with no Ed25519 signature of the message (${format})`);
      }
      return signature;
    },
  };
}

function isSignature(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const x = Buffer.from(publicKey).toString("base64url");
  return verify(null, message, createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }), signature);
}

/** Sends one message (uint32 length, byte type, content) and reads one, over a connection of its own. */
function ask(socketPath: string, type: number, content: Uint8Array, expected: number): Promise<SshReader> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    let received: Buffer = Buffer.alloc(0);
    const fail = (detail: string): void => {
      socket.destroy();
      reject(new Error(`ssh-agent at ${socketPath}: ${detail}`));
    };
    socket.setTimeout(ANSWER_MS, () => fail(`no answer within ${ANSWER_MS} ms`));
    socket.on("error", (error) => fail(error.message));
    socket.on("close", () => fail("closed the connection"));
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 4) return;
      const length = received.readUInt32BE(0);
      if (length === 0 || length > ANSWER_BYTES) return fail(`an answer of ${length} bytes`);
      if (received.length < 4 + length) return;
      if (received[4] !== expected) return fail(`refused (message ${received[4]})`);
      resolve(new SshReader(received.subarray(5, 4 + length)));
      socket.destroy();
    });
    socket.write(Buffer.concat([sshUint32(1 + content.length), Uint8Array.of(type), content]));
  });
}
