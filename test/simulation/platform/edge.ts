import { type Context, currentContext, newOwner, runAs } from "./clock.ts";
import { SimulatedRequest, type SimulatedResponse } from "./http.ts";
import type { Network } from "./network.ts";
import { type ClientEnd, type Dial, SimulatedWebSocket, type Wire } from "./sockets.ts";
import type { World } from "./world.ts";

/** The Worker at the edge, as the platform calls it. */
export type EdgeApp = { fetch(request: unknown, env: unknown): Response | Promise<Response> };

const PROXY_PAGE = "<!doctype html><title>Please wait</title><h1>Checking your connection</h1>";
/** Longest time that a client does not read its socket, ms. */
const SLOW_SOCKET_MS = 45_000;

/** The door of the broker, as clients reach it through the simulated network. */
export class Edge {
  readonly #world: World;
  readonly #network: Network;
  readonly #app: EdgeApp;
  readonly #env: unknown;
  /** Called with every answer and frame that reaches a client. */
  readonly #seen: (client: string, text: string) => void;

  constructor(
    world: World,
    network: Network,
    to: { app: EdgeApp; env: unknown; seen: (client: string, text: string) => void },
  ) {
    this.#world = world;
    this.#network = network;
    this.#app = to.app;
    this.#env = to.env;
    this.#seen = to.seen;
    SimulatedWebSocket.dial = this.#dial;
  }

  /** `fetch` of a client. A faulty network rejects, as the real one does; a faulty proxy answers with a page. */
  readonly fetch = (url: string, init: RequestInit): Promise<Response> => {
    const context = currentContext();
    if (context === null) throw new Error("nobody fetches");
    const { signal, ...rest } = init;
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    this.#exchange(context, new SimulatedRequest(url, rest), resolve, reject);
    return promise;
  };

  readonly #dial: Dial = (url, protocols, opened, failed) => {
    const context = currentContext();
    if (context === null) throw new Error("nobody connects");
    const headers = { upgrade: "websocket", "sec-websocket-protocol": protocols.join(", ") };
    const request = new SimulatedRequest(url.replace(/^ws/, "http"), { headers });
    const answered = (response: Response): void => {
      const end = (response as unknown as SimulatedResponse).webSocket as ClientEnd | null;
      if (end === null) failed();
      else opened(end, this.#wire(context.owner.name, end));
    };
    this.#exchange(context, request, answered, failed);
  };

  #exchange(
    context: Context,
    request: SimulatedRequest,
    resolve: (response: Response) => void,
    reject: (error: Error) => void,
  ): void {
    const client = context.owner.name;
    this.#network.exchange<Response>(context.owner, {
      from: client,
      to: "edge",
      distance: "far",
      ask: (answer, fail) => {
        this.#world.note(`${client} ${request.method} ${request.url}`);
        const edge = { owner: newOwner("edge"), stranger: context.stranger };
        runAs(edge, async () => this.#app.fetch(request, this.#env)).then(answer, (error: unknown) =>
          fail(String(error)),
        );
      },
      answered: (response) => {
        const { body, status } = response as unknown as SimulatedResponse;
        this.#world.note(`${client} got ${status}`);
        if (typeof body === "string") this.#seen(client, body);
        if (status !== 101 && this.#world.faults.strikes("proxy page"))
          resolve(new Response(PROXY_PAGE, { headers: { "content-type": "text/html" } }));
        else resolve(response);
      },
      failed: (error) => reject(new TypeError("fetch failed", { cause: error })),
    });
  }

  /** The connection of one socket: frames keep their order in each direction, until it is cut. */
  #wire(client: string, end: ClientEnd): Wire {
    const { clock, faults, timing } = this.#world;
    const lastAt = { toClient: 0, toServer: 0 };
    let isCut = false;
    const cut = (): void => {
      isCut = true;
      this.#world.note(`cut the socket of ${client}`);
      end.client?.ended(1006, "");
      end.server.broke();
    };
    const carry = (direction: keyof typeof lastAt, deliver: () => void): void => {
      if (isCut) return;
      const slowMs = faults.strikes("slow socket") ? timing.next() * SLOW_SOCKET_MS : 0;
      const at = Math.max(lastAt[direction], clock.now + this.#network.delayMs("far")) + slowMs;
      lastAt[direction] = at;
      clock.after(at - clock.now, () => {
        if (isCut) return;
        if (this.#network.isCut(client, "edge") || faults.strikes("socket cut")) return cut();
        this.#world.note(`frame ${direction} ${client}`);
        deliver();
      });
    };
    return { toClient: (deliver) => carry("toClient", deliver), toServer: (deliver) => carry("toServer", deliver) };
  }
}
