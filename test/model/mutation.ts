import type { Core } from "./core.ts";

/**
 * A bug that somebody might write. `scope` names the small world in which it shows; `caughtBy` the properties of which one has to fail, by the
 * beginning of their names.
 */
export type Mutation = { name: string; scope: string; core: Core; caughtBy: readonly string[] };
