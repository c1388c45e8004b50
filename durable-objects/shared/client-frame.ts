import {
  clientFrameSchema,
  CLOSE_CODES,
  fieldErrors,
  LIMITS,
  refuse,
  utf8,
  type ClientFrame,
  type Refusal,
} from "@plumule/protocol";

/** What a message of a watcher is: a frame, something to refuse (with the subscription it names, if any), or the end of the socket. */
export type ReadFrame =
  | { frame: ClientFrame }
  | { refusal: Refusal; id: string | null }
  | { closeCode: number; reason: string };

/** Reads one message. Never throws. */
export function readClientFrame(raw: string | ArrayBuffer): ReadFrame {
  if (typeof raw !== "string") return { closeCode: CLOSE_CODES.badFrame, reason: "frames are text" };
  // A character takes at most three bytes of UTF-8, so that most frames are not encoded to be measured.
  if (raw.length * 3 > LIMITS.frameBytes && utf8(raw).length > LIMITS.frameBytes)
    return { closeCode: CLOSE_CODES.frameTooLarge, reason: `a frame has at most ${LIMITS.frameBytes} bytes` };
  let value: unknown;
  try {
    value = JSON.parse(raw);
  } catch {
    return { refusal: refuse("invalid-json", "the frame is not JSON"), id: null };
  }
  const parsed = clientFrameSchema.safeParse(value);
  if (parsed.success) return { frame: parsed.data };
  return {
    refusal: refuse("invalid-body", "the frame is not valid", { errors: fieldErrors(parsed.error) }),
    id: idOf(value),
  };
}

function idOf(value: unknown): string | null {
  return typeof value === "object" && value !== null && "id" in value && typeof value.id === "string" ? value.id : null;
}
