import { homedir, hostname } from "node:os";
import { join } from "node:path";
import { isolationSchema, type JobLimits, jobLimitsSchema, LIMITS, namespaceIdSchema } from "@plumule/protocol";
import * as z from "zod";
import { GIVEN_FEATURES, GIVEN_SYSTEMS } from "./features.ts";
import { localAddress } from "./local-address.ts";
import { cacheUrlFault, takesCacheKey } from "./nix/cache.ts";
import type { RadiclePolicy } from "./radicle.ts";
import { memoryFolder, type SecretPlaces } from "./secrets/files.ts";

/** What `health` has to look like. */
const HEALTH_FORM = "give 127.0.0.1:PORT, [::1]:PORT or the absolute path of a unix socket: nobody else may ask";

const repository = z.string().regex(/^rad:z[1-9A-HJ-NP-Za-km-z]{20,64}$/, "a repository id, rad:z…");
const label = z.string().min(1).max(128);

/** The configuration of a runner, as the CLI puts it together from file, environment and flags. Folders are absolute. */
export const runnerConfigSchema = z
  .strictObject({
    /** Origin of the broker, e.g. `https://plumule.example`; a runner that follows repositories can do without one. */
    url: z
      .url({ protocol: /^https?$/ })
      .transform((url) => url.replace(/\/+$/, ""))
      .optional(),
    namespace: namespaceIdSchema.default("local"),
    /** Folder of everything that the runner keeps: keys, mirrors, workspaces, journal, spool, logs. */
    state: z.string().startsWith("/"),
    name: label.default(hostname().slice(0, 128)),
    /** One-time registration token; needed once per key. */
    registration: z.string().optional(),
    /** Key file; by default `<state>/key.pem`, made when missing. */
    key: z.string().startsWith("/").optional(),
    /** Signs with a key of the ssh-agent instead: the did:key to choose. */
    agentKey: z.string().optional(),
    /** Runs at a time. */
    capacity: z.int().min(1).max(1_000).default(1),
    /** Systems beside what Nix says of itself. */
    systems: z
      .array(label)
      .max(GIVEN_SYSTEMS, `at most ${GIVEN_SYSTEMS}: an offer has no room for more beside the machine's own`)
      .default([]),
    features: z
      .array(label)
      .max(GIVEN_FEATURES, `at most ${GIVEN_FEATURES}: an offer has no room for more beside the runner's own`)
      .default([]),
    labels: z.array(label).max(LIMITS.labelsCount).default([]),
    /** Level to use; by default the strongest that works here. */
    isolation: isolationSchema.optional(),
    /** Image in which jobs run at the level `container`, which is not tried without it. The engine has to have it already. */
    containerImage: z
      .string()
      .min(1)
      .max(500)
      .regex(/^[^-\s]\S*$/, "the name of an image")
      .optional(),
    /** Lets jobs name repositories by `file:` URLs: for development, where broker and runner are one machine. */
    allowLocal: z.boolean().default(false),
    /** The home of a Radicle node, from whose storage `rad:` repositories are fetched where it has one. */
    radHome: z
      .string()
      .startsWith("/")
      .default(() => process.env["RAD_HOME"] ?? join(homedir(), ".radicle")),
    /** Origins of seeds from which public `rad:` repositories are fetched over HTTPS. */
    seeds: z
      .array(z.url({ protocol: /^https$/ }).transform((url) => url.replace(/\/+$/, "")))
      .max(8)
      .default([]),
    /** Private repositories of the node that jobs may name: `rad:z…`. */
    privateRepositories: z.array(repository).max(64).default([]),
    /** Repositories of the node whose pushes the runner gives itself, also while there is no broker: `rad:z…`. */
    follow: z.array(repository).max(64).default([]),
    /** File of the rules by which it does, those of the namespace (`docs/triggers.md`); by default the default branch, by delegates. */
    followRules: z.string().startsWith("/").optional(),
    /** Whether what becomes of them is written into job COBs, with `rad-job` and the node's key. */
    followCobs: z.boolean().default(true),
    /** Takes approved jobs of strangers. They run as this user, so that they can read what it can: for machines that hold nothing else. */
    untrusted: z.boolean().default(false),
    /** Lets people in whom the broker lets operate: into runs that work and hold no secrets, and into workspaces that were kept. */
    allowExec: z.boolean().default(false),
    /** How long the workspace of a failed run is kept, ms; 0 for not at all. Those that were used the longest ago go first when all together are larger. */
    keepFailedMs: z.int().min(0).max(LIMITS.keepFailedMaxMs).default(0),
    /** The longest that a job may ask for, ms, where that is longer. */
    keepAskedMs: z.int().min(0).max(LIMITS.keepFailedMaxMs).default(0),
    keepFailedBytes: z
      .int()
      .min(0)
      .default(4 * 1024 * 1024 * 1024),
    /** A folder for a Nix store of the runner's own, instead of the system's. */
    nixStore: z.string().startsWith("/").optional(),
    /** Lets evaluations build derivations and read them: needed by some flakes, and a build that nobody saw in a plan. */
    nixImportFromDerivation: z.boolean().default(false),
    /** Store to push to what jobs have built; nowhere unless it is set. */
    nixCache: z
      .string()
      .refine((url) => cacheUrlFault(url) === null, { error: ({ input }) => cacheUrlFault(String(input)) ?? "" })
      .optional(),
    /** File of the secret key that signs what is pushed. */
    nixCacheKey: z.string().startsWith("/").optional(),
    /** Whether a job whose outputs cannot be pushed goes to another runner. */
    nixCacheRequired: z.boolean().default(false),
    /** Where programs of jobs are looked for; by default the runner's own PATH. */
    path: z.string().optional(),
    /** Where the state of the runner can be asked for: `127.0.0.1:PORT` or the path of a unix socket; nowhere unless it is set. */
    health: z
      .string()
      .refine((text) => localAddress(text) !== null, HEALTH_FORM)
      .optional(),
    /** With less free space than this where `state` lies, no work is asked for, bytes. */
    diskFloorBytes: z
      .int()
      .min(0)
      .default(512 * 1024 * 1024),
    /** The most that mirrors and warm checkouts may take of the disk, bytes; what was used longest ago goes first. */
    warmBytes: z
      .int()
      .min(0)
      .default(20 * 1024 * 1024 * 1024),
    /** Leave after one run. */
    once: z.boolean().default(false),
    /** Whether runs go on, until their leases end, when the runner is killed or leaves them to its next start. */
    outlive: z.boolean().default(true),
    /** Lets opened secrets lie on the disk, in the state folder, where the machine has no file system in memory. */
    secretsOnDisk: z.boolean().default(false),
    /** The most that a run may take, which a job may lower: see `jobLimitsSchema`. Of a log head and tail are kept; the broker's own limit holds too. */
    ...jobLimitsSchema.shape,
    /** The longest that a run may take, ms, whatever its job says. */
    runMs: z.int().min(1_000).optional(),
  })
  .refine(({ nixCache, nixCacheKey }) => nixCacheKey === undefined || takesCacheKey(nixCache ?? ""), {
    path: ["nixCacheKey"],
    message: "needs nixCache, and one that takes signatures of whoever pushes: file:, s3:, http: or https:",
  })
  .refine(({ url, follow }) => url !== undefined || follow.length > 0, {
    path: ["url"],
    message: "is needed by a runner that follows no repository: nobody would give it work",
  });
