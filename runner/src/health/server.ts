import { once } from "node:events";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { isLocalHost, type LocalAddress } from "../local-address.ts";
import { faultsOfLife, faultsOfReadiness, metricsText, type RunnerStatus } from "./status.ts";

/** The door by which a runner is asked how it is. */
export type HealthServer = { port: number | null; close(): void };

/**
 * Serves `/livez`, `/readyz` (200, or 503 with a reason per line), `/metrics` and `/status.json`, to this machine alone. A socket can be used by
 * the runner's user alone. The names of other hosts are refused, so that no page in a browser can be made to read it.
 */
export async function serveHealth(
  address: LocalAddress,
  status: () => Promise<RunnerStatus>,
): Promise<HealthServer | { refused: string }> {
  const server = createServer((request, response) => {
    answer(request, response, "path" in address, status).catch(() => response.writeHead(500).end());
  });
  server.maxConnections = 16;
  server.headersTimeout = 5_000;
  // What a runner that was killed has left; the lock of the state folder says that it is gone.
  if ("path" in address) rmSync(address.path, { force: true });
  try {
    server.listen(address);
    await once(server, "listening");
  } catch (error) {
    return { refused: `Nothing can be served at the address of --health: ${String(error)}` };
  }
  if ("path" in address) chmodSync(address.path, 0o600);
  server.unref();
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : null,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function answer(
  { method, url, headers }: IncomingMessage,
  response: ServerResponse,
  isSocket: boolean,
  status: () => Promise<RunnerStatus>,
): Promise<void> {
  const say = (code: number, medium: string, body: string): void => {
    response.writeHead(code, { "content-type": medium, "cache-control": "no-store" }).end(body);
  };
  const verdict = (faults: readonly string[]): void =>
    say(faults.length === 0 ? 200 : 503, "text/plain; charset=utf-8", `${faults.join("\n") || "ok"}\n`);
  if (!isSocket && !isLocalHost(headers.host)) return say(421, "text/plain", "Ask by the address of this machine.\n");
  if (method !== "GET" && method !== "HEAD") return say(405, "text/plain", "Only GET.\n");
  switch (url) {
    case "/livez":
      return verdict(faultsOfLife(await status()));
    case "/readyz":
      return verdict(faultsOfReadiness(await status()));
    case "/metrics":
      return say(200, "text/plain; version=0.0.4; charset=utf-8", metricsText(await status()));
    case "/status.json":
      return say(200, "application/json", `${JSON.stringify(await status())}\n`);
    default:
      return say(404, "text/plain", "There are /livez, /readyz, /metrics and /status.json.\n");
  }
}
