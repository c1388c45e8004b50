import { existsSync } from "node:fs";
import { mkdir, rename, utimes } from "node:fs/promises";
import { join } from "node:path";
import { whileLocked } from "../folder-lock.ts";
import { type CommitSource, type FetchFailure, type FetchOptions, mirrorOf } from "../mirror.ts";
import { removeFolder } from "../remove-folder.ts";
import { mountOverlays, type OverlayMode, type OverlayMount, unmountOverlays, upperFiles } from "./overlay.ts";
import type { WorkspaceStrategy } from "./provider.ts";
import { readRecord, removeRecord, type TreeRecord, warmFolders, workspacePaths, writeRecord } from "./records.ts";
import { findSlot, refillSlot, type Slot, type SlotKind, slotPlace, takeSlot } from "./slots.ts";
import type { TreePart } from "./tree.ts";

/** A checkout to be provided as `<folder>/checkout`. */
export interface CheckoutRequest {
  /** Folder of warm checkouts, records and layers. */
  warm: string;
  /** Names the workspace among all of `warm`; one path component. */
  id: string;
  /** The folder of the workspace, on the same file system as `warm`. */
  folder: string;
  sources: readonly { source: CommitSource; path: string }[];
  /**
   * Where no overlay can be mounted, commands write into a warm checkout itself. It is put back afterwards, and serves the same domain alone; null keeps
   * it from serving anybody.
   */
  domain: string | null;
  overlay: OverlayMode | null;
  /** A layer of the setup phase for these commits; null for none. */
  setup: string | null;
  fetch: FetchOptions;
}

/** A checkout that stands, with what it is made of. */
export interface Checkout {
  ok: true;
  record: TreeRecord;
  strategy: WorkspaceStrategy;
}

/**
 * Provides a checkout: an overlay over a warm one, else a warm one itself, else a new one. The record is there before anything else, so that whatever a
 * crash leaves is found. Nothing stays behind by a failure.
 */
export async function provideCheckout(request: CheckoutRequest): Promise<Checkout | FetchFailure> {
  const { warm, id } = request;
  const record = { ...(await reserveCheckout(request)), setup: request.setup };
  const slot = await claimSlot(request, record).catch(failureOf);
  if (!("ok" in slot)) {
    const failed = await stand(request, record, slot).then(() => null, failureOf);
    if (failed === null)
      return { ok: true, record, strategy: record.mounted ? "overlay" : slot.fresh ? "checkout" : "reuse" };
    await dropCheckout(warm, id);
    return failed;
  }
  await dropCheckout(warm, id);
  return slot;
}

/** Brings the commits of a checkout into their mirrors. */
export async function mirrorParts({
  sources,
  fetch,
}: Pick<CheckoutRequest, "sources" | "fetch">): Promise<TreePart[] | FetchFailure> {
  // Whoever finds a warm checkout does not wait for what a mirror needs.
  const { mirrorCommit } = await import("../mirror.ts");
  const answers = await Promise.all(sources.map(({ source }) => mirrorCommit(source, fetch)));
  const parts: TreePart[] = [];
  for (const [index, answer] of answers.entries()) {
    const wanted = sources[index];
    if (!answer.ok) return answer;
    if (wanted === undefined) continue;
    const { repository: url, commit } = wanted.source;
    parts.push({ url, path: wanted.path, commit, mirror: answer.mirror });
  }
  return parts;
}

/** Writes down that a workspace is being made, in a moment in which nobody removes mirrors: its own stay from then on. */
export async function reserveCheckout(request: Omit<CheckoutRequest, "setup">): Promise<TreeRecord> {
  const { warm, id, folder, fetch } = request;
  const record: TreeRecord = {
    version: 1,
    folder,
    mirrors: request.sources.map(({ source }) => mirrorOf(source, fetch)),
    parts: [],
    slot: null,
    mounted: request.overlay !== null,
    keep: request.domain !== null,
    setup: null,
    keeper: null,
  };
  // Before the record, whose workspace counts as gone without it.
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const { records } = warmFolders(warm);
  await whileLocked(join(records, "lock"), "announcing a workspace", () => writeRecord(warm, id, record));
  const now = new Date();
  for (const mirror of record.mirrors) await utimes(mirror, now, now).catch(() => {});
  return record;
}

