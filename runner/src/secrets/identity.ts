import type { Envelope, Signer } from "@plumule/protocol";
import { signRecipient } from "@plumule/protocol";
import { newIdentity, recipientOf } from "@plumule/protocol/seal";
import { createBackoff, pause } from "../backoff.ts";
import type { Broker } from "../broker.ts";
import { createPrivateFile, readPrivateFile } from "../private-file.ts";

/** The key that secrets for a runner are sealed to. `recipient` is public; the identity opens every box that was ever sealed to it. */
export type SecretIdentity = { identity: string; recipient: string; createdAt: string };

/**
 * Reads the age identity of a runner, and makes it when it is missing: a file of age-keygen's form with mode 0600, so that `age -d -i` reads
 * it too. A file that others may read is refused.
 */
export async function openIdentity(path: string): Promise<SecretIdentity | { refused: string }> {
  const read = await readPrivateFile(path);
  if (read.ok) return parseIdentity(path, read.text);
  if (read.reason !== "missing") return { refused: read.detail };
  const made: SecretIdentity = { ...(await newIdentity()), createdAt: new Date().toISOString() };
  const text = `# created: ${made.createdAt}\n# public key: ${made.recipient}\n${made.identity}\n`;
  // Of two that start at once, the second reads what the first has made.
  return (await createPrivateFile(path, text)) ? made : openIdentity(path);
}

/** The recipient as a runner publishes it. The same identity gives the same bytes, so that a start changes nothing at the broker. */
export async function signedRecipient({ recipient, createdAt }: SecretIdentity, signer: Signer): Promise<Envelope> {
  return signRecipient({ recipient, createdAt }, signer);
}

/** Tells the broker where to seal to, again and again until it has taken it. Without that the runner works, but for jobs with secrets. */
export async function publishRecipient(
  { broker, recipient, say }: { broker: Pick<Broker, "publish">; recipient: Envelope; say: (line: string) => void },
  stopped: AbortSignal,
): Promise<void> {
  const backoff = createBackoff(500, 30_000);
  while (!stopped.aborted) {
    const answer = await broker.publish(recipient);
    if (answer.ok) return;
    if (!answer.retry) return say(`secrets cannot be sealed to this runner: ${answer.problem.detail}`);
    await pause(backoff.next(), stopped);
  }
}

async function parseIdentity(path: string, text: string): Promise<SecretIdentity | { refused: string }> {
  const identity = /^AGE-SECRET-KEY-1[A-Z0-9]+$/m.exec(text)?.[0];
  const created = new Date(/^# created: (\S+)$/m.exec(text)?.[1] ?? 0);
  const recipient = identity === undefined ? null : await recipientOf(identity).catch(() => null);
  if (identity === undefined || recipient === null || Number.isNaN(created.getTime()))
    return { refused: `${path} holds no age identity; move it away, and secrets that were sealed to it are lost.` };
  return { identity, recipient, createdAt: created.toISOString() };
}
