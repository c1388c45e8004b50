import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { join } from "node:path";

const root = join(import.meta.dirname, "../../..");
const HERE = "test/simulation/platform/";

function urlOf(file: string): string {
  return pathToFileURL(join(root, file)).href;
}

/** A change of one place in a source file of the product, made while it is loaded: a bug that somebody might write. */
export type SourceChange = { file: string; from: string; to: string };

/** What the platform brings, and the parts of a runner that reach outside: its disk, git, processes and Nix. */
const STAND_INS: Readonly<Record<string, string>> = {
  "cloudflare:workers": "cloudflare-workers.ts",
  "@noble/ed25519": "curve.ts",
  "runner/src/doctor/examine.ts": "examine.ts",
  "runner/src/leftovers.ts": "leftovers.ts",
  "runner/src/process-identity.ts": "process-identity.ts",
  "runner/src/state-lock.ts": "state-lock.ts",
  "runner/src/supervisors.ts": "supervisors.ts",
  "runner/src/machine.ts": "machine.ts",
  "runner/src/workspace.ts": "workspace.ts",
  "runner/src/tasks/steps.ts": "steps.ts",
};
const DISK: Readonly<Record<string, string>> = {
  "node:fs": "fs-sync.ts",
  "node:fs/promises": "fs-promises.ts",
  "node:timers/promises": "timers-promises.ts",
};

/** Lets this process load the product with what the platform gives it, and with bugs where a test seeds some. */
export function hookModules(changes: readonly SourceChange[]): void {
  registerHooks({
    resolve(specifier, context, next) {
      if (DISK[specifier] !== undefined && context.parentURL?.startsWith(urlOf("runner/src/")))
        return { url: urlOf(`${HERE}${DISK[specifier]}`), shortCircuit: true };
      const given = STAND_INS[specifier];
      if (given !== undefined && !context.parentURL?.startsWith(urlOf(HERE)))
        return { url: urlOf(`${HERE}${given}`), shortCircuit: true };
      const resolved = next(specifier, context);
      // What stands in for a module may have the rest of it from there.
      if (context.parentURL?.startsWith(urlOf(HERE)) === true) return resolved;
      const standIn = STAND_INS[resolved.url.slice(urlOf("/").length)];
      return standIn === undefined ? resolved : { url: urlOf(`${HERE}${standIn}`), shortCircuit: true };
    },
    load(url, context, next) {
      const changed = changes.filter(({ file }) => url === urlOf(file));
      if (changed.length === 0) return next(url, context);
      let source = readFileSync(fileURLToPath(url), "utf8");
      for (const { file, from, to } of changed) {
        if (source.split(from).length !== 2) throw new Error(`not found once in ${file}: ${from}`);
        source = source.replace(from, () => to);
      }
      return { format: "module-typescript", source, shortCircuit: true };
    },
  });
}
