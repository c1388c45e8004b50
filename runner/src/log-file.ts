import { createHash, type Hash } from "node:crypto";
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";

/** The finished log of a run: what its result signs. */
export interface SealedLog {
  bytes: number;
  sha256: string;
  /** Bytes of output that are not in the log because it reached its limit. */
  omittedBytes: number;
}

/** A run's log on disk. Bytes that were written never change, so that an upload by offset may follow at any distance. */
export interface LogFile {
  readonly path: string;
  /** Bytes in the file, which are those that may be uploaded. */
  size(): number;
  /** Adds output. Throws when the disk is full: a log that silently lacks lines would be signed as whole. */
  append(bytes: Uint8Array): void;
  /** Up to `maxBytes` from an offset; empty at the end. */
  read(offset: number, maxBytes: number): Promise<Uint8Array>;
  /**
   * Adds the kept tail, puts everything on the disk and closes the file. The same answer again when it is sealed already. Throws when the disk is
   * full; called again, it goes on where it was.
   */
  seal(): SealedLog;
}

/** How much of a log is kept. */
export interface LogLimits {
  /** Greatest size of the file, its own marker lines included. */
  limitBytes: number;
  /** How much of the end is kept when there is more. */
  tailBytes: number;
}

/** The end of the log that is kept when it is too long. */
const LOG_TAIL_BYTES = 256 * 1024;
/** Head and tail of a log that may have so many bytes. */
export function logLimits(limitBytes: number): LogLimits {
  return { limitBytes, tailBytes: Math.min(LOG_TAIL_BYTES, Math.floor(limitBytes / 4)) };
}

/** Room for the two marker lines. */
const MARKER_BYTES = 512;
const READ_BYTES = 256 * 1024;

/**
 * Opens a run's log, or opens it again after a restart of the runner, when its hash is computed anew. Beyond the limit the head stays
 * where it is, a marker line says so at once (a live reader sees why it became quiet), and the last bytes are kept in memory until `seal`
 * writes them behind a second marker. Both markers start with `[plumule]`.
 */
export async function openLogFile(path: string, { limitBytes, tailBytes }: LogLimits): Promise<LogFile> {
  const headBytes = limitBytes - tailBytes - MARKER_BYTES;
  if (headBytes < 0) throw new RangeError(`a log of ${limitBytes} bytes has no room for a tail of ${tailBytes}`);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const hash = createHash("sha256");
  let size = await hashExisting(path, hash);
  const file = openSync(path, "a", 0o600);
  let tail = size > headBytes ? new Tail(tailBytes) : null;
  let ending: Uint8Array | null = null;
  let sealed: SealedLog | null = null;

  /** Writes what the disk takes of it, which is in the file and in the hash then, and gives the rest. */
  const writeSome = (bytes: Uint8Array): Uint8Array => {
    const count = writeSync(file, bytes);
    hash.update(bytes.subarray(0, count));
    size += count;
    return bytes.subarray(count);
  };
  const write = (bytes: Uint8Array): void => {
    for (let rest = bytes; rest.length > 0;) rest = writeSome(rest);
  };
  return {
    path,
    size: () => size,
    append: (bytes) => {
      if (sealed !== null) throw new Error(`the log is sealed: ${path}`);
      const room = Math.max(0, headBytes - size);
      if (tail === null && bytes.length <= room) return write(bytes);
      if (tail === null) {
        write(bytes.subarray(0, room));
        write(
          Buffer.from(
            `\n[plumule] the log is longer than ${limitBytes} bytes; only its end follows, when the run is over\n`,
          ),
        );
        tail = new Tail(tailBytes);
        return tail.add(bytes.subarray(room));
      }
      tail.add(bytes);
    },
    read: async (offset, maxBytes) => {
      const handle = await open(path, "r");
      try {
        const { bytesRead, buffer } = await handle.read(new Uint8Array(maxBytes), 0, maxBytes, offset);
        return buffer.subarray(0, bytesRead);
      } finally {
        await handle.close();
      }
    },
    seal: () => {
      if (sealed !== null) return sealed;
      const kept = tail?.lines() ?? new Uint8Array();
      const omittedBytes = (tail?.total ?? 0) - kept.length;
      const marker = omittedBytes > 0 ? `[plumule] ${omittedBytes} bytes were left out here\n` : "";
      for (ending ??= Buffer.concat([Buffer.from(marker), kept]); ending.length > 0;) ending = writeSome(ending);
      fsyncSync(file);
      closeSync(file);
      sealed = { bytes: size, sha256: hash.digest("hex"), omittedBytes };
      return sealed;
    },
  };
}

/** The last bytes of a stream, in one buffer that goes round: a copy of each chunk would be garbage faster than it is collected. */
class Tail {
  /** Bytes that were ever added. */
  total = 0;
  readonly #ring: Buffer;

  constructor(limitBytes: number) {
    this.#ring = Buffer.alloc(limitBytes);
  }

  add(bytes: Uint8Array): void {
    const size = this.#ring.length;
    const kept = bytes.subarray(Math.max(0, bytes.length - size));
    const at = (this.total + bytes.length - kept.length) % size;
    this.#ring.set(kept.subarray(0, size - at), at);
    this.#ring.set(kept.subarray(size - at), 0);
    this.total += bytes.length;
  }

  /** What is kept, from the start of a line when something before it was dropped. */
  lines(): Uint8Array {
    if (this.total <= this.#ring.length) return this.#ring.subarray(0, this.total);
    const at = this.total % this.#ring.length;
    const kept = Buffer.concat([this.#ring.subarray(at), this.#ring.subarray(0, at)]);
    return kept.subarray(kept.indexOf(0x0a) + 1);
  }
}

async function hashExisting(path: string, hash: Hash): Promise<number> {
  const handle = await open(path, "a+", 0o600);
  try {
    let size = 0;
    const buffer = new Uint8Array(READ_BYTES);
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, size);
      if (bytesRead === 0) return size;
      hash.update(buffer.subarray(0, bytesRead));
      size += bytesRead;
    }
  } finally {
    await handle.close();
  }
}
