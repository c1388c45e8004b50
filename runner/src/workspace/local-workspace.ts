import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { LIMITS } from "@plumule/protocol";
import { removeFolder } from "../remove-folder.ts";
import { checkoutChanges } from "./change-set.ts";
import { TooManyChanges } from "./changes.ts";
import { dropCheckout, overlaysOf, provideCheckout, upperOf } from "./checkout.ts";
import { readByCommand, writeByCommand } from "./commands.ts";
import type { WorkspaceConfig } from "./config.ts";
import { fetchOptionsOf, type LocalPlace, prepareGround, seatOf } from "./ground.ts";
import type { Hold } from "./hold.ts";
import { areMounted, mountOverlays, unmountOverlays } from "./overlay.ts";
import {
  type ChangeSet,
  isWorkspaceRefusal,
  type OpenWorkspace,
  refuseWorkspace,
  type RepositoryState,
  type WorkspaceCallOptions,
  type WorkspaceRefusal,
} from "./provider.ts";
import { readRecord, type TreeRecord, warmFolders, workspacePaths, writeRecord } from "./records.ts";
import { listFiles, refusalOf, type ResolvedSource, resolveReferences } from "./references.ts";
import { applyLayer, isGitPath, moveUntracked } from "./setup.ts";
import { slotPlace } from "./slots.ts";
import type { Standing, StandingStore } from "./standing.ts";
import { restoreTree } from "./tree.ts";

/** What a workspace of this machine is opened with. */
export interface LocalWorkspaceDeps {
  place: LocalPlace;
  store: StandingStore;
  hold: Hold;
  standing: Standing;
  /** Its configuration with credentials, where the caller has it. */
  config: WorkspaceConfig | null;
}

/** How long commands may take to go when their workspace is torn down, ms. */
const QUIET_MS = 5_000;
const CALL_MS = 30 * 60_000;

/** Opens a workspace that stands. */
export function openLocalWorkspace(deps: LocalWorkspaceDeps): OpenWorkspace {
  const { place, store, hold, standing } = deps;
  const { id, name, provider, strategy, createdAt, setupCached } = standing;
  /** With its mounts in place: a restart of the machine takes them. */
  const standingRecord = async (): Promise<TreeRecord | WorkspaceRefusal> => {
    const record = (await store.get(id)) === null ? null : await readRecord(place.warm, id);
    if (record === null) return refuseWorkspace("not-found", `there is no workspace ${id} any more`);
    return record;
  };
  const run: Parameters<typeof readByCommand>[0] = async (request) => {
    const record = await standingRecord();
    if (isWorkspaceRefusal(record)) return record;
    const seat = await seatOf(place, record, { id, env: standing.env });
    return place.host.execute(seat, request);
  };
  const shared: typeof run = async (request) => {
    await mountAgain(deps, await standingRecord());
    const { command } = request;
    return hold.share(typeof command === "string" ? command : command.join(" "), () => run(request));
  };
  const alone = <T>(
    purpose: string,
    work: (record: TreeRecord) => Promise<T | WorkspaceRefusal>,
  ): Promise<T | WorkspaceRefusal> =>
    hold.alone(purpose, async () => {
      const record = await standingRecord();
      return isWorkspaceRefusal(record) ? record : work(record);
    });
  return {
    id,
    name,
    provider,
    strategy,
    createdAt,
    setupCached,
    get repositories() {
      return statesOf(standing);
    },
    exec: shared,
    readFile: (path) => readByCommand(shared, path),
    writeFile: (path, content, options) => writeByCommand(shared, path, content, options?.mode),
    fetch: (options = {}) => alone("fetching", (record) => fetchInto(deps, record, options)),
    reset: (options = {}) => alone("resetting", (record) => resetTree(deps, record, signalOf(options))),
    async changes(options = {}) {
      await mountAgain(deps, await standingRecord());
      const record = await standingRecord();
      if (isWorkspaceRefusal(record)) return record;
      return hold.share("listing changes", () => changesOf(deps, record, options.git === true));
    },
    async teardown() {
      const leftCount = await place.host.endAll(id);
      if (leftCount > 0)
        return refuseWorkspace("failed", `${leftCount} of its processes or containers cannot be killed`);
      await hold.quiet(QUIET_MS);
      return hold.alone("tearing down", async () => {
        if (!(await dropCheckout(place.warm, id)))
          return refuseWorkspace("failed", `something in ${join(place.workspaces, id)} cannot be removed`);
        await store.remove(id);
        return { removed: true } as const;
      });
    },
  };
}

/** The bound of a call. */
export function signalOf({ timeoutMs = CALL_MS, cancel }: WorkspaceCallOptions): AbortSignal {
  const timeout = AbortSignal.timeout(timeoutMs);
  return cancel === undefined ? timeout : AbortSignal.any([timeout, cancel]);
}

/** The repositories of a workspace, without what is only needed to fetch them. */
function statesOf({ repositories }: Standing): RepositoryState[] {
  return repositories.map(({ url, path, commit }) => ({ url, path, commit }));
}

