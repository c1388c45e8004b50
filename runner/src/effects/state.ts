import { createHash, timingSafeEqual } from "node:crypto";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { LIMITS } from "@plumule/protocol";
import { writeDurably } from "../durable-file.ts";

/** A server of state files, for one run. */
export type StateServer = { url: string; close(): void };

const ROUTE = /^\/api\/v1\/current-task\/state\/([A-Za-z0-9][A-Za-z0-9._-]{0,127})\/data$/;

/** Where a runner keeps the state files of a deployment's effects. */
export function stateFolder(
  states: string,
  { namespace, deployment }: { namespace: string; deployment: string },
): string {
  return join(states, namespace, deployment);
}

/**
 * Serves the state files of a deployment as hercules-ci-agent does (`GET|PUT …/api/v1/current-task/state/<name>/data`), on a loopback address of its
 * own and to the bearer of the run's token alone. Before the first file is kept `announce` tells the broker, so that later effects come to this
 * runner; while the broker has not taken that (false), or the disk not the file, the answer is one after which an effect tries again.
 */
export async function serveState({
  folder,
  token,
  announce,
}: {
  folder: string;
  token: string;
  announce: () => Promise<boolean>;
}): Promise<StateServer> {
  let announced: Promise<boolean> | null = null;
  const keep = async (name: string, request: IncomingMessage): Promise<number> => {
    const bytes = await readBody(request);
    if (bytes === null) return 413;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const names = (await readdir(folder)).filter((one) => !one.startsWith("."));
    if (!names.includes(name) && names.length >= LIMITS.effectStates) return 507;
    announced ??= announce();
    if (!(await announced)) return 503;
    await writeDurably(join(folder, name), bytes);
    return 204;
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const name = ROUTE.exec(request.url ?? "")?.[1];
    const give = (status: number, body?: Uint8Array): void => void response.writeHead(status).end(body);
    if (!isBearer(request.headers.authorization, token)) return give(401);
    if (name === undefined) return give(404);
    if (request.method === "PUT") return give(await keep(name, request));
    if (request.method !== "GET") return give(405);
    const bytes = await readFile(join(folder, name)).catch(() => null);
    return bytes === null ? give(404) : give(200, bytes);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch(() => {
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  server.unref();
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** The body, or null when it is longer than a state file may be. */
async function readBody(request: IncomingMessage): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size <= LIMITS.effectStateBytes) chunks.push(chunk);
  }
  return size > LIMITS.effectStateBytes ? null : Buffer.concat(chunks);
}

function isBearer(header: string | undefined, token: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(header ?? ""), digest(`Bearer ${token}`));
}
