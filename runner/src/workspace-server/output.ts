/** Output kept for one answer. */
export type KeptOutput = {
  add(chunk: Uint8Array): void;
  /** What was kept as text, of which at most `limitBytes` are wanted, and how many bytes are missing in its middle. */
  text(limitBytes: number): { output: string; omittedBytes: number };
};

/** Keeps the first and the last half of `limitBytes`: how a command began and how it ended tell most about it. */
export function keepOutput(limitBytes: number): KeptOutput {
  const half = Math.floor(limitBytes / 2);
  const head: Uint8Array[] = [];
  let headBytes = 0;
  let tail: Uint8Array[] = [];
  let tailBytes = 0;
  let omittedBytes = 0;
  const trim = (): void => {
    const all = Buffer.concat(tail);
    const kept = all.subarray(Math.max(0, all.length - half));
    omittedBytes += all.length - kept.length;
    tail = [kept];
    tailBytes = kept.length;
  };
  return {
    add(chunk) {
      const first = chunk.subarray(0, half - headBytes);
      const rest = chunk.subarray(first.length);
      if (first.length > 0) head.push(first);
      headBytes += first.length;
      if (rest.length === 0) return;
      tail.push(rest);
      tailBytes += rest.length;
      // Seldom, so that each byte is copied about once.
      if (tailBytes > 2 * half) trim();
    },
    text(wantedBytes) {
      trim();
      const wanted = Math.min(half, Math.floor(wantedBytes / 2));
      const [first, last] = [Buffer.concat(head), Buffer.concat(tail)];
      const omitted = omittedBytes + Math.max(0, first.length - wanted) + Math.max(0, last.length - wanted);
      if (omitted === 0) return { output: Buffer.concat([first, last]).toString(), omittedBytes: 0 };
      const [begin, end] = [first.subarray(0, wanted), last.subarray(Math.max(0, last.length - wanted))];
      return {
        output: `${begin.toString()}\n[${omitted} bytes are left out here]\n${end.toString()}`,
        omittedBytes: omitted,
      };
    },
  };
}
