import { Agent, request as startRequest } from "node:http";

/** What a request carries. A body is sent as JSON, and bytes as they are. */
export type Sending = { bearer?: string; headers?: Readonly<Record<string, string>>; body?: unknown };

/** An HTTP client that keeps its connections. Answers are parsed as JSON; any status but 2xx throws, since a bench expects none. */
export type Http = {
  send<Answer = unknown>(method: "GET" | "POST" | "PUT", path: string, sending?: Sending): Promise<Answer>;
  close(): void;
};

/** The lightest client that Node has, so that as little as possible of what is measured is the client's. */
export function openHttp(url: string): Http {
  const agent = new Agent({ keepAlive: true, scheduling: "lifo" });
  const { hostname, port } = new URL(url);
  return {
    send<Answer>(method: string, path: string, { bearer, headers = {}, body }: Sending = {}) {
      const isOctets = body instanceof Uint8Array;
      const bytes = body === undefined ? null : isOctets ? body : Buffer.from(JSON.stringify(body));
      return new Promise<Answer>((resolve, reject) => {
        const request = startRequest({
          agent,
          hostname,
          port,
          method,
          path,
          headers: {
            ...headers,
            ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
            ...(bytes === null
              ? {}
              : {
                  "content-type": isOctets ? "application/octet-stream" : "application/json",
                  "content-length": bytes.length,
                }),
          },
        });
        request.on("error", reject);
        request.on("response", (response) => {
          const parts: Buffer[] = [];
          response.on("error", reject);
          response.on("data", (part: Buffer) => parts.push(part));
          response.on("end", () => {
            const { statusCode = 0 } = response;
            const text = Buffer.concat(parts).toString();
            if (statusCode < 200 || statusCode > 299) reject(new Error(`${method} ${path}: ${statusCode} ${text}`));
            else resolve((text === "" ? null : JSON.parse(text)) as Answer);
          });
        });
        request.end(bytes);
      });
    },
    close: () => agent.destroy(),
  };
}
