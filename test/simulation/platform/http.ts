/** What a body may be here: it is never a stream, so that reading one takes no turn of the real event loop. */
type Body = string | Uint8Array | ArrayBuffer | null;

function bytesOf(body: Body): Uint8Array {
  if (body === null) return new Uint8Array();
  if (typeof body === "string") return new TextEncoder().encode(body);
  return body instanceof Uint8Array ? body : new Uint8Array(body);
}

class Message {
  readonly headers: Headers;
  readonly body: Body;

  constructor(body: Body, headers: ConstructorParameters<typeof Headers>[0]) {
    this.body = body;
    this.headers = new Headers(headers);
  }

  async text(): Promise<string> {
    return typeof this.body === "string" ? this.body : new TextDecoder().decode(bytesOf(this.body));
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    const bytes = bytesOf(this.body);
    return new Uint8Array(bytes).buffer;
  }
}

/** The part of `Request` that the product uses. */
export class SimulatedRequest extends Message {
  readonly url: string;
  readonly method: string;
  readonly signal: AbortSignal;

  constructor(url: string, init: RequestInit = {}) {
    super((init.body ?? null) as Body, init.headers);
    this.url = url;
    this.method = init.method ?? "GET";
    this.signal = init.signal ?? NEVER;
    if (this.body !== null) this.headers.set("content-length", String(bytesOf(this.body).byteLength));
  }
}

/** Nobody aborts a request that the broker serves: local workerd cannot tell either. */
const NEVER = new AbortController().signal;

/** The part of `Response` that the product uses; `webSocket` is what an upgrade answers with. */
export class SimulatedResponse extends Message {
  readonly status: number;
  readonly webSocket: unknown;

  constructor(body: Body = null, init: ResponseInit & { webSocket?: unknown } = {}) {
    super(body, init.headers);
    this.status = init.status ?? 200;
    this.webSocket = init.webSocket ?? null;
  }

  get ok(): boolean {
    return this.status >= 200 && this.status <= 299;
  }

  static json(value: unknown, init: ResponseInit = {}): SimulatedResponse {
    const response = new SimulatedResponse(JSON.stringify(value), init);
    if (!response.headers.has("content-type")) response.headers.set("content-type", "application/json");
    return response;
  }
}
