import { spawnSync } from "node:child_process";
import { copyFileSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** Lines that lint must refuse in a file at this path, and lines that it must let pass there. */
interface Wall {
  readonly refused: readonly string[];
  readonly allowed: readonly string[];
}

const walls: Readonly<Record<string, Wall>> = {
  "protocol/src/anything.ts": {
    refused: [
      `import "node:fs";`,
      `import "cloudflare:workers";`,
      `import "hono";`,
      `import "@noble/curves";`,
      `import "age-encryption";`,
      `import type { Job } from "#durable-objects/deployment/core.ts";`,
      `import "../../src/app.ts";`,
      `import "./index.ts";`,
      `export * from "hono";`,
      `await import("yaml");`,
      `import { z } from "zod";`,
    ],
    allowed: [
      `import * as schema from "zod";`,
      `import "@noble/ed25519";`,
      `import "@noble/hashes/sha2.js";`,
      `import "./ids.ts";`,
    ],
  },
  "protocol/src/seal.ts": {
    refused: [`import "node:crypto";`, `import "yaml";`, `import "./index.ts";`],
    allowed: [`import "age-encryption";`, `import "./bytes.ts";`],
  },
  "src/routes/anything.ts": {
    refused: [
      `import "age-encryption";`,
      `import "@plumule/protocol/seal";`,
      `import "node:fs";`,
      `import { Pool } from "#durable-objects/pool/pool.ts";`,
      `import { Namespace } from "../../durable-objects/namespace/namespace.ts";`,
      `import "../../protocol/src/ids.ts";`,
      `import "@plumule/runner";`,
      `console.log("hello");`,
    ],
    allowed: [
      `import "@plumule/protocol";`,
      `import "hono";`,
      `import "hono/cors";`,
      `import "cloudflare:workers";`,
      `import "../problem.ts";`,
      `import type { Deployment } from "#durable-objects/deployment/deployment.ts";`,
      `import { poolObject } from "../../durable-objects/shared/names.ts";`,
    ],
  },
  "src/worker.ts": {
    refused: [`import "node:fs";`, `import "@plumule/cli";`],
    allowed: [`export { Pool } from "#durable-objects/pool/pool.ts";`, `export default {};`],
  },
  "src/log.ts": { refused: [`import "node:fs";`], allowed: [`console.log("{}");`] },
  "durable-objects/deployment/native.ts": {
    refused: [`import "node:fs";`, `import "hono";`, `import "./store.ts";`],
    allowed: [`import "node:zlib";`, `import "node:crypto";`, `import "@plumule/protocol";`],
  },
  "durable-objects/pool/pool.ts": {
    refused: [
      `import "@plumule/protocol/seal";`,
      `import "node:fs";`,
      `import "hono";`,
      `import "zod";`,
      `import { saveJob } from "../deployment/store.ts";`,
      `import { saveToken } from "#durable-objects/namespace/store.ts";`,
      `import "../../src/app.ts";`,
      `storage.transactionSync(() => {});`,
    ],
    allowed: [
      `import "@plumule/protocol";`,
      `import "cloudflare:workers";`,
      `import "./store.ts";`,
      `import "../shared/transact.ts";`,
      `import type { Deployment } from "../deployment/deployment.ts";`,
    ],
  },
  "durable-objects/shared/transact.ts": {
    refused: [`import "hono";`],
    allowed: [`storage.transactionSync(() => {});`],
  },
  "durable-objects/deployment/core.ts": {
    refused: [
      `import "cloudflare:workers";`,
      `import "node:crypto";`,
      `import { saveJob } from "./store.ts";`,
      `import { drain } from "../shared/outbox.ts";`,
      `Date.now();`,
      `Math.random();`,
      `crypto.randomUUID();`,
      `performance.now();`,
      `fetch("/");`,
    ],
    allowed: [
      `import "@plumule/protocol";`,
      `import "./core/lane.ts";`,
      `import type { Row } from "./store.ts";`,
      `import type { OutboxRow } from "../shared/outbox.ts";`,
    ],
  },
  "durable-objects/deployment/core/lane.ts": {
    refused: [
      `import { saveJob } from "../store.ts";`,
      `import "cloudflare:workers";`,
      `Date.now();`,
      `crypto.randomUUID();`,
    ],
    allowed: [`import "./lease.ts";`, `import type { Row } from "../store.ts";`],
  },
  "runner/src/core/anything.ts": {
    refused: [
      `import "node:fs";`,
      `import "zod";`,
      `import { openJournal } from "../journal.ts";`,
      `Date.now();`,
      `Math.random();`,
      `performance.now();`,
      `process.hrtime();`,
      `fetch("/");`,
    ],
    allowed: [`import "@plumule/protocol";`, `import "./model.ts";`, `import type { Journal } from "../journal.ts";`],
  },
  "runner/src/workspace-server/nats.ts": {
    refused: [`import "yaml";`, `import "hono";`, `import "@nats-io/nats-core";`],
    allowed: [
      `import "@nats-io/transport-node";`,
      `import "@plumule/protocol";`,
      `import "node:fs";`,
      `import "./http.ts";`,
    ],
  },
  "runner/src/anything.ts": {
    refused: [
      `import "cloudflare:workers";`,
      `import "hono";`,
      `import "miniflare";`,
      `import "@plumule/bridge";`,
      `import "@nats-io/transport-node";`,
      `import "../../protocol/src/ids.ts";`,
    ],
    allowed: [
      `import "@plumule/protocol";`,
      `import "@plumule/protocol/seal";`,
      `import "node:fs";`,
      `import "node:fs/promises";`,
      `import "yaml";`,
      `import "./journal.ts";`,
    ],
  },
  "bridge/src/core/anything.ts": {
    refused: [
      `import "node:fs";`,
      `import "zod";`,
      `import { openQueue } from "../queue.ts";`,
      `Date.now();`,
      `fetch("/");`,
    ],
    allowed: [`import "@plumule/protocol";`, `import "./moves.ts";`, `import type { Look } from "../look.ts";`],
  },
  "bridge/src/anything.ts": {
    refused: [`import "yaml";`, `import "@plumule/runner";`, `import "fs";`],
    allowed: [`import "@plumule/protocol";`, `import "node:http";`, `import * as schema from "zod";`],
  },
  "cli/src/commands/anything.ts": {
    refused: [`import "miniflare";`, `import "esbuild";`, `import "hono";`, `import "../../../runner/src/journal.ts";`],
    allowed: [
      `import "@plumule/protocol/seal";`,
      `import "@plumule/runner";`,
      `import "@plumule/bridge";`,
      `import "commander";`,
      `console.log("hello");`,
      `import "../print.ts";`,
    ],
  },
  "cli/src/dev.ts": { refused: [`import "wrangler";`], allowed: [`import "miniflare";`] },
  "cli/src/dev/anything.ts": {
    refused: [`import "wrangler";`],
    allowed: [`import "miniflare";`, `import "esbuild";`],
  },
  "dashboard/src/anything.ts": {
    refused: [
      `import "@plumule/protocol/seal";`,
      `import "node:fs";`,
      `import "hono";`,
      `import "../../protocol/src/ids.ts";`,
    ],
    allowed: [`import "@plumule/protocol";`, `import "preact";`, `import "preact/hooks";`],
  },
  "test/unit/anything.ts": {
    refused: [`import "cloudflare:test";`, `import "miniflare";`, `import "#durable-objects/pool/pool.ts";`],
    allowed: [`import "#durable-objects/pool/core.ts";`, `import "@plumule/runner";`, `import "node:fs";`],
  },
  "test/workers/anything.ts": {
    refused: [`import "node:fs";`, `import "@plumule/runner";`, `import "../../runner/src/journal.ts";`],
    allowed: [`import "cloudflare:test";`, `import "#durable-objects/pool/pool.ts";`, `import "../../src/app.ts";`],
  },
  "test/e2e/anything.ts": {
    refused: [
      `import "#durable-objects/pool/core.ts";`,
      `import "../../src/app.ts";`,
      `import "../../durable-objects/pool/core.ts";`,
      `import "cloudflare:test";`,
    ],
    allowed: [`import "@plumule/runner";`, `import "wrangler";`, `import "node:fs";`],
  },
};

/** Mistakes that only a linter with types can see, each alone in its file. */
const typed: Readonly<Record<string, string>> = {
  "runner/src/floating.ts": `async function send(): Promise<void> {}\nsend();\n`,
  "runner/src/switch.ts": [
    `export function word(state: "held" | "queued"): string {`,
    `  switch (state) { case "held": return "held"; }`,
    `  return "";`,
    `}`,
    ``,
  ].join("\n"),
};

const root = join(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "plumule-walls-"));
let findings: readonly { readonly file: string; readonly line: number; readonly rule: string }[] = [];

