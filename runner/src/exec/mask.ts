import type { Assignment } from "@plumule/protocol";
import { createRedactor, type RedactedStream } from "../redact.ts";
import { openIdentity } from "../secrets/identity.ts";

/** Passes bytes of one stream on, masked like the log of its run. */
export type MaskedOutput = {
  /** Bytes that came; what is held back because it may be the beginning of a secret goes out a moment later. */
  push(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
};

/** How long bytes are held back that may be the beginning of a secret, ms: a person who types sees them at once, more or less. */
const HOLD_MS = 100;

/**
 * What masks the output of a command in the workspace of a run: null where the run has no secrets. They are opened for this alone, so that neither
 * their conditions nor their time matter; a box that is not sealed to this machine was not opened by the run either.
 */
export async function maskOf(
  { spec }: Pick<Assignment, "spec">,
  identityFile: string,
): Promise<(() => RedactedStream) | null | { refused: string }> {
  if (spec.secrets === undefined) return null;
  const key = await openIdentity(identityFile);
  if ("refused" in key)
    return { refused: "The secrets of this run cannot be masked, because its runner cannot read its own key." };
  const { openBox } = await import("@plumule/protocol/seal");
  const values: Record<string, Uint8Array> = {};
  for (const { name, box } of spec.secrets) {
    const opened = box === undefined ? null : await openBox(box, key.identity);
    if (opened?.ok === true) values[name] = opened.value.value;
  }
  const redactor = createRedactor(values);
  return () => redactor.stream();
}

/** Masks a stream. */
export function maskedOutput(stream: RedactedStream | null, send: (bytes: Uint8Array) => Promise<void>): MaskedOutput {
  let timer: NodeJS.Timeout | undefined;
  return {
    async push(bytes) {
      clearTimeout(timer);
      if (stream === null) return send(bytes);
      timer = setTimeout(() => void send(stream.settle()), HOLD_MS);
      return send(stream.push(bytes));
    },
    async end() {
      clearTimeout(timer);
      if (stream !== null) await send(stream.flush());
    },
  };
}
