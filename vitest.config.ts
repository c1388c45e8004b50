import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { startGarden } from "./test/support/garden.ts";

const { PLUMULE_FUZZ_CASES: cases, PLUMULE_FUZZ_SEED: seed } = process.env;
const fuzz = { ...(cases ? { FUZZ_CASES: cases } : {}), ...(seed ? { FUZZ_SEED: seed } : {}) };

// An emulated processor hangs when it takes five minutes, and not before.
const isGuest = process.env["PLUMULE_TEST_VM"] !== undefined;
const patience = isGuest ? { testTimeout: 300_000, hookTimeout: 300_000, expect: { poll: { timeout: 60_000 } } } : {};

// Tests start hundreds of processes from the same TypeScript: each that finds it compiled is there in half the time.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "plumule-compile-cache");

export default defineConfig({
  test: {
    // Many tests wait for processes more than they work, and Vitest would leave one core to itself.
    maxWorkers: availableParallelism() + 1,
    // What hangs fails, and what waits for a busy machine does not.
    testTimeout: 30_000,
    projects: [
      // Files share processes: to load the packages that they test takes longer than most of them.
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], isolate: false, ...patience } },
      {
        test: {
          name: "model",
          include: ["test/model/**/*.test.ts"],
          // Worlds are made and dropped by the million.
          execArgv: ["--max-semi-space-size=64", "--single-threaded-gc"],
        },
      },
      { test: { name: "simulation", include: ["test/simulation/**/*.test.ts"] } },
      {
        plugins: [
          cloudflareTest({
            wrangler: { configPath: "./wrangler.toml" },
            miniflare: {
              bindings: { ADMIN_TOKEN: "the-admin-token-of-the-tests", ...fuzz },
              outboundService: startGarden(),
            },
          }),
        ],
        test: { name: "workers", include: ["test/workers/**/*.test.ts"], isolate: false },
      },
      // `npm run test:radicle`: builds Radicle when it is not there.
      ...(process.env["PLUMULE_TEST_RADICLE"] === undefined
        ? []
        : [{ test: { name: "radicle", include: ["test/radicle/**/*.test.ts"] } }]),
      // `npm run test:vm`: the guest's own script asks for it.
      ...(isGuest ? [{ test: { name: "vm", include: ["test/vm/**/*.test.ts"], ...patience } }] : []),
      { test: { name: "chaos", include: ["test/chaos/**/*.test.ts"] } },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
