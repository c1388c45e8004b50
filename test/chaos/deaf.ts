import { createHash, randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { LIMITS, STREAM_SUBPROTOCOL } from "@plumule/protocol";

/** A watcher who asks for everything and reads nothing, ever; it comes back when it is closed. */
export type DeafWatcher = { connections(): number; stop(): void };

/** What is watched on each socket: a deployment and, as often as one socket may, one log of it from its first byte. */
export type DeafTo = { port: number; ns: string; token: string; deployment: string; run: string };

/** Watches over several sockets at once. */
export function watchWithoutReading(of: DeafTo, socketCount: number): DeafWatcher {
  const sockets = Array.from({ length: socketCount }, () => openDeaf(of));
  return {
    connections: () => sockets.reduce((sum, socket) => sum + socket.connections(), 0),
    stop() {
      for (const socket of sockets) socket.stop();
    },
  };
}

function openDeaf({ port, ns, token, deployment, run }: DeafTo): DeafWatcher {
  let connections = 0;
  let stopped = false;
  let socket: Socket | null = null;
  const open = (): void => {
    if (stopped) return;
    socket = connect({ port, host: "127.0.0.1" });
    socket.on("error", () => {});
    // A socket that is not read does not learn that its peer is gone before something is written to it.
    const beat = setInterval(() => socket?.write(frame("ping")), 1_000);
    socket.once("close", () => {
      clearInterval(beat);
      setTimeout(open, 250);
    });
    socket.once("connect", () => {
      socket?.write(handshake(`/v1/${ns}/deployments/${deployment}/stream`, token));
    });
    // The first bytes are the broker's welcome to the socket; nothing is read after them.
    socket.once("data", () => {
      connections += 1;
      socket?.pause();
      socket?.write(frame({ op: "subscribe", id: "events", since: "e1:0" }));
      for (let count = 1; count < LIMITS.subscriptions; count += 1)
        socket?.write(frame({ op: "log", id: `log-${count}`, run, offset: 0 }));
    });
  };
  open();
  return {
    connections: () => connections,
    stop() {
      stopped = true;
      socket?.destroy();
    },
  };
}

function handshake(path: string, token: string): string {
  const key = createHash("sha256").update(token).digest().subarray(0, 16).toString("base64");
  return [
    `GET ${path} HTTP/1.1`,
    "Host: 127.0.0.1",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    `Sec-WebSocket-Key: ${key}`,
    `Sec-WebSocket-Protocol: ${STREAM_SUBPROTOCOL}`,
    `Authorization: Bearer ${token}`,
    "\r\n",
  ].join("\r\n");
}

/** A text frame of a client, which RFC 6455 wants masked. At most 125 bytes. */
function frame(value: object | "ping"): Buffer {
  const text = Buffer.from(value === "ping" ? value : JSON.stringify(value));
  const mask = randomBytes(4);
  const masked = text.map((byte, index) => byte ^ (mask[index % 4] ?? 0));
  return Buffer.concat([Buffer.from([0x81, 0x80 | text.length]), mask, masked]);
}
