import { equalBytes, isRefusal, LIMITS, type Millis } from "@plumule/protocol";
import type { Output, Run } from "./core/model.ts";
import type { DerivationBatch } from "./core/report.ts";
import { RunningDigest, unpack } from "./native.ts";

/**
 * A position is `epoch × 2^27 + offset`: beyond the limit of a log (2^26 bytes) and of a run's derivations (2^24 characters), and below
 * 2^53 for the first 67 million epochs. So one integer key orders the bytes of every run without an index.
 */
const SPAN = 2 ** 27;

/** The first position of a run, and the first behind it. */
const spanOf = (epoch: number): [number, number] => [epoch * SPAN, (epoch + 1) * SPAN];

/** Bytes of a stored log that are hashed at a time. */
const DIGEST_BYTES = 1024 * 1024;

/** A piece of a log as it is stored: `unpacked_bytes` says how many bytes it has when it is packed, and is null when it is not. */
type ChunkRow = { position: number; bytes: ArrayBuffer; unpacked_bytes: number | null };

/** Logs and derivation batches of runs, as rows that are found by the run's epoch. Nothing here decides. */
export class RunBytes {
  readonly #sql: SqlStorage;
  readonly #digest = new RunningDigest();
  /** The row that was unpacked last, for as long as memory is not needed otherwise: whoever reads a log goes over it in smaller steps. */
  #unpacked: { position: number; bytes: WeakRef<Uint8Array> } | null = null;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** How many bytes of a run's log are stored, and when the last came; null when there are none. */
  output(epoch: number): Output | null {
    const [first, end] = spanOf(epoch);
    const [row] = this.#sql
      .exec<{ size: number; at: number }>(
        "SELECT position - ?1 + coalesce(unpacked_bytes, length(bytes)) AS size, at FROM log_chunks WHERE position >= ?1 AND position < ?2 ORDER BY position DESC LIMIT 1",
        first,
        end,
      )
      .toArray();
    return row === undefined ? null : { bytes: row.size, at: row.at };
  }

  /**
   * Adds to the end as many bytes as one row holds, and says how many. `packed` is what they came as, if they did; it is stored instead of them, as
   * long as it is less.
   */
  append(epoch: number, offset: number, whole: Uint8Array, at: Millis, packed: Uint8Array | null = null): number {
    const isLess = packed !== null && packed.length < whole.length;
    const bytes = isLess ? whole : whole.subarray(0, LIMITS.logAppendBytes);
    this.#sql.exec(
      "INSERT INTO log_chunks (position, at, bytes, unpacked_bytes) VALUES (?, ?, ?, ?)",
      epoch * SPAN + offset,
      at,
      // A view of a larger buffer would be stored with everything around it.
      new Uint8Array(isLess ? packed : bytes).buffer,
      isLess ? bytes.length : null,
    );
    this.#digest.add(epoch, offset, bytes);
    return bytes.length;
  }

  /** True when these very bytes are stored at the offset. */
  holds(epoch: number, offset: number, bytes: Uint8Array): boolean {
    return bytes.length === 0 || equalBytes(this.read(epoch, offset, bytes.length), bytes);
  }

  /** At most `limit` bytes from an offset, fewer at the end. */
  read(epoch: number, offset: number, limit: number): Uint8Array {
    const bytes = new Uint8Array(Math.max(0, Math.min(limit, (this.output(epoch)?.bytes ?? 0) - offset)));
    const [first] = spanOf(epoch);
    const [from, to] = [first + offset, first + offset + bytes.length];
    const rows = this.#sql.exec<ChunkRow>(
      "SELECT position, bytes, unpacked_bytes FROM log_chunks WHERE position >= coalesce((SELECT max(position) FROM log_chunks WHERE position <= ?1), ?1) AND position < ?2 ORDER BY position",
      from,
      to,
    );
    for (const row of rows) {
      const chunk = this.#bytesOf(row).subarray(Math.max(0, from - row.position), to - row.position);
      bytes.set(chunk, Math.max(0, row.position - from));
    }
    return bytes;
  }

  #bytesOf({ position, bytes: stored, unpacked_bytes: unpackedBytes }: ChunkRow): Uint8Array {
    if (unpackedBytes === null) return new Uint8Array(stored);
    const known = this.#unpacked?.position === position ? this.#unpacked.bytes.deref() : undefined;
    const bytes = known ?? unpack(new Uint8Array(stored), LIMITS.logUnpackedBytes);
    // It was unpacked once before it was stored.
    if (isRefusal(bytes)) throw new Error(bytes.detail);
    this.#unpacked = { position, bytes: new WeakRef(bytes) };
    return bytes;
  }

  /** SHA-256 (hex) of the stored bytes followed by `rest`. Other events may come meanwhile: compare `output` before and after. */
  async digest(epoch: number, rest: Uint8Array): Promise<string> {
    const { hash, bytes: known } = this.#digest.of(epoch);
    let offset = known;
    for (let bytes = this.read(epoch, offset, DIGEST_BYTES); bytes.length > 0;) {
      offset += bytes.length;
      hash.update(bytes);
      // Others are served in between: a long log takes a while.
      await scheduler.wait(0);
      bytes = this.read(epoch, offset, DIGEST_BYTES);
    }
    return hash.update(rest).digest("hex");
  }

  addBatch({ epoch, offset, text }: DerivationBatch): void {
    this.#sql.exec("INSERT INTO derivation_batches (position, changes) VALUES (?, ?)", epoch * SPAN + offset, text);
  }

  /** The derivation batches of a run, oldest first. */
  batches(epoch: number): string[] {
    const rows = this.#sql.exec<{ changes: string }>(
      "SELECT changes FROM derivation_batches WHERE position >= ? AND position < ? ORDER BY position",
      ...spanOf(epoch),
    );
    return rows.toArray().map(({ changes }) => changes);
  }

  /** Forgets a run's log and derivations. */
  forget({ epoch }: Run): void {
    this.#sql.exec("DELETE FROM log_chunks WHERE position >= ? AND position < ?", ...spanOf(epoch));
    this.#sql.exec("DELETE FROM derivation_batches WHERE position >= ? AND position < ?", ...spanOf(epoch));
  }
}
