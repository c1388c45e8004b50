import * as zlib from "node:zlib";
import { LIMITS } from "@plumule/protocol";

/** Below this nothing is gained, bytes. */
const LEAST_BYTES = 256;
const OPTIONS = { params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } };

/** The body of one append: as many of the bytes as one may bring, packed with zstd where that makes them less. */
export function bodyOfLog(bytes: Uint8Array): { body: Uint8Array; isPacked: boolean } {
  const packed = pack(bytes);
  if (packed !== null && packed.length <= LIMITS.logAppendBytes) return { body: packed, isPacked: true };
  const fewer = bytes.subarray(0, LIMITS.logAppendBytes);
  return fewer.length < bytes.length ? bodyOfLog(fewer) : { body: bytes, isPacked: false };
}

/** Null when that makes them no less, or when this Node cannot (before 22.15). */
function pack(bytes: Uint8Array): Uint8Array | null {
  if (bytes.length < LEAST_BYTES || !("zstdCompressSync" in zlib)) return null;
  const packed = zlib.zstdCompressSync(bytes, OPTIONS);
  return packed.length < bytes.length ? packed : null;
}