/** Mounts overlays that are gone anew, with what was written into them. */
async function mountAgain(
  { place, hold, standing: { id } }: LocalWorkspaceDeps,
  record: TreeRecord | WorkspaceRefusal,
): Promise<void> {
  if (isWorkspaceRefusal(record) || !record.mounted || place.overlay === null) return;
  const targets = overlaysOf(place.warm, id, record).map(({ target }) => target);
  if (await areMounted(record.keeper, targets)) return;
  await hold.alone("mounting", async () => {
    if (!(await areMounted((await readRecord(place.warm, id))?.keeper ?? record.keeper, targets)))
      await mount(place, id, record);
  });
}

async function mount({ overlay, warm }: LocalPlace, id: string, record: TreeRecord): Promise<void> {
  if (overlay === null) throw new Error("overlays can no longer be mounted here");
  record.keeper = (await mountOverlays(overlay, overlaysOf(warm, id, record))).keeper;
  await writeRecord(warm, id, record);
}

async function resetTree(
  { place, standing: { id } }: LocalWorkspaceDeps,
  record: TreeRecord,
  cancel: AbortSignal,
): Promise<{ reset: true } | WorkspaceRefusal> {
  const { checkout, home, temporary } = workspacePaths(record.folder);
  await removeFolder(temporary);
  if (record.mounted) {
    await unmountOverlays(record.keeper, [checkout, home]);
    await removeFolder(join(warmFolders(place.warm).uppers, id));
    await removeFolder(home);
    await mount(place, id, record);
    return { reset: true };
  }
  await removeFolder(home);
  const tree = { tree: checkout, git: slotPlace(record.slot ?? "").git };
  const failed = await restoreTree(tree, record.parts, "commands", { cancel });
  if (failed !== null) return refusalOf(failed);
  if (record.setup !== null) await applyLayer(record.setup, { checkout, home });
  return { reset: true };
}

async function fetchInto(
  deps: LocalWorkspaceDeps,
  record: TreeRecord,
  options: WorkspaceCallOptions & { config?: WorkspaceConfig },
): Promise<{ repositories: RepositoryState[] } | WorkspaceRefusal> {
  const { place, store, standing } = deps;
  const cancel = signalOf(options);
  const known = options.config ?? deps.config;
  const repositories = standing.repositories.map(({ url, path, reference }) => {
    const credential = known?.repositories.find((one) => one.url === url && one.path === path)?.credential ?? null;
    return { url, path, reference, credential };
  });
  const sources = await resolveReferences({ repositories }, fetchOptionsOf(place, cancel));
  if (isWorkspaceRefusal(sources)) return sources;
  const { env, name, setupScript: script } = standing;
  const ground = await prepareGround(place, sources, { script, env, domain: name, cancel });
  if (ground !== null && isWorkspaceRefusal(ground)) return ground;
  const refusal = await bringTo(deps, record, sources, ground?.folder ?? null, cancel);
  if (refusal !== null) return refusal;
  for (const [index, { source }] of sources.entries()) {
    const repository = standing.repositories[index];
    if (repository !== undefined) repository.commit = source.commit;
  }
  await store.put(standing);
  return { repositories: statesOf(standing) };
}

/** Puts other commits, and maybe another setup layer, under what commands left of untracked files. */
async function bringTo(
  { place, standing: { id, name } }: LocalWorkspaceDeps,
  record: TreeRecord,
  sources: ResolvedSource[],
  setup: string | null,
  cancel: AbortSignal,
): Promise<WorkspaceRefusal | null> {
  const { warm, overlay } = place;
  const { checkout, home } = workspacePaths(record.folder);
  const fetch = fetchOptionsOf(place, cancel);
  const { mirrorParts } = await import("./checkout.ts");
  const parts = await mirrorParts({ sources, fetch });
  if ("ok" in parts) return refusalOf(parts);
  if (!record.mounted) {
    const tree = { tree: checkout, git: slotPlace(record.slot ?? "").git };
    const failed = await restoreTree(tree, parts, "setup", { cancel });
    if (failed !== null) return refusalOf(failed);
    if (setup !== null && setup !== record.setup) await applyLayer(setup, { checkout, home });
    await writeRecord(warm, id, { ...record, parts, setup });
    return null;
  }
  const tracked = new Set((await listFiles(parts)).map(({ path }) => path));
  const isGit = isGitPath(parts);
  const kept = join(warmFolders(warm).uppers, `${id}-kept`);
  await unmountOverlays(record.keeper, [checkout, home]);
  await mkdir(kept, { recursive: true, mode: 0o700 });
  await moveUntracked(upperOf(warm, id), kept, (path) => tracked.has(path) || isGit(path));
  await removeFolder(join(warmFolders(warm).uppers, id, "checkout"));
  await mkdir(join(upperOf(warm, id), ".."), { recursive: true, mode: 0o700 });
  await rename(kept, upperOf(warm, id));
  const moved = await provideCheckout({
    warm,
    id,
    folder: record.folder,
    sources,
    domain: name,
    overlay,
    setup,
    fetch,
  });
  return moved.ok ? null : refusalOf(moved);
}

async function changesOf(
  { place, standing: { id } }: LocalWorkspaceDeps,
  record: TreeRecord,
  withGit: boolean,
): Promise<ChangeSet | WorkspaceRefusal> {
  try {
    return await checkoutChanges(place.warm, id, record, withGit ? () => false : isGitPath(record.parts));
  } catch (error) {
    if (!(error instanceof TooManyChanges)) throw error;
    return refuseWorkspace("too-large", `more than ${LIMITS.workspaceChanges} paths changed`);
  }
}
