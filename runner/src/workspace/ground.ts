import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { isAlive } from "../process-identity.ts";
import type { FetchOptions } from "../mirror.ts";
import { type Checkout, dropCheckout, mirrorParts, provideCheckout, upperOf } from "./checkout.ts";
import type { CommandHost } from "./command-host.ts";
import type { Seat } from "./commands.ts";
import { type OverlayMode, unmountOverlays } from "./overlay.ts";
import { isWorkspaceRefusal, refuseWorkspace, type WorkspaceRefusal } from "./provider.ts";
import { workspacePaths } from "./records.ts";
import { listFiles, refusalOf, type ResolvedSource } from "./references.ts";
import { isGitPath, layerOf, moveHome, moveUntracked, setupDigest, type SetupLayer } from "./setup.ts";

/** Where a provider of this machine keeps everything, and what it has found out. */
export interface LocalPlace {
  mirrors: string;
  warm: string;
  /** A folder per workspace. */
  workspaces: string;
  overlay: OverlayMode | null;
  host: CommandHost;
  /** Where commands look for programs. */
  path: string;
  allowLocal: boolean;
}

/** What the setup phase of a workspace is, apart from its commits. */
export interface GroundRequest {
  script: string | null;
  env: Readonly<Record<string, string>>;
  domain: string;
  onOutput?: ((chunk: Uint8Array) => void) | undefined;
  cancel: AbortSignal;
}

const FETCH_MS = 30 * 60_000;
/** Characters of a setup script's output that are told when it fails. */
const TAIL_CHARACTERS = 2_000;

/** How a provider of this machine fetches. */
export function fetchOptionsOf({ mirrors, allowLocal }: LocalPlace, cancel: AbortSignal): FetchOptions {
  return { mirrors, policy: { allowLocal }, timeoutMs: FETCH_MS, cancel };
}

/** The layer of the setup phase at some commits; null without a script. The script runs only when no layer fits. */
export async function prepareGround(
  place: LocalPlace,
  sources: readonly ResolvedSource[],
  request: GroundRequest,
): Promise<SetupLayer | null | WorkspaceRefusal> {
  const { script, env, domain, cancel } = request;
  if (script === null) return null;
  const parts = await mirrorParts({ sources, fetch: fetchOptionsOf(place, cancel) });
  if ("ok" in parts) return refusalOf(parts);
  const files = await listFiles(parts);
  const places = parts.map(({ url, path }) => ({ url, path }));
  const digest = setupDigest({ script, env, domain, executor: place.host.executor, places }, files);
  const tracked = new Set(files.map(({ path }) => path));
  const isGit = isGitPath(parts);
  const isLeft = (path: string): boolean => tracked.has(path) || isGit(path);
  return layerOf(place.warm, digest, files, (layer) => runSetup(place, sources, request, layer, isLeft), cancel);
}

/** Runs the script in a workspace of its own, and moves what it leaves into the layer. */
async function runSetup(
  place: LocalPlace,
  sources: readonly ResolvedSource[],
  { script, env, onOutput, cancel }: GroundRequest,
  layer: string,
  isLeft: (path: string) => boolean,
): Promise<WorkspaceRefusal | null> {
  const { warm, overlay } = place;
  const id = `setup-${randomUUID()}`;
  const folder = join(place.workspaces, id);
  const fetch = fetchOptionsOf(place, cancel);
  const made = await provideCheckout({ warm, id, folder, sources, domain: null, overlay, setup: null, fetch });
  if (!made.ok) return refusalOf(made);
  try {
    const seat = await seatOf(place, made.record, { id, env });
    let tail = "";
    const end = await place.host.execute(seat, {
      command: script ?? "",
      cancel,
      onOutput(chunk) {
        tail = (tail + Buffer.from(chunk).toString("utf8")).slice(-TAIL_CHARACTERS);
        onOutput?.(chunk);
      },
    });
    if (isWorkspaceRefusal(end)) return end;
    if (end.reason !== "exit") return refuseWorkspace("cancelled", "the setup script was stopped");
    if (end.exitCode !== 0) {
      const how = end.signal ?? `exit code ${end.exitCode}`;
      return refuseWorkspace("setup-failed", `the setup script ended with ${how}\n${tail.trim()}`);
    }
    await unmountOverlays(made.record.keeper, [folder]);
    const { checkout, home } = workspacePaths(folder);
    await moveUntracked(overlay === null ? checkout : upperOf(warm, id), join(layer, "tree"), isLeft);
    await moveHome(home, layer);
    return null;
  } finally {
    await dropCheckout(warm, id);
  }
}

/** Where the commands of a workspace run. Its folders beside the checkout are made where they are missing. */
export async function seatOf(
  { path, warm, workspaces, mirrors: allMirrors }: LocalPlace,
  { folder, keeper, mirrors }: Checkout["record"],
  { id, env }: { id: string; env: Readonly<Record<string, string>> },
): Promise<Seat> {
  const { checkout, home, temporary } = workspacePaths(folder);
  for (const at of [checkout, home, temporary]) await mkdir(at, { recursive: true, mode: 0o700 });
  return {
    id,
    root: checkout,
    home,
    temporary,
    path,
    env,
    mirrors,
    shade: {
      hidden: [allMirrors, warm, workspaces],
      shown: [{ path: folder, writable: true }, ...mirrors.map((mirror) => ({ path: mirror, writable: false }))],
    },
    keeper: keeper !== null && isAlive(keeper) ? keeper : null,
  };
}
