import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";

let broker: TestBroker;
beforeAll(async () => {
  broker = await startTestBroker();
  await broker.submit("lane", { task: { kind: "shell", script: "true" } });
});
afterAll(() => broker?.stop());

/** A socket of Node's own, which may send headers; its close is what a client sees on the wire. */
async function connect(path: string): Promise<WebSocket> {
  const options = { protocols: ["plumule.v1"], headers: { authorization: `Bearer ${broker.token}` } };
  const socket = new WebSocket(`${broker.url.replace("http", "ws")}/v1/test${path}`, options);
  await new Promise((resolve) => socket.addEventListener("message", resolve, { once: true }));
  return socket;
}

it.each([
  ["of a deployment", "/deployments/lane/stream", 1000, 1000],
  ["of the namespace", "/stream", 1000, 1000],
  ["with a code of its own", "/stream", 4001, 4001],
])("answers the close of a stream %s at once", async (_, path, code, answered) => {
  const socket = await connect(path);
  const closed = new Promise<CloseEvent>((resolve) => socket.addEventListener("close", resolve, { once: true }));
  const askedAt = performance.now();
  socket.close(code, "enough");
  expect(await closed).toMatchObject({ code: answered, wasClean: true });
  expect(performance.now() - askedAt).toBeLessThan(5_000);
});
