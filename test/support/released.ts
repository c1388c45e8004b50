import { readdirSync } from "node:fs";
import { join } from "node:path";
import type * as current from "../../protocol/src/index.ts";
import type * as runner from "../../runner/src/index.ts";

/** Releases as they were, made by `scripts/freeze-release.mjs`. */
export const RELEASED = join(import.meta.dirname, "../fixtures/released");

/** The releases that are kept, oldest first. */
export const RELEASES: readonly string[] = readdirSync(RELEASED).toSorted(
  (a, b) => Number(a.slice(1)) - Number(b.slice(1)),
);

/** A module of a release: `protocol`, `runner` or `cli`. */
export function releasedModule(release: string, name: "protocol" | "runner" | "cli"): string {
  return join(RELEASED, release, "node", `${name}.mjs`);
}

/** The protocol of a release. Typed as today's: what a test asks of it is part of every release. */
export async function releasedProtocol(release: string): Promise<typeof current> {
  return (await import(releasedModule(release, "protocol"))) as typeof current;
}

/** The runner of a release. */
export async function releasedRunner(release: string): Promise<typeof runner> {
  return (await import(releasedModule(release, "runner"))) as typeof runner;
}
