import { createConnection } from "node:net";
import { StringDecoder } from "node:string_decoder";
import { waitFor } from "./waiting.ts";

/** What following a node's control socket tells. */
export type SocketDeps = {
  path: string;
  /** Connected: what moved before has to be found in the storage. */
  onOpen: () => void;
  /** One line: an event, or the node's refusal. */
  onLine: (line: string) => void;
  say: (line: string) => void;
  signal: AbortSignal;
};

/** Longest line that is read, characters: a first clone names every ref in one event. A longer one ends the connection, after which everything is looked at. */
const LINE_CHARACTERS = 16 * 1024 * 1024;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 10_000;

/**
 * Subscribes to the events of the node behind a control socket (`{"command":"subscribe"}`, one connection per command, then one line per event, without
 * acknowledgement, heartbeat or replay), and again whenever the connection ends: the node was restarted, or has dropped a subscriber that did
 * not keep up with 8,192 events. Resolves when the signal aborts. Never rejects.
 */
export async function followNode({ path, onOpen, onLine, say, signal }: SocketDeps): Promise<void> {
  let pauseMs = FIRST_PAUSE_MS;
  let said = "";
  const once = (line: string): void => {
    if (line !== said) say(line);
    said = line;
  };
  while (!signal.aborted) {
    const end = await subscribe(path, signal, onLine, () => {
      pauseMs = FIRST_PAUSE_MS;
      once(`following the node at ${path}`);
      onOpen();
    });
    if (signal.aborted) return;
    once(`the node at ${path}: ${end}; trying again`);
    await waitFor(pauseMs, signal);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }
}

/** One connection; resolves with the reason of its end. */
function subscribe(
  path: string,
  signal: AbortSignal,
  onLine: (line: string) => void,
  onOpen: () => void,
): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    const decoder = new StringDecoder("utf8");
    let [text, reason] = ["", "it has closed the connection"];
    const leave = (): void => void socket.destroy();
    signal.addEventListener("abort", leave, { once: true });
    socket.on("connect", () => {
      socket.write('{"command":"subscribe"}\n');
      onOpen();
    });
    socket.on("data", (chunk) => {
      const lines = (text + decoder.write(chunk)).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) if (line !== "") onLine(line);
      if (text.length > LINE_CHARACTERS) {
        reason = "it wrote a line without end";
        socket.destroy();
      }
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      reason = error.code === "ENOENT" || error.code === "ECONNREFUSED" ? "it does not run" : error.message;
    });
    socket.on("close", () => {
      signal.removeEventListener("abort", leave);
      resolve(reason);
    });
  });
}
