import { createHash, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isRefusal, problemOf, type Refusal, refuse } from "@plumule/protocol";
import { isLocalHost, type LocalAddress } from "../local-address.ts";
import { type DoorAnswer, type DoorRequest, tooBusy } from "./answers.ts";
import { SERVER_LIMITS } from "./limits.ts";
import {
  isWorkspaceRequest,
  type ServerRequestName,
  type WorkspaceRequestName,
  type WorkspaceService,
} from "./requests.ts";
import { clearSocketPath } from "./socket-path.ts";

/** A door by which workspaces are asked for things. */
export type WorkspaceDoor = {
  /** Where it is, for a person: a URL, a path, or a subject. */
  address: string;
  /** Lets nobody in any more; settles when everybody was answered. Called again, it waits for nobody. */
  close(): Promise<void>;
};

/** What the door over HTTP is made of. */
export type HttpDoorOptions = {
  address: LocalAddress;
  /** What every request but `/health` has to bear; null on a socket, which its owner alone can open. */
  token: string | null;
  /** For faults of the code, which nobody asked for. */
  say: (line: string) => void;
};

/** One question: of the server, or of a workspace. */
type Route = { name: ServerRequestName } | { workspace: string; name: WorkspaceRequestName };

/** Serves workspaces over HTTP, to this machine alone: on a unix socket of mode 0600, or on a port of the loopback interface with a token. */
export async function serveWorkspacesHttp(
  service: WorkspaceService,
  { address, token, say }: HttpDoorOptions,
): Promise<WorkspaceDoor | { refused: string }> {
  if (!("path" in address) && token === null)
    return { refused: "A port can be used by everybody on this machine, so it needs a token." };
  const held = { bytes: 0 };
  const server = createServer({ highWaterMark: SERVER_LIMITS.unreadBytes });
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    answer(service, request, response, { isSocket: "path" in address, token, held }).catch((error: unknown) => {
      // Whoever asked has left in the middle of a sentence.
      if (response.destroyed) return;
      say(`A fault of plumule: ${error instanceof Error ? error.stack : String(error)}`);
      if (!response.headersSent) sendRefusal(response, refuse("internal", "The request met a fault of this server."));
      else response.destroy();
    });
  };
  server.on("request", handle);
  // Without it Node asks for the body of whoever waits to be asked, before anything was looked at.
  server.on("checkContinue", handle);
  server.maxConnections = SERVER_LIMITS.connectionsCount;
  server.headersTimeout = SERVER_LIMITS.headersMs;
  server.requestTimeout = SERVER_LIMITS.requestMs;
  const refused = await listen(server, address);
  if (refused !== null) return { refused };
  const closed = once(server, "close").then(() => {});
  return {
    address: "path" in address ? address.path : urlOf(server),
    close() {
      if (!server.listening) server.closeAllConnections();
      else server.close();
      return closed;
    },
  };
}

async function listen(server: Server, address: LocalAddress): Promise<string | null> {
  const inTheWay = "path" in address ? await clearSocketPath(address.path) : null;
  if (inTheWay !== null) return inTheWay;
  // A socket is made by the call itself, and nobody may open it in the moment before its mode could be changed.
  const umask = process.umask(0o177);
  try {
    server.listen(address);
  } finally {
    process.umask(umask);
  }
  try {
    await once(server, "listening");
    return null;
  } catch (error) {
    return `Nothing can be served there: ${String(error)}`;
  }
}

function urlOf(server: Server): string {
  const bound = server.address();
  if (typeof bound !== "object" || bound === null) return "";
  return `http://${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`;
}

type Door = { isSocket: boolean; token: string | null; held: { bytes: number } };

async function answer(
  service: WorkspaceService,
  request: IncomingMessage,
  response: ServerResponse,
  door: Door,
): Promise<void> {
  const route = admit(request, door);
  if (isRefusal(route)) return sendRefusal(response, route);
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const taking = { bytes: 0 };
  try {
    const body = await readBody(request, response, { route, held: door.held, taking });
    if (isRefusal(body)) return sendRefusal(response, body);
    const asked: DoorRequest = {
      body,
      cancel: gone.signal,
      answerBytes: Infinity,
      emit: (event) => sendLine(response, event),
    };
    const answered =
      "workspace" in route
        ? await service.askWorkspace(route.workspace, route.name, asked)
        : await service.ask(route.name, asked);
    await send(response, answered, door.held);
  } finally {
    door.held.bytes -= taking.bytes;
  }
}

/** What is asked for, when it may be: by the name of this machine, so that no page in a browser can ask by another, and with the token. */
function admit({ method = "", url = "", headers }: IncomingMessage, { isSocket, token }: Door): Route | Refusal {
  if (!isSocket && !isLocalHost(headers.host))
    return refuse("forbidden", "The request names another host.", { next: "Ask by the address of this machine." });
  const route = routeOf(method, url.split("?", 1)[0] ?? "");
  if (token === null || (!isRefusal(route) && route.name === "health")) return route;
  const [, given = ""] = /^Bearer (.{1,512})$/i.exec(headers.authorization ?? "") ?? [];
  if (isSame(given, token)) return route;
  return refuse("unauthenticated", given === "" ? "No token was sent." : "This is not the token of this server.", {
    next: "Send `Authorization: Bearer …` with what the server's token file holds.",
    headers: { "www-authenticate": "Bearer" },
  });
}

