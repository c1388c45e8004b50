import {
  EXEC_CHANNELS,
  execBytes,
  type ExecPersonFrame,
  type ExecRunnerFrame,
  LIMITS,
  readExecFrame,
} from "@plumule/protocol";

/** What is used of a WebSocket. */
export type ExecSocket = {
  binaryType: string;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "open" | "close" | "error", listener: () => void): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
};

/** The runner's end of a session: frames in and out, with no more under way in either direction than the other side has confirmed. */
export type Line = {
  /** What is typed, until the end of it. What is taken from here is confirmed. */
  input: AsyncIterable<Uint8Array>;
  say(frame: ExecRunnerFrame): void;
  /** Sends output. Resolves when it is under way, which waits for the other side to read. */
  send(channel: number, bytes: Uint8Array): Promise<void>;
  /** Resolves when the other side has confirmed all output, has left, or there is no time for it. A socket that is closed earlier may take along what was not read. */
  settled(hurry: AbortSignal): Promise<void>;
  /** Resolves when both ends are there. */
  begun: Promise<void>;
  /** Aborted when the other end has left, or sent what makes no sense. */
  left: AbortSignal;
};

/** Speaks on a socket that is open. `heard` is told of every frame but bytes and confirmations, `stirred` of everything. */
export function openLine(
  socket: ExecSocket,
  { heard, stirred }: { heard: (frame: ExecPersonFrame) => void; stirred: () => void },
): Line {
  const left = new AbortController();
  const typed: Uint8Array[] = [];
  let isTyped = false;
  let unconfirmed = 0;
  const begun = Promise.withResolvers<void>();
  let wake = Promise.withResolvers<void>();
  let sending: Promise<void> = Promise.resolve();
  const stir = (): void => {
    wake.resolve();
    wake = Promise.withResolvers();
    stirred();
  };
  const say = (frame: ExecRunnerFrame): void => {
    if (!left.signal.aborted) socket.send(JSON.stringify(frame));
  };
  const leave = (): void => {
    left.abort();
    begun.resolve();
    stir();
  };
  socket.addEventListener("close", leave);
  socket.addEventListener("error", leave);
  socket.addEventListener("message", ({ data }) => {
    const frame = readExecFrame("person", data as string | ArrayBuffer);
    if ("fault" in frame) return leave();
    if ("payload" in frame) typed.push(frame.payload);
    else if (frame.op === "ack") unconfirmed = Math.max(0, unconfirmed - frame.bytes);
    else if (frame.op === "begin") begun.resolve();
    else if (frame.op === "end-of-input") isTyped = true;
    else heard(frame as ExecPersonFrame);
    stir();
  });
  const sendAll = async (channel: number, bytes: Uint8Array): Promise<void> => {
    for (let from = 0; from < bytes.length; from += LIMITS.execFrameBytes) {
      const piece = bytes.subarray(from, from + LIMITS.execFrameBytes);
      while (unconfirmed + piece.length > LIMITS.execWindowBytes && !left.signal.aborted) await wake.promise;
      if (left.signal.aborted) return;
      unconfirmed += piece.length;
      socket.send(execBytes(channel, piece));
      stirred();
    }
  };
  return {
    begun: begun.promise,
    left: left.signal,
    say,
    async settled(hurry) {
      hurry.addEventListener("abort", stir, { once: true });
      while (unconfirmed > 0 && !left.signal.aborted && !hurry.aborted) await wake.promise;
    },
    send: (channel, bytes) => (sending = sending.then(() => sendAll(channel, bytes))),
    input: {
      async *[Symbol.asyncIterator]() {
        while (!left.signal.aborted) {
          const bytes = typed.shift();
          if (bytes !== undefined) {
            yield bytes;
            say({ op: "ack", bytes: bytes.length });
          } else if (isTyped) return;
          else await wake.promise;
        }
      },
    },
  };
}

/** Where output of a process goes. */
export function channelOf(stream: "merged" | "stdout" | "stderr"): number {
  return stream === "stderr" ? EXEC_CHANNELS.error : EXEC_CHANNELS.output;
}
