import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { readJson, replaceJson } from "./records.ts";
import { WORKSPACE_ID, WORKSPACE_PROVIDERS } from "./provider.ts";

/**
 * What is kept of a workspace for whoever opens it later, in `standing/<id>.json`. Credentials are not: who fetches brings them again. A persisted
 * contract: new fields need a default.
 */
const standingSchema = z.object({
  version: z.literal(1),
  id: z.string().regex(WORKSPACE_ID),
  name: z.string(),
  provider: z.enum(WORKSPACE_PROVIDERS),
  strategy: z.enum(["overlay", "reuse", "checkout"]),
  createdAt: z.string(),
  env: z.record(z.string(), z.string()),
  setupScript: z.string().nullable(),
  setupCached: z.boolean().nullable(),
  repositories: z.array(
    z.object({ url: z.string(), path: z.string(), reference: z.string().nullable(), commit: z.string() }),
  ),
});

/** A workspace that stands, as it is kept. */
export type Standing = z.output<typeof standingSchema>;

/** The workspaces of a provider, by their ids. */
export interface StandingStore {
  put(standing: Standing): Promise<void>;
  /** Null for an id without a workspace, and for a record of another version. */
  get(id: string): Promise<Standing | null>;
  remove(id: string): Promise<void>;
  /** Oldest first. */
  list(): Promise<Standing[]>;
}

/** Opens the store of one provider; those of several may share a folder. */
export function openStanding(folder: string, provider: Standing["provider"]): StandingStore {
  const pathOf = (id: string): string => join(folder, `${id}.json`);
  const get = async (id: string): Promise<Standing | null> => {
    if (!WORKSPACE_ID.test(id)) return null;
    const parsed = standingSchema.safeParse(await readJson(pathOf(id)));
    return parsed.success && parsed.data.provider === provider ? parsed.data : null;
  };
  return {
    put: (standing) => replaceJson(pathOf(standing.id), standing),
    get,
    remove: (id) => rm(pathOf(id), { force: true }),
    async list() {
      const names = await readdir(folder).catch(() => []);
      const ids = names.filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -".json".length));
      const found = (await Promise.all(ids.map(get))).filter((standing) => standing !== null);
      return found.toSorted((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
    },
  };
}
