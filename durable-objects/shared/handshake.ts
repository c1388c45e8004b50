import { CLOSE_CODES, ERRORS, LIMITS, problemOf, refuse, STREAM_SUBPROTOCOL } from "@plumule/protocol";
import type { Admission } from "./subscription.ts";

/** What the edge tells an object of an upgrade, instead of the credential. */
const ACTOR = "plumule-actor";
const UNTIL = "plumule-until";

/** The request that the edge passes on when it has admitted a watcher: no credential crosses. */
export function admittedUpgrade(url: string, { actor, until }: Admission): Request {
  const headers = { upgrade: "websocket", "sec-websocket-protocol": STREAM_SUBPROTOCOL };
  return new Request(url, { headers: { ...headers, [ACTOR]: actor, [UNTIL]: String(until) } });
}

/** Whom the edge has admitted. An edge of an older version names nobody; its watchers come again when their time is over. */
export function admissionOf({ headers }: Request): Admission {
  const until = Number(headers.get(UNTIL) ?? Number.NaN);
  return { actor: headers.get(ACTOR) ?? "", until: Number.isNaN(until) ? Date.now() + LIMITS.admissionMs : until };
}

/** Why a request gets no stream, as an answer; null when it asks for one properly. */
export function refuseHandshake(request: Request): Response | null {
  if (request.headers.get("Upgrade")?.toLowerCase() !== "websocket") {
    const problem = problemOf(refuse("upgrade-required", "this path speaks WebSocket only"));
    const headers = { "content-type": "application/problem+json", upgrade: "websocket" };
    return new Response(JSON.stringify(problem), { status: ERRORS["upgrade-required"].status, headers });
  }
  const asked = request.headers.get("Sec-WebSocket-Protocol") ?? "";
  if (asked.split(",").some((name) => name.trim() === STREAM_SUBPROTOCOL)) return null;
  return turnAway(CLOSE_CODES.wrongSubprotocol, `connect with the subprotocol ${STREAM_SUBPROTOCOL}`, {});
}

/** Answers a proper request for a stream. Tickets travel as a second subprotocol, so the one that is spoken is named. */
export function switchProtocols(client: WebSocket): Response {
  return new Response(null, { status: 101, webSocket: client, headers: SPOKEN });
}

/** Opens a socket only to close it with a code: a page can read that, but not the status of a refused handshake. */
export function turnAway(code: number, reason: string, headers: Readonly<Record<string, string>> = SPOKEN): Response {
  const { 0: client, 1: server } = new WebSocketPair();
  server.accept();
  server.close(code, reason);
  return new Response(null, { status: 101, webSocket: client, headers });
}

const SPOKEN = { "Sec-WebSocket-Protocol": STREAM_SUBPROTOCOL };
