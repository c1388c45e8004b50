import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkOutgoingUrl, createOutgoing, type Outgoing } from "../../durable-objects/shared/outgoing.ts";

const OWN = "https://broker.example";

function faultOf(url: string, hosts?: readonly string[]): string | null {
  const checked = checkOutgoingUrl(url, { own: OWN, ...(hosts === undefined ? {} : { hosts }) });
  return checked.ok ? null : checked.detail;
}

describe("an address that somebody gave", () => {
  test.each([
    "https://garden.example/api",
    "https://garden.example:443/",
    "https://garden.example:8443/a?b=c",
    "https://GARDEN.example./",
    "https://xn--bcher-kva.example/",
  ])("%s may be called", (url) => {
    expect(faultOf(url)).toBeNull();
    expect(faultOf(url.toLowerCase(), ["garden.example", "xn--bcher-kva.example"])).toBeNull();
  });

  test.each([
    ["http://garden.example/", "only https"],
    ["ftp://garden.example/", "only https"],
    ["file:///etc/passwd", "only https"],
    ["javascript:alert(1)", "only https"],
    ["https://user@garden.example/", "a user and password"],
    ["https://u:p@garden.example/", "a user and password"],
    ["https://garden.example:22/", "port 22"],
    ["https://garden.example:80/", "port 80"],
    ["https://127.0.0.1/", "address in digits"],
    ["https://127.1/", "address in digits"],
    ["https://0x7f.1/", "address in digits"],
    ["https://0177.0.0.1/", "address in digits"],
    ["https://2130706433/", "address in digits"],
    ["https://127.0.0.1./", "address in digits"],
    ["https://[::1]/", "address in digits"],
    ["https://[::ffff:169.254.169.254]/", "address in digits"],
    ["https://１２７.０.０.１/", "address in digits"],
    ["https://localhost/", "no public name|not a public name"],
    ["https://a.localhost/", "not a public name"],
    ["https://router.lan/", "not a public name"],
    ["https://metadata.google.internal/", "not a public name"],
    ["https://printer.local./", "not a public name"],
    ["https://broker.example/v1/acme/jobs", "this broker itself"],
    ["https://BROKER.example./", "this broker itself"],
    ["https://broker.example:8443/", "this broker itself"],
    ["garden.example", "not a URL"],
    ["", "not a URL"],
    ["https://", "not a URL"],
  ])("%s may not: %s", (url, why) => {
    expect(faultOf(url)).toMatch(new RegExp(why));
  });

  test.each([
    "https://garden.example.evil.example/",
    "https://evil.example/garden.example",
    "https://sub.garden.example/",
  ])("%s is another host than garden.example", (url) => {
    expect(faultOf(url, ["garden.example"])).toContain("is not allowed here");
    expect(faultOf(url, [])).toContain("is not allowed here");
  });
});

describe("a call to an outside host", () => {
  let server: Server;
  let now = 0;
  let out: Outgoing;
  let answer: number | "hang up";
  let calls: string[];
  const url = new URL("https://garden.example/hook");
  const post = (): ReturnType<Outgoing["post"]> => out.post(url, { body: "{}", headers: { "x-signed": "yes" } });

  beforeEach(async () => {
    answer = 200;
    calls = [];
    server = createServer((request, response) => {
      calls.push(`${request.method} ${request.url} ${String(request.headers["x-signed"])}`);
      if (answer === "hang up") request.socket.destroy();
      else response.writeHead(answer, answer === 302 ? { location: "/internal" } : {}).end("secret of the inside");
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as AddressInfo;
    // The name leads to the server of this test, as a name server would.
    out = createOutgoing({
      fetch: (to, init) =>
        fetch(`http://127.0.0.1:${port}${new URL(to instanceof Request ? to.url : to).pathname}`, init),
      now: () => now,
    });
  });
  afterEach(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  });

  test("tells its status and nothing else, and follows no redirect", async () => {
    expect(await post()).toEqual({ ok: true, status: 200 });
    answer = 302;
    expect(await post()).toEqual({ ok: true, status: 302 });
    expect(calls).toEqual(["POST /hook yes", "POST /hook yes"]);
  });

  test("rests after five failures in a row, and is tried again after a minute", async () => {
    answer = 503;
    for (let count = 0; count < 4; count += 1) expect(await post()).toEqual({ ok: true, status: 503 });
    answer = "hang up";
    expect(await post()).toEqual({
      ok: false,
      code: "unreachable",
      detail: "garden.example cannot be reached (TypeError)",
    });
    expect(await post()).toMatchObject({ ok: false, code: "resting", until: 60_000 });
    expect(calls).toHaveLength(5);
    now = 60_000;
    answer = 200;
    expect(await post()).toEqual({ ok: true, status: 200 });
    answer = 503;
    expect(await post()).toEqual({ ok: true, status: 503 });
  });

  test("that refuses what it is told is in order: it does not rest", async () => {
    answer = 404;
    for (let count = 0; count < 8; count += 1) expect(await post()).toEqual({ ok: true, status: 404 });
  });
});