beforeAll(() => {
  copyFileSync(join(root, ".oxlintrc.json"), join(folder, ".oxlintrc.json"));
  const files: Record<string, string> = {
    ...typed,
    "tsconfig.json": JSON.stringify({
      compilerOptions: { strict: true, target: "es2024", module: "nodenext", types: [] },
    }),
  };
  for (const [path, { refused, allowed }] of Object.entries(walls)) files[path] = [...refused, ...allowed].join("\n");
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  const lint = spawnSync(join(root, "node_modules/.bin/oxlint"), ["--type-aware", "--format=json"], { cwd: folder });
  const report = JSON.parse(lint.stdout.toString()) as {
    diagnostics: { filename: string; code: string; labels: { span: { line: number } }[] }[];
  };
  findings = report.diagnostics.map(({ filename, code, labels }) => ({
    file: filename,
    line: labels[0]!.span.line,
    rule: code,
  }));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("lint keeps the walls between the parts", () => {
  const rules = /restricted|import-style|no-console|prefer-node-protocol|no-default-export/;

  it.each(Object.keys(walls))("in %s it refuses what the table forbids and nothing else", (path) => {
    const { refused, allowed } = walls[path]!;
    const lines = [...refused, ...allowed];
    const found = findings
      .filter(({ file, rule }) => file === path && rules.test(rule))
      .map(({ line }) => lines[line - 1]);
    expect(new Set(found)).toEqual(new Set(refused));
  });

  it("sees a promise that nobody waits for and a switch that forgets a case", () => {
    const seen = (path: string): string[] => findings.filter(({ file }) => file === path).map(({ rule }) => rule);
    expect(seen("runner/src/floating.ts")).toContain("typescript(no-floating-promises)");
    expect(seen("runner/src/switch.ts")).toContain("typescript(switch-exhaustiveness-check)");
  });
});

it("has cores that await nothing and ask no clock", () => {
  const cores = globSync(
    ["durable-objects/*/core.ts", "durable-objects/*/core/**/*.ts", "{runner,bridge}/src/core/**/*.ts"],
    { cwd: root },
  );
  const code = (path: string): string =>
    readFileSync(join(root, path), "utf8").replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
  expect(cores).not.toEqual([]);
  expect(cores.filter((path) => /\b(async|await)\b|\bDate\(\)/.test(code(path)))).toEqual([]);
});
