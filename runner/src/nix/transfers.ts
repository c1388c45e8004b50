/** Transfers followed at once. A builder can start any number of downloads, and they only feed a counter. */
const MAX_TRANSFERS = 4096;

/** Counts the bytes that Nix copies and downloads. Builders can forge downloads, so that it is a display, not a fact. */
export class Transfers {
  readonly #running = new Map<string, { bytes: number; expectedBytes: number }>();
  readonly #copies = new Set<string>();
  #bytes = 0;
  #expectedBytes = 0;

  /** Bytes so far, of ended transfers too. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes that the known transfers will have when they are done; what has ended counts as far as it came. */
  get expectedBytes(): number {
    return this.#expectedBytes;
  }

  /** A copy of a store path, or the substitution around it. Only the first has progress of its own. */
  startCopy(id: string): void {
    if (this.#copies.size >= MAX_TRANSFERS) return;
    this.#copies.add(id);
    this.#running.set(id, { bytes: 0, expectedBytes: 0 });
  }

  /** A download. Below a copy (`parent`, which 2.8 does not tell) it is the same bytes once more, compressed. */
  startDownload(id: string, parent: string): void {
    if (this.#running.size >= MAX_TRANSFERS || this.#copies.has(parent)) return;
    this.#running.set(id, { bytes: 0, expectedBytes: 0 });
  }

  /** New totals of one transfer; unknown ids are ignored. */
  progress(id: string, bytes: number, expectedBytes: number): void {
    const before = this.#running.get(id);
    if (before === undefined) return;
    const after = { bytes: Math.max(0, bytes), expectedBytes: Math.max(0, bytes, expectedBytes) };
    this.#bytes += after.bytes - before.bytes;
    this.#expectedBytes += after.expectedBytes - before.expectedBytes;
    this.#running.set(id, after);
  }

  /** The activity with this id ended, whether it was a transfer or not. */
  stop(id: string): void {
    const ended = this.#running.get(id);
    if (ended !== undefined) this.#expectedBytes += ended.bytes - ended.expectedBytes;
    this.#running.delete(id);
    this.#copies.delete(id);
  }
}
