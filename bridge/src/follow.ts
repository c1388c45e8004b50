import { join } from "node:path";
import { type Push } from "@plumule/protocol";
import { readFollowed } from "./followed.ts";
import type { Finding } from "./look.ts";
import { openSeen } from "./seen.ts";
import { openRepository, readDocument } from "./storage.ts";
import { type Explained, forgetful, StorageWatch } from "./storage-watch.ts";

/** Which repositories of a node are followed (`z…`), and where is kept what was seen. Folders are absolute. */
export type FollowOptions = {
  radHome: string;
  socket?: string | undefined;
  state: string;
  repositories: readonly string[];
  dryRun: boolean;
};

export type FollowDeps = {
  now: () => Date;
  say: (line: string) => void;
  explain?: (what: Explained) => void | Promise<void>;
  /** Takes a push. It is found again after a crash, until this has resolved; the same one may come twice. */
  take: (push: Push) => Promise<void>;
  signal: AbortSignal;
};

/** Whom a push is for that no broker is told of. */
const AUDIENCE = "standalone";

/**
 * Follows what is pushed to repositories of a node, as the bridge does, for whoever acts on it here. What is there at the first sight is
 * history. Resolves when the signal aborts, a dry run when it has looked once.
 */
export async function followPushes(
  { repositories, radHome, state, dryRun, ...options }: FollowOptions,
  deps: FollowDeps,
): Promise<void> {
  const { now, say, explain, take, signal } = deps;
  const seen = await openSeen(join(state, "seen"), say);
  const watch = new StorageWatch(
    { ...options, radHome, state, repositories, pollMs: 0 },
    {
      now,
      say,
      explain,
      seen: dryRun ? forgetful(seen) : seen,
      telling: {
        audience: AUDIENCE,
        seeds: [],
        followed: () => readFollowed(radHome),
        selection: { repositories: new Set(repositories), people: null },
      },
      signal,
      hasRoom: async () => true,
      take: async (_, findings, remember) => {
        for (const push of pushesOf(findings)) await take(push);
        await remember();
      },
    },
  );
  await watch.markAll();
  await watch.lookAtAll();
  if (!dryRun) await watch.follow();
}

function pushesOf(findings: readonly Finding[]): Push[] {
  return findings.flatMap(({ push }) => (push === null ? [] : [push]));
}

/** The default branch of a repository as a ref, or null where its identity document names none, or is not here yet. */
export async function readDefaultBranch(radHome: string, id: string): Promise<string | null> {
  const repository = openRepository(join(radHome, "storage"), id);
  try {
    const document = await readDocument(repository);
    const project = (document?.["payload"] as Record<string, unknown> | undefined)?.["xyz.radicle.project"];
    const branch = (project as Record<string, unknown> | undefined)?.["defaultBranch"];
    return typeof branch === "string" ? `refs/heads/${branch}` : null;
  } catch {
    return null;
  } finally {
    repository.objects.close();
  }
}
