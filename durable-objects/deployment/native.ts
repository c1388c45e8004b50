import { createHash, type Hash } from "node:crypto";
import { zstdDecompressSync } from "node:zlib";
import { refuse, type Refusal } from "@plumule/protocol";

/** Bytes that zstd unpacks in one step: with the few of Node each would be copied more often. */
const CHUNK_BYTES = 128 * 1024;

/**
 * Unpacks what a runner packed with zstd. Never makes more than `limitBytes`, however much was packed: a bomb costs that much and is refused, as
 * is what is not zstd.
 */
export function unpack(packed: Uint8Array, limitBytes: number): Uint8Array | Refusal {
  try {
    return zstdDecompressSync(packed, { maxOutputLength: limitBytes, chunkSize: CHUNK_BYTES });
  } catch (error) {
    if (error instanceof RangeError)
      return refuse("payload-too-large", `Unpacked the body may have at most ${limitBytes} bytes.`);
    return refuse("invalid-body", "The body is not packed with zstd, as its Content-Encoding says.");
  }
}

/**
 * The SHA-256 of a log that grows, kept in memory so that its end needs no second look at every byte. It is that of one run at a time: whoever
 * asks for more than it knows reads the rest from storage, and after a restart all of it.
 */
export class RunningDigest {
  #epoch = 0;
  #bytes = 0;
  #hash: Hash = createHash("sha256");

  /** Bytes were added to a run's log at an offset. */
  add(epoch: number, offset: number, bytes: Uint8Array): void {
    if (offset === 0) [this.#epoch, this.#bytes, this.#hash] = [epoch, 0, createHash("sha256")];
    if (this.#epoch !== epoch || this.#bytes !== offset) return;
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
  }

  /** A hash of the first `bytes` of a run's log, to go on with; of none when it is not the run that is known here. */
  of(epoch: number): { hash: Hash; bytes: number } {
    return this.#epoch === epoch
      ? { hash: this.#hash.copy(), bytes: this.#bytes }
      : { hash: createHash("sha256"), bytes: 0 };
  }
}
