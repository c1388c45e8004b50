import { LIMITS, refuse, type Refusal, type RunView } from "@plumule/protocol";

/** What to do with log bytes that came for an offset: how many of them repeat what is stored, and how many are new. */
export type Placement = { repeatedBytes: number; newBytes: number };

/**
 * Where bytes belong in a log of `size` bytes (P9: a log only grows). Refuses a hole, with the offset to resume from, and a log that
 * would be too long. Whether repeated bytes are the stored ones is for the caller to compare.
 */
export function placeBytes(size: number, offset: number, length: number): Placement | Refusal {
  if (offset > size)
    return refuse("log-gap", `The log has ${size} bytes, offset ${offset} would leave a hole.`, {
      headers: { "Plumule-Log-Size": String(size) },
    });
  if (length > LIMITS.logUnpackedBytes)
    return refuse("payload-too-large", `One append may have ${LIMITS.logUnpackedBytes} bytes, this one has ${length}.`);
  if (offset + length > LIMITS.logBytes) return refuse("payload-too-large", `A log may have ${LIMITS.logBytes} bytes.`);
  const repeatedBytes = Math.min(length, size - offset);
  return { repeatedBytes, newBytes: length - repeatedBytes };
}

/** The refusal of bytes that differ from the stored ones. */
export function differingBytes(offset: number): Refusal {
  return refuse("log-conflict", `Other bytes are stored at offset ${offset}.`);
}

/** What the broker holds of a log, compared with what the runner signed. `sound`: the bytes that came with the result fitted. */
export function sealLog(
  stored: { bytes: number; sha256: string; sound: boolean },
  signed: { bytes: number; sha256: string; truncated: boolean },
): RunView["log"] {
  const { bytes, sha256 } = stored;
  if (bytes === signed.bytes && sha256 === signed.sha256)
    return { state: signed.truncated ? "truncated" : "complete", bytes, sha256 };
  return { state: stored.sound && bytes < signed.bytes ? "truncated" : "mismatch", bytes, sha256 };
}
