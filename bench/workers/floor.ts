import { DurableObject } from "cloudflare:workers";

type FloorEnv = { FLOOR: DurableObjectNamespace<Floor> };

/**
 * The least that a durable job broker on this runtime can do, as the measure of everything else: one object, one row per request, and
 * either the answer of one parked poll or one frame to each open socket; or a row for the bytes of each request, as the least that a log costs. It knows no callers, checks nothing and remembers nothing.
 */
export class Floor extends DurableObject<FloorEnv> {
  readonly #parked: ((body: string) => void)[] = [];

  constructor(ctx: DurableObjectState, env: FloorEnv) {
    super(ctx, env);
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT");
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS logs (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT");
  }

  override async fetch(request: Request): Promise<Response> {
    switch (new URL(request.url).pathname) {
      case "/poll":
        return new Response(await new Promise<string>((answer) => this.#parked.push(answer)));
      case "/submit": {
        const body = await this.#store(request);
        this.#parked.shift()?.(body);
        return new Response("{}");
      }
      case "/tell": {
        const body = await this.#store(request);
        for (const socket of this.ctx.getWebSockets()) socket.send(body);
        return new Response("{}");
      }
      case "/log":
        this.ctx.storage.sql.exec("INSERT INTO logs (bytes) VALUES (?)", await request.arrayBuffer());
        return new Response("{}");
      case "/socket": {
        const { 0: client, 1: server } = new WebSocketPair();
        this.ctx.acceptWebSocket(server);
        return new Response(null, { status: 101, webSocket: client });
      }
      default:
        return new Response(null, { status: 404 });
    }
  }

  async #store(request: Request): Promise<string> {
    const body = await request.text();
    this.ctx.storage.sql.exec("INSERT INTO jobs (body) VALUES (?)", body);
    return body;
  }
}

export default {
  fetch: (request, env) => env.FLOOR.getByName("floor").fetch(request),
} satisfies ExportedHandler<FloorEnv>;
