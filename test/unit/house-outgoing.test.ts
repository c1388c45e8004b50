import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");
/** A call of the global `fetch` and other ways out; `stub.fetch(…)` is a call between objects, and a method of that name is a door in. */
const WAY_OUT =
  /(?<![.\w]|async )fetch\((?!request: Request)|(?:globalThis|self)\.fetch|cloudflare:sockets|new WebSocket\(/;
/** Examples for readers, as text. */
const TEXTS = ["src/docs-examples.ts"];

it("the broker calls addresses of others from one place, which checks them", () => {
  const calls = ["src/**/*.ts", "durable-objects/**/*.ts"]
    .flatMap((pattern) => globSync(pattern, { cwd: root }))
    .filter((file) => !TEXTS.includes(file))
    .flatMap((file) =>
      readFileSync(join(root, file), "utf8")
        .split("\n")
        .map((line) => `${file}: ${line.trim()}`),
    )
    .filter((line) => WAY_OUT.test(line));
  expect(calls).toEqual([
    expect.stringMatching(
      /^durable-objects\/namespace\/parts\.ts: .*createOutgoing\(\{ fetch: \(url, init\) => fetch\(url, init\)/,
    ),
  ]);
});