/** The overlays of a workspace: over its checkout and, where the setup phase has left something there, over its home. */
export function overlaysOf(warm: string, id: string, { folder, slot, setup }: TreeRecord): OverlayMount[] {
  const { checkout, home } = workspacePaths(folder);
  const upper = join(warmFolders(warm).uppers, id);
  const tree = slotPlace(slot ?? "").tree;
  if (setup === null) return [{ target: checkout, lowers: [tree], upper: join(upper, "checkout") }];
  return [
    { target: checkout, lowers: [join(setup, "tree"), tree], upper: join(upper, "checkout") },
    { target: home, lowers: [join(setup, "home")], upper: join(upper, "home") },
  ];
}

/** Where what commands wrote into the checkout lies. */
export function upperOf(warm: string, id: string): string {
  return upperFiles({ upper: join(warmFolders(warm).uppers, id, "checkout") });
}

/** Takes a checkout down: mounts, what was written, and the folder of the workspace. A warm checkout that it had is put back for the next. False when something could not be removed. */
export async function dropCheckout(warm: string, id: string): Promise<boolean> {
  const record = await readRecord(warm, id);
  if (record === null) return true;
  const { folder, slot, parts, keep, mounted, keeper } = record;
  await unmountOverlays(keeper, [folder]);
  const areUppersGone = await removeFolder(join(warmFolders(warm).uppers, id));
  if (slot !== null && !mounted) await giveBack(workspacePaths(folder).checkout, slot, parts, keep);
  // Whoever does this again after a crash finds nothing more to give back.
  await writeRecord(warm, id, { ...record, slot: null });
  const isGone = await removeFolder(folder);
  if (isGone && areUppersGone) await removeRecord(warm, id);
  return isGone && areUppersGone;
}

async function claimSlot(request: CheckoutRequest, record: TreeRecord): Promise<Slot | FetchFailure> {
  const { warm, id, sources, overlay, domain, fetch } = request;
  const places = sources.map(({ source, path }) => ({ url: source.repository, path }));
  // One that nobody else may have is never found, and bears the name of its only user.
  const kind: SlotKind = { warm, places, domain: overlay === null ? (domain ?? `workspace ${id}`) : null };
  const claim = async (slot: Slot, parts: TreePart[]): Promise<void> => {
    Object.assign(record, { slot: slot.folder, parts });
    await writeRecord(warm, id, record);
  };
  const options = { cancel: fetch.cancel };
  const commits = sources.map(({ source }) => source.commit);
  const found = await findSlot(kind, commits, claim, options);
  if (found !== null) return found;
  const parts = await mirrorParts(request);
  return "ok" in parts ? parts : takeSlot(kind, parts, claim, options);
}

async function stand(request: CheckoutRequest, record: TreeRecord, slot: Slot): Promise<void> {
  const { warm, id, overlay, folder, setup } = request;
  const { checkout, home } = workspacePaths(folder);
  if (overlay !== null) {
    record.keeper = (await mountOverlays(overlay, overlaysOf(warm, id, record))).keeper;
    if (record.keeper !== null) await writeRecord(warm, id, record);
    return;
  }
  await rename(slot.place.tree, checkout);
  if (setup !== null) {
    const { applyLayer } = await import("./setup.ts");
    await applyLayer(setup, { checkout, home });
  }
}

async function giveBack(checkout: string, slot: string, parts: TreePart[], keep: boolean): Promise<void> {
  const { tree } = slotPlace(slot);
  if (!existsSync(tree)) await rename(checkout, tree).catch(() => {});
  if (keep) await refillSlot(slot, parts, "commands", {});
  else await removeFolder(slot);
}

function failureOf(error: unknown): FetchFailure {
  return {
    ok: false,
    reason: (error as Error).name === "AbortError" ? "cancelled" : "git-failed",
    detail: String(error),
  };
}
