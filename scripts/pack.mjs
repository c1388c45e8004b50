// Makes the package that can be installed without this repository:
//   node scripts/pack.mjs [folder]        (default: cli/dist)
// One file for the command, one for the process of a run, one for the hook of a repository, each with every package that it needs.

import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";
import { root } from "./child-process.mjs";

const to = resolve(process.argv[2] ?? join(root, "cli/dist"));
const folder = join(to, "package");

/**
 * Broker and page are built from their sources, and workerd is as large as everything else together: what serves them stays in the repository.
 *
 * @type {import("esbuild").Plugin}
 */
const withoutServing = {
  name: "without-serving",
  setup(building) {
    building.onResolve({ filter: /\/commands\/(?:dev|demo)\.ts$/ }, ({ resolveDir }) => ({
      path: join(resolveDir, "commands/from-checkout.ts"),
    }));
  },
};

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
await build({
  absWorkingDir: root,
  entryPoints: {
    plumule: "cli/src/main.ts",
    // Where the runner looks for it: beside itself.
    "supervisor/main": "runner/src/supervisor/main.ts",
    "post-receive": "bridge/src/post-receive.ts",
  },
  outdir: join(folder, "bin"),
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node22.12",
  minifyWhitespace: true,
  minifySyntax: true,
  keepNames: true,
  legalComments: "linked",
  // Packages that are CommonJS ask for Node's own modules by `require`, which a module does not have.
  banner: {
    js: 'import { createRequire as plumuleRequire } from "node:module";\nconst require = plumuleRequire(import.meta.url);',
  },
  logLevel: "warning",
  plugins: [withoutServing],
});
const { version, license } = JSON.parse(readFileSync(join(root, "cli/package.json"), "utf8"));
const manifest = {
  name: "plumule",
  version,
  license,
  description: "Jobs for Radicle and Nix: the command line, and the runner that does the work",
  type: "module",
  bin: { plumule: "bin/plumule.mjs", "plumule-post-receive": "bin/post-receive.mjs" },
  engines: { node: ">=22.12.0" },
  files: ["bin"],
};
// As npm leaves them when it installs the package.
for (const file of Object.values(manifest.bin)) chmodSync(join(folder, file), 0o755);
writeFileSync(join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
for (const name of ["LICENSE-APACHE", "LICENSE-MIT", "README.md"]) copyFileSync(join(root, name), join(folder, name));
const packed = execFileSync("npm", ["pack", "--silent", "--pack-destination", to], { cwd: folder, encoding: "utf8" });
console.log(join(to, packed.trim()));
