import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A network cable between a client and a broker: a TCP relay on a port of its own. */
export type Cable = {
  /** What the client connects to instead of the broker. */
  url: string;
  /** Every connection breaks without a farewell, and no new one comes through. */
  pull: () => void;
  plug: () => void;
  close: () => void;
};

/** Lays a cable to a broker on this machine. */
export async function layCable(brokerUrl: string): Promise<Cable> {
  const port = Number(new URL(brokerUrl).port);
  const open = new Set<Socket>();
  let isPulled = false;
  const server = createServer((near) => {
    if (isPulled) return void near.destroy();
    const far = connect(port, "127.0.0.1");
    const both = [near, far];
    for (const socket of both) {
      open.add(socket);
      // A socket that breaks takes the other one with it; why does not matter here.
      socket.on("error", () => {});
      socket.on("close", () => {
        open.delete(socket);
        for (const other of both) other.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const pull = (): void => {
    isPulled = true;
    for (const socket of open) socket.resetAndDestroy();
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    pull,
    plug: () => void (isPulled = false),
    close() {
      pull();
      server.close();
    },
  };
}