function isSame(given: string, token: string): boolean {
  const [a, b] = [given, token].map((text) => createHash("sha256").update(text).digest());
  return a !== undefined && b !== undefined && timingSafeEqual(a, b);
}

function routeOf(method: string, path: string): Route | Refusal {
  const [, workspace, name] = /^\/workspaces\/([^/]+)(?:\/([a-z_]+))?$/.exec(path) ?? [];
  const byMethod: Readonly<Record<string, Route>> | null =
    path === "/health"
      ? { GET: { name: "health" } }
      : path === "/workspaces"
        ? { GET: { name: "list" }, POST: { name: "setup" } }
        : workspace === undefined
          ? null
          : name === undefined
            ? { DELETE: { workspace, name: "teardown" } }
            : isWorkspaceRequest(name) && name !== "teardown"
              ? { POST: { workspace, name } }
              : null;
  if (byMethod === null)
    return refuse("not-found", "There is nothing at this path.", { next: "See docs/workspaces-server.md." });
  const allow = Object.keys(byMethod).join(", ");
  return (
    byMethod[method] ??
    refuse("method-not-allowed", `This path takes ${allow}.`, { next: `Send ${allow}.`, headers: { allow } })
  );
}

async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  { route, held, taking }: { route: Route; held: { bytes: number }; taking: { bytes: number } },
): Promise<Uint8Array | Refusal> {
  const limit = route.name === "write_file" ? SERVER_LIMITS.fileBodyBytes : SERVER_LIMITS.bodyBytes;
  const tooMuch = (): Refusal => tooBusy("Other requests hold all the memory that files may take.");
  const tooLarge = (): Refusal => refuse("payload-too-large", `The body of this request may have ${limit} bytes.`);
  if (Number(request.headers["content-length"] ?? 0) > limit) return tooLarge();
  if (/^100-continue$/i.test(request.headers.expect ?? "")) response.writeContinue();
  const chunks: Uint8Array[] = [];
  // An answer may follow before the end, so leaving the loop must not take the connection down.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>) {
    taking.bytes += chunk.length;
    held.bytes += chunk.length;
    if (taking.bytes > limit) return tooLarge();
    if (held.bytes > SERVER_LIMITS.heldBytes) return tooMuch();
    chunks.push(chunk);
  }
  if (route.name === "read_file" && held.bytes > SERVER_LIMITS.heldBytes) return tooMuch();
  return Buffer.concat(chunks);
}

async function send(response: ServerResponse, answered: DoorAnswer, held: { bytes: number }): Promise<void> {
  if (response.destroyed) return;
  if (isRefusal(answered)) return sendRefusal(response, answered);
  if ("streamed" in answered) return void response.end();
  if ("value" in answered) {
    response.writeHead(200, { ...HEADERS, "content-type": "application/json" });
    return void response.end(`${JSON.stringify(answered.value)}\n`);
  }
  response.writeHead(200, {
    ...HEADERS,
    "content-type": "application/octet-stream",
    "content-length": answered.bytes.length,
  });
  held.bytes += answered.bytes.length;
  response.end(answered.bytes);
  await once(response, "close");
  held.bytes -= answered.bytes.length;
}

/** A line of a stream; settles when there is room for the next. Who takes nothing for long counts as gone. */
function sendLine(response: ServerResponse, event: object): Promise<void> {
  if (response.destroyed) return Promise.resolve();
  if (!response.headersSent) response.writeHead(200, { ...HEADERS, "content-type": "application/x-ndjson" });
  if (response.write(`${JSON.stringify(event)}\n`)) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => response.destroy(), SERVER_LIMITS.stallMs);
    const done = (): void => {
      clearTimeout(timer);
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.on("drain", done).on("close", done);
  });
}

function sendRefusal(response: ServerResponse, refusal: Refusal): void {
  const problem = problemOf(refusal);
  const headers = { ...HEADERS, "content-type": "application/problem+json", ...refusal.headers };
  const { req: request } = response;
  if (!request.complete) {
    // Who is still sending would not read an answer on a connection that is reset; for a moment it is heard out.
    response.setHeader("connection", "close");
    request.resume();
    setTimeout(() => request.socket.destroy(), HEAR_OUT_MS).unref();
  }
  response.writeHead(problem.status, headers).end(`${JSON.stringify(problem)}\n`);
}

const HEADERS = { "cache-control": "no-store", "x-content-type-options": "nosniff" };
/** How long a request that was refused may go on sending, ms. */
const HEAR_OUT_MS = 2_000;
