// Makes a copy of a released version that later versions are tested against:
//   node scripts/freeze-release.mjs <commit or tag> <protocol version>
// Only our own code is in it, as it was at that commit; packages come from the checkout that runs it. Committed and never edited.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { root } from "./child-process.mjs";

const [commit = "", version = ""] = process.argv.slice(2);
if (commit === "" || !/^\d+$/.test(version)) {
  console.error("plumule: node scripts/freeze-release.mjs <commit or tag> <protocol version>");
  process.exit(2);
}

const supervisor = "runner/src/supervisor/main.ts";

const git = (/** @type {string[]} */ ...args) => execFileSync("git", args, { cwd: root, maxBuffer: 2 ** 28 });

/**
 * The commands that serve a broker need its sources beside them, and the frozen broker is served by the tests.
 *
 * @type {import("esbuild").Plugin}
 */
const withoutServing = {
  name: "without-serving",
  setup(building) {
    building.onResolve({ filter: /\/commands\/(?:dev|demo)\.ts$/ }, ({ path }) => ({ path, external: true }));
  },
};

/** The broker in one file; protocol, runner and command line as modules that share their parts. */
async function freeze() {
  const own = Object.fromEntries(
    ["protocol", "runner", "bridge"].map((name) => [`@plumule/${name}`, join(source, name, "src/index.ts")]),
  );
  /** @type {import("esbuild").BuildOptions} */
  const options = {
    absWorkingDir: source,
    alias: own,
    bundle: true,
    packages: "external",
    format: "esm",
    target: "es2024",
    minifyWhitespace: true,
    legalComments: "none",
    outExtension: { ".js": ".mjs" },
    logLevel: "warning",
    plugins: [withoutServing],
  };
  await build({
    ...options,
    external: ["cloudflare:*", "node:*"],
    entryPoints: { worker: "src/worker.ts" },
    outdir: folder,
  });
  await build({
    ...options,
    entryPoints: {
      protocol: "protocol/src/index.ts",
      runner: "runner/src/index.ts",
      cli: "cli/src/main.ts",
      // A process of its own, which version 1 does not have. The runner looks for it beside itself.
      ...(existsSync(join(source, supervisor)) ? { "supervisor/main": supervisor } : {}),
    },
    chunkNames: "[name]-[hash]",
    splitting: true,
    platform: "node",
    outdir: join(folder, "node"),
  });
  const id = git("rev-parse", "--short=12", commit).toString().trim();
  const { version: release } = JSON.parse(readFileSync(join(source, "cli/package.json"), "utf8"));
  // The command line reads its version from here.
  const about = { private: true, type: "module", version: release, protocol: Number(version), commit: id };
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(about, null, 2)}\n`);
}

const source = mkdtempSync(join(tmpdir(), "plumule-release-"));
const folder = join(root, `test/fixtures/released/v${version}`);
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
try {
  execFileSync("tar", ["-x", "-C", source], { input: git("archive", commit) });
  await freeze();
} finally {
  rmSync(source, { recursive: true, force: true });
}