export type RunnerConfig = z.output<typeof runnerConfigSchema>;
/** What a caller writes; the rest has defaults. */
export type RunnerOptions = z.input<typeof runnerConfigSchema>;

/** What a runner lets any job have, of what it was configured with. */
export function ownLimits({ memoryBytes, taskCount, workspaceBytes, logBytes }: RunnerConfig): JobLimits {
  return { memoryBytes, taskCount, workspaceBytes, logBytes };
}

/** The folders below `state`. */
export type RunnerFolders = {
  key: string;
  /** The age identity, and where opened secrets lie while they are needed; null where they may not. */
  secrets: SecretPlaces;
  mirrors: string;
  workspaces: string;
  /** Warm checkouts, and what their overlays hold. */
  warm: string;
  journal: string;
  spool: string;
  /** Files of each run: log, events, end. */
  runs: string;
  /** State files of effects, by namespace and deployment. Nothing else has them. */
  effectStates: string;
  /** Logs of runs by runners that had no supervisors. */
  logs: string;
  cache: string;
  /** Which workspaces of failed runs are kept. */
  kept: string;
  /** Jobs that the runner gives itself. */
  standalone: string;
  /** What runs have taken of memory and time. */
  history: string;
};

/** How a runner has `rad:` repositories. */
export function radiclePolicy({ radHome, seeds, privateRepositories, follow }: RunnerConfig): RadiclePolicy {
  // Whoever follows a repository lets its jobs have it.
  return { home: radHome, seeds, privateRepositories: [...privateRepositories, ...follow] };
}

/** Where a runner keeps what. */
export function runnerFolders(config: RunnerConfig): RunnerFolders {
  const at = (name: string): string => join(config.state, name);
  return {
    key: config.key ?? at("key.pem"),
    secrets: {
      identity: at("age.key"),
      folder: memoryFolder(config.state) ?? (config.secretsOnDisk ? at("secrets") : null),
    },
    mirrors: at("mirrors"),
    workspaces: at("workspaces"),
    warm: at("warm"),
    journal: at("journal"),
    spool: at("spool"),
    runs: at("runs"),
    effectStates: at("effects"),
    logs: at("logs"),
    cache: at("cache"),
    kept: at("kept"),
    standalone: at("standalone"),
    history: at("history.json"),
  };
}
