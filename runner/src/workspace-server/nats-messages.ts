import type * as nats from "@nats-io/transport-node";
import { isRefusal, problemOf, refuse, type Refusal } from "@plumule/protocol";
import type { CommandEvent, DoorAnswer, DoorRequest } from "./answers.ts";
import { SERVER_LIMITS } from "./limits.ts";

/** The client of NATS, which is loaded when it is needed. */
export type NatsLibrary = typeof nats;

/** What answering needs. */
export type Answering = { connection: nats.NatsConnection; library: NatsLibrary; say: (line: string) => void };

/** Room for what is not the answer itself: the subject, headers and the frame of an event. */
const FRAME_BYTES = 4_096;

/** Answers one message. Without somewhere to answer to, nothing is done: nobody could learn of it. */
export async function answerMessage(
  answering: Answering,
  message: nats.Msg,
  ask: (request: DoorRequest) => Promise<DoorAnswer>,
): Promise<void> {
  const { connection, say } = answering;
  const { reply } = message;
  if (reply === undefined || reply === "") return;
  const stream = openStream(answering, reply);
  try {
    const answered = await ask({
      body: message.data,
      cancel: stream.gone,
      answerBytes: maxBytes(connection),
      emit: stream.emit,
    });
    if (isRefusal(answered) || !("streamed" in answered)) respond(answering, reply, answered);
    // Whoever reads a stream waits for its end, also when it did not begin.
    if (message.subject.endsWith(".exec")) connection.publish(reply, "");
  } catch (error) {
    if (connection.isClosed()) return;
    say(`A fault of plumule: ${error instanceof Error ? error.stack : String(error)}`);
    respond(answering, reply, refuse("internal", "The request met a fault of this server."));
  } finally {
    stream.close();
  }
}

function maxBytes(connection: nats.NatsConnection): number {
  return (connection.info?.max_payload ?? 1024 * 1024) - FRAME_BYTES;
}

function respond(
  { connection, library }: Answering,
  reply: string,
  answered: Exclude<DoorAnswer, { streamed: true }>,
): void {
  if (isRefusal(answered)) return respondRefusal({ connection, library }, reply, answered);
  const payload = "bytes" in answered ? answered.bytes : Buffer.from(JSON.stringify(answered.value));
  if (payload.length <= maxBytes(connection)) return connection.publish(reply, payload);
  const detail = `The answer has ${payload.length} bytes, more than NATS carries in one message.`;
  const next = "Let `exec` print it in parts, or ask over HTTP.";
  respondRefusal({ connection, library }, reply, refuse("payload-too-large", detail, { next }));
}

/** A problem document, with the headers by which NATS services tell an error (ADR-32). */
function respondRefusal(
  { connection, library }: Pick<Answering, "connection" | "library">,
  reply: string,
  refusal: Refusal,
): void {
  const problem = problemOf(refusal);
  const headers = library.headers();
  headers.set("Nats-Service-Error-Code", String(problem.status));
  headers.set("Nats-Service-Error", problem.title);
  connection.publish(reply, JSON.stringify(problem), { headers });
}

/**
 * The way of a stream's events to whoever asked. Each carries the next number, because NATS may lose a message, and an address to which
 * NATS says that nobody hears it any more: whoever is gone needs no more work. The last message is empty.
 */
function openStream(
  { connection, library }: Answering,
  reply: string,
): { gone: AbortSignal; emit: DoorRequest["emit"]; close(): void } {
  const gone = new AbortController();
  const probe = library.createInbox();
  let subscription: { unsubscribe(): void } | null = null;
  let alive: NodeJS.Timeout | null = null;
  let seq = 0;
  const publish = (event: object): void => {
    seq += 1;
    connection.publish(reply, JSON.stringify({ seq, ...event }), { reply: probe });
  };
  const open = (): void => {
    subscription ??= connection.subscribe(probe, {
      callback: (error, status) => {
        if (error === null && status.headers?.code === NO_RESPONDERS) gone.abort();
      },
    });
    alive ??= setInterval(() => publish({ event: "alive" }), SERVER_LIMITS.aliveMs);
  };
  return {
    gone: gone.signal,
    async emit(event) {
      if (gone.signal.aborted || connection.isClosed()) return;
      open();
      for (const piece of piecesOf(event, maxBytes(connection))) publish(piece);
      alive?.refresh();
      // The server has it then. It fails with the connection, which comes back by itself.
      await connection.flush().catch(() => {});
    },
    close() {
      subscription?.unsubscribe();
      if (alive !== null) clearInterval(alive);
    },
  };
}

const NO_RESPONDERS = 503;

/** An event in parts that each fit into a message. */
export function piecesOf(event: CommandEvent, limitBytes: number): CommandEvent[] {
  if (event.event !== "output" || Buffer.byteLength(JSON.stringify(event)) <= limitBytes) return [event];
  const content = "text" in event ? event.text : event.base64;
  if (content.length < 8) return [event];
  // Whole groups of base64, and no half of a surrogate pair.
  const middle = Math.floor(content.length / 8) * 4;
  const cut = "text" in event && /[\uD800-\uDBFF]/.test(content[middle - 1] ?? "") ? middle - 1 : middle;
  return [content.slice(0, cut), content.slice(cut)].flatMap((part) =>
    piecesOf("text" in event ? { ...event, text: part } : { ...event, base64: part }, limitBytes),
  );
}
