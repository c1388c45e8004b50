import { refuse, type Refusal } from "@plumule/protocol";

/**
 * Reads a body within a limit. One with a Content-Length has no more bytes than that, since HTTP ends it there; any other is read as a stream
 * with a running cap, so that an endless one cannot fill the memory. A Content-Encoding other than `taken` is refused: an unpacked body has no
 * bound. One that is taken stays as it is.
 */
export async function readBody(
  request: Request,
  limitBytes: number,
  taken: string | null,
): Promise<Uint8Array | Refusal> {
  const encoding = request.headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity" && encoding !== taken)
    return refuse("unsupported-media-type", `Content-Encoding ${encoding.slice(0, 40)} is not accepted.`);
  if (request.body === null) return new Uint8Array(0);
  const announced = Number(request.headers.get("content-length") ?? Number.NaN);
  if (announced > limitBytes) return tooLarge(limitBytes);
  // In one piece, because to read a small body as a stream costs more than everything else that the edge does with it.
  if (announced >= 0) {
    const whole = new Uint8Array(await request.arrayBuffer());
    return whole.byteLength > limitBytes ? tooLarge(limitBytes) : whole;
  }
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of request.body as ReadableStream<Uint8Array>) {
    size += part.byteLength;
    if (size > limitBytes) return tooLarge(limitBytes);
    parts.push(part);
  }
  const [only] = parts;
  if (only !== undefined && parts.length === 1) return only;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

function tooLarge(limitBytes: number): Refusal {
  return refuse("payload-too-large", `The body may have at most ${limitBytes} bytes.`);
}
