import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cacheKeyFault, cacheName, cacheUrlFault, pushPaths, takesCacheKey } from "../../runner/src/nix/cache.ts";

const KEY = `garden-1:${"A".repeat(86)}==\n`;
let folder: string;
let file: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-cache-"));
  file = join(folder, "nix-cache-key");
  writeFileSync(file, KEY);
});
afterAll(() => rmSync(folder, { recursive: true }));

test("a key is read from a file of the runner's own, and from systemd's folder whatever its mode says", async () => {
  chmodSync(file, 0o440);
  expect(await cacheKeyFault(file, undefined)).toMatch(/mode 440; run chmod 600/);
  expect(await cacheKeyFault(file, folder)).toBeNull();
  expect(await cacheKeyFault(file, join(folder, "other"))).toMatch(/chmod/);
  chmodSync(file, 0o600);
  expect(await cacheKeyFault(file, undefined)).toBeNull();
  expect(await cacheKeyFault(join(folder, "none"), folder)).toMatch(/ENOENT/);
});

test.each([
  ["file:///srv/cache", null],
  ["s3://cache?region=eu-central-1&scheme=https", null],
  ["https://cache.example/x", null],
  ["ssh-ng://build@host", null],
  ["/srv/cache", /URL of a store/],
  ["daemon", /URL of a store/],
  ["--all", /URL of a store/],
  ["https://a b", /URL of a store/],
  ["https://me:word@cache.example", /netrc-file/],
  ["s3://cache?secret-key=/k", /nixCacheKey/],
])("as a cache, %j", (url, fault) => {
  if (fault === null) expect(cacheUrlFault(url)).toBeNull();
  else expect(cacheUrlFault(url)).toMatch(fault);
});

test("only stores that keep others' signatures take a key", () => {
  expect(["file:///a", "s3://a", "https://a", "ssh://a", "ssh-ng://a", ""].map(takesCacheKey)).toEqual([
    true,
    true,
    true,
    false,
    false,
    false,
  ]);
});

test("Nix is given the key by its file, many paths in several commands, and its last words are told", async () => {
  const commands: string[][] = [];
  const run = (exitCode: number, said: string) => ({
    cwd: "/",
    env: {},
    run: (argv: readonly string[], { onStderr }: { onStderr: (chunk: Uint8Array) => void }) => {
      commands.push([...argv]);
      onStderr(new TextEncoder().encode(said));
      return Promise.resolve({ exitCode, signal: null });
    },
  });
  const cache = { to: "s3://cache?region=x", keyFile: "/etc/a key", required: false };
  const paths = Array.from({ length: 501 }, (_, at) => `/nix/store/${at}`);
  expect(await pushPaths(run(0, ""), cache, paths)).toBeNull();
  expect(commands.map((argv) => argv.length)).toEqual([508, 9]);
  expect(commands[0]).toContain("s3://cache?region=x&secret-key=/etc/a%20key");
  expect(await pushPaths(run(1, "warning: x\nerror: no room\n"), cache, paths)).toBe("error: no room");
  expect(await pushPaths(run(1, ""), cache, paths)).toBe("nix copy ended with exit code 1");
  expect(cacheName(cache)).toBe("s3://cache");
});
