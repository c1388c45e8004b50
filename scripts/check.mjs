// Everything that can be said of the code without running it. Each step runs, whatever the ones before it found.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./child-process.mjs";
import { generators } from "./generated.mjs";

/**
 * Types, lint and its import walls, format, generated files, and the bundle that would be deployed.
 *
 * @returns {Promise<number>} 0 if all is well, else 1
 */
export async function check() {
  const bundle = mkdtempSync(join(tmpdir(), "plumule-bundle-"));
  const steps = [
    ["tsc", "-b"],
    ["oxlint", "--type-aware", "--deny-warnings"],
    ["oxfmt", "--check"],
    ...generators.map((script) => ["node", script, "--check"]),
    ["wrangler", "deploy", "--dry-run", "--outdir", bundle],
  ];
  const failed = [];
  try {
    for (const [command = "", ...args] of steps) {
      const title = [command, ...args].join(" ").replace(` --outdir ${bundle}`, "");
      console.log(`\n— ${title}`);
      const code = await run(command, args);
      if (code > 128) return code;
      if (code !== 0) failed.push(title);
    }
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
  console.log(failed.length === 0 ? "\ncheck: all is well" : `\ncheck: failed: ${failed.join(", ")}`);
  return failed.length === 0 ? 0 : 1;
}
