import * as zlib from "node:zlib";

/** Below this nothing is gained, bytes. */
const LEAST_BYTES = 256;
const OPTIONS = { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } };

/** Packs bytes of a log with zstd; null when that makes them no less, or when this Node has none of it (before 22.15). */
export function packLog(bytes: Uint8Array): Uint8Array | null {
  if (bytes.length < LEAST_BYTES || !("zstdCompressSync" in zlib)) return null;
  const packed = zlib.zstdCompressSync(bytes, OPTIONS);
  return packed.length < bytes.length ? packed : null;
}
