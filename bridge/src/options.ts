import { namespaceIdSchema, runnerIdSchema } from "@plumule/protocol";
import * as z from "zod";

const folder = z.string().startsWith("/");
const origin = z.url({ protocol: /^https?$/ }).transform((url) => url.replace(/\/+$/, ""));
const repositoryId = z
  .string()
  .regex(/^rad:z[1-9A-HJ-NP-Za-km-z]{20,64}$/, "a repository id, rad:z…")
  .transform((rid) => rid.slice("rad:".length));

/** What a bridge does, as the command line puts it together. Folders are absolute. */
export const bridgeOptionsSchema = z
  .strictObject({
    /** Origin of the broker. */
    url: origin,
    namespace: namespaceIdSchema,
    /** Id of the hook in the namespace's settings, whose keys must hold that of this bridge. */
    hook: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,62}$/)
      .default("radicle"),
    /** Folder of the queue and of what was seen. */
    state: folder,
    /** The node's home, with its storage. */
    radHome: folder,
    /** The node's control socket; by default where Radicle has it. */
    socket: folder.optional(),
    /** A seed that is polled over HTTP instead of a node. */
    seed: origin.optional(),
    pollMs: z.int().min(1_000).default(30_000),
    /** Repositories that are told of; by default every public one. */
    repositories: z.array(repositoryId).max(1_000).default([]),
    /** Whose pushes are told; by default everybody's. */
    follow: z.array(runnerIdSchema).max(1_000).default([]),
    /** Origins of seeds from which runners without a node fetch public repositories. */
    fetchFrom: z.array(origin).max(7).default([]),
    /** Tell nothing, and remember nothing: only say what would be told. */
    dryRun: z.boolean().default(false),
    /** Look once, carry what is in the queue, and leave. */
    once: z.boolean().default(false),
  })
  .refine(({ seed, repositories }) => seed === undefined || repositories.length > 0, {
    path: ["repositories"],
    message: "a seed has thousands of repositories: name those that are meant",
  });
export type BridgeOptions = z.output<typeof bridgeOptionsSchema>;
/** What a caller writes; the rest has defaults. */
export type BridgeSettings = z.input<typeof bridgeOptionsSchema>;
