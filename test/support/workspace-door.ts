import { once } from "node:events";
import { type IncomingMessage, request, type RequestOptions } from "node:http";
import { createInterface } from "node:readline";
import { buffer } from "node:stream/consumers";
import { expect } from "vitest";

/** The fields that answers and events have, each of them some. */
export type Reply = {
  id: string;
  output: string;
  omitted_bytes: number;
  exit_code: number;
  detail: string;
  workspaces: object[];
  errors: { pointer: string }[];
};
export type Line = { event: string; command: string; text: string };

export type Answer = {
  status: number | undefined;
  headers: IncomingMessage["headers"];
  bytes: Buffer;
  json: () => Reply;
};

/** Asks a door over HTTP. */
export async function ask(
  at: RequestOptions,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const asked = request({ ...at, method, path, headers });
  asked.end(body === undefined || typeof body === "string" ? body : JSON.stringify(body));
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  const bytes = await buffer(response);
  return {
    status: response.statusCode,
    headers: response.headers,
    bytes,
    json: () => JSON.parse(bytes.toString()) as Reply,
  };
}

/** Starts a command whose output streams. */
export async function stream(
  at: RequestOptions,
  path: string,
  body: object,
): Promise<{ next: () => Promise<Line | null>; leave(): void }> {
  const asked = request({ ...at, method: "POST", path });
  asked.on("error", () => {}).end(JSON.stringify(body));
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  expect(response.headers["content-type"]).toBe("application/x-ndjson");
  response.on("error", () => {});
  const lines = createInterface({ input: response })[Symbol.asyncIterator]();
  return {
    async next() {
      const line = await lines.next();
      return line.done === true ? null : (JSON.parse(line.value) as Line);
    },
    leave: () => response.destroy(),
  };
}
