import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { waitMs } from "@plumule/protocol";
import type { Random } from "./random.ts";

/** What was done to connections. */
export type ProxyCounts = { connections: number; cuts: number; stalls: number; pages: number };

/** A bad network in front of a port: calm at first. */
export type Proxy = {
  url: string;
  counts: ProxyCounts;
  /** From now on connections are cut after some bytes, stall, or are answered by a proxy's own page. */
  storm(): void;
  /** From now on nothing happens to them any more. */
  calm(): void;
  /** Nothing passes for so long, and nobody is told; then all that was open is cut. */
  part(ms: number, leave: AbortSignal): Promise<void>;
  close(): Promise<void>;
};

/** What will become of a connection: bytes that pass in both directions together before it is met. */
type Fate =
  | { kind: "spared" }
  | { kind: "page" }
  | { kind: "cut"; afterBytes: number }
  | { kind: "stall"; afterBytes: number; ms: number };

const PAGE = "<!doctype html><title>Please sign in</title><h1>This network wants you to sign in</h1>\n";
const PAGE_STATUSES = ["200 OK", "403 Forbidden", "404 Not Found", "502 Bad Gateway"] as const;
const pageWith = (status: string): string =>
  `HTTP/1.1 ${status}\r\nContent-Type: text/html\r\nContent-Length: ${PAGE.length}\r\nConnection: close\r\n\r\n${PAGE}`;
/** Most cuts come within a request or two, the others after a stream has flowed for a while. */
const CUT_BYTES = { early: 1_500, late: 40_000 };
const STALL_MS = { shortest: 200, longest: 2_500 };

/** Starts one on a free port, in front of `target` on this machine. */
export async function startProxy(target: number, random: Random): Promise<Proxy> {
  const counts: ProxyCounts = { connections: 0, cuts: 0, stalls: 0, pages: 0 };
  const open = new Set<Passage>();
  let stormy = false;
  let parted = false;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    counts.connections += 1;
    const passage = pass(client, target, stormy ? drawFate(random) : { kind: "spared" }, { random, counts });
    open.add(passage);
    client.once("close", () => open.delete(passage));
    if (parted) passage.hold();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cutAll = (): void => {
    for (const passage of open) passage.cut();
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    counts,
    storm() {
      stormy = true;
      // Streams that were open before are part of it.
      for (const passage of open) passage.meet(drawFate(random));
    },
    calm() {
      stormy = false;
      for (const passage of open) passage.meet({ kind: "spared" });
    },
    async part(ms, leave) {
      parted = true;
      for (const passage of open) passage.hold();
      await waitMs(ms, leave);
      parted = false;
      cutAll();
    },
    async close() {
      for (const passage of open) passage.end();
      server.close();
      await once(server, "close");
    },
  };
}

function drawFate(random: Random): Fate {
  const afterBytes = random.between(1, random.chance(0.7) ? CUT_BYTES.early : CUT_BYTES.late);
  const draw = random.unit();
  if (draw < 0.05) return { kind: "page" };
  if (draw < 0.55) return { kind: "cut", afterBytes };
  if (draw < 0.63) return { kind: "stall", afterBytes, ms: random.between(STALL_MS.shortest, STALL_MS.longest) };
  return { kind: "spared" };
}

/** One connection through the proxy. */
type Passage = { meet(fate: Fate): void; hold(): void; cut(): void; end(): void };

function pass(
  client: Socket,
  target: number,
  first: Fate,
  { random, counts }: { random: Random; counts: ProxyCounts },
): Passage {
  const broker = connect({ port: target, host: "127.0.0.1", allowHalfOpen: true });
  let fate = first;
  let passedBytes = 0;
  let answered = false;
  let held = false;
  const end = (): void => {
    broker.destroy();
    if (!answered) client.destroy();
  };
  const cut = (): void => {
    if (client.destroyed) return;
    counts.cuts += 1;
    // A process that dies leaves an end of stream, a router that forgets a reset.
    if (random.chance(0.5)) client.resetAndDestroy();
    if (random.chance(0.5)) broker.resetAndDestroy();
    client.destroy();
    broker.destroy();
  };
  const rest = (): void => {
    client.pause();
    broker.pause();
  };
  const resume = (): void => {
    if (held) return;
    client.resume();
    broker.resume();
  };
  const answer = (): void => {
    answered = true;
    counts.pages += 1;
    broker.destroy();
    client.end(pageWith(random.pick(PAGE_STATUSES)));
  };
  const forward = (from: Socket, to: Socket) => (chunk: Buffer) => {
    if (answered) return;
    if (fate.kind === "page") return from === client ? answer() : undefined;
    const met = fate.kind !== "spared" && passedBytes + chunk.length >= fate.afterBytes ? fate : null;
    if (met?.kind === "cut") {
      // What came before the cut arrives.
      to.write(chunk.subarray(0, met.afterBytes - passedBytes), cut);
      return rest();
    }
    if (met?.kind === "stall") {
      fate = { kind: "spared" };
      counts.stalls += 1;
      rest();
      setTimeout(random.chance(0.5) ? cut : resume, met.ms);
    }
    passedBytes += chunk.length;
    if (to.write(chunk)) return;
    from.pause();
    to.once("drain", resume);
  };
  for (const [from, to] of [
    [client, broker],
    [broker, client],
  ] as const) {
    from.on("data", forward(from, to));
    from.on("end", () => to.end());
    from.on("error", end);
    from.on("close", end);
  }
  return {
    meet(next) {
      passedBytes = 0;
      fate = next;
    },
    hold() {
      held = true;
      rest();
    },
    cut,
    end() {
      client.destroy();
      broker.destroy();
    },
  };
}
