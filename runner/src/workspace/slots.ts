import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { whileLocked } from "../folder-lock.ts";
import type { FetchFailure } from "../mirror.ts";
import { removeFolder } from "../remove-folder.ts";
import { digestOf, readJson, readRecords, replaceJson, type SlotRecord, warmFolders } from "./records.ts";
import { fillTree, restoreTree, type TreeOptions, type TreePart, type TreePlace, type TreeWriter } from "./tree.ts";

/** A warm checkout. `fresh` says that it was made for this call, whole. */
export interface Slot {
  folder: string;
  place: TreePlace;
  fresh: boolean;
}

/** Which warm checkouts come into question: those of the same places and, where commands write into them, of the same domain. */
export interface SlotKind {
  warm: string;
  places: readonly { url: string; path: string }[];
  /** Whose commands may have written into it; null for one that no command can write to, which all may share. */
  domain: string | null;
}

/** Where the parts of a slot lie. */
export function slotPlace(folder: string): TreePlace {
  return { tree: join(folder, "tree"), git: join(folder, "git") };
}

/** The folder of all slots of a kind, which is also what is locked while one is chosen. */
export function kindFolder({ warm, places, domain }: SlotKind): string {
  const fields = places.flatMap(({ url, path }) => [url, path]);
  return join(warmFolders(warm).slots, digestOf([domain === null ? "shared" : "owned", domain ?? "", ...fields]));
}

/** Writes down who uses a slot, while nobody else can choose it. */
export type Claim = (slot: Slot, parts: TreePart[]) => Promise<void>;

/**
 * Finds a warm checkout at exactly these commits; null when there is none. No git is run: a slot at its commits is whole, and so are the mirrors that it
 * borrows from.
 */
export async function findSlot(
  kind: SlotKind,
  commits: readonly string[],
  claim: Claim,
  { cancel }: TreeOptions,
): Promise<Slot | null> {
  if (!existsSync(kindFolder(kind))) return null;
  return whileLocked(kindFolder(kind), "choosing a warm checkout", () => exactSlot(kind, commits, claim), cancel);
}

/** A warm checkout at these parts: one that is there already, else one that nobody uses and that is brought there, else one that is made. */
export async function takeSlot(
  kind: SlotKind,
  parts: TreePart[],
  claim: Claim,
  options: TreeOptions,
): Promise<Slot | FetchFailure> {
  const folder = kindFolder(kind);
  const commits = parts.map(({ commit }) => commit);
  const prepare = async (): Promise<Slot | FetchFailure> => {
    const exact = await exactSlot(kind, commits, claim);
    if (exact !== null) return exact;
    const slot = (await refitSlot(kind, parts, options)) ?? (await makeSlot(folder, parts, options));
    if (!("ok" in slot)) await hand(kind, slot, parts, claim);
    return slot;
  };
  return whileLocked(folder, "preparing a warm checkout", prepare, options.cancel);
}

async function exactSlot(kind: SlotKind, commits: readonly string[], claim: Claim): Promise<Slot | null> {
  const used = await usedSlots(kind.warm);
  for (const { slot, parts } of await slotsOf(kindFolder(kind))) {
    if (parts === null || parts.some((part, index) => part.commit !== commits[index])) continue;
    if (kind.domain !== null && used.has(slot)) continue;
    const found = { folder: slot, place: slotPlace(slot), fresh: false };
    await hand(kind, found, parts, claim);
    return found;
  }
  return null;
}

async function refitSlot(kind: SlotKind, parts: TreePart[], options: TreeOptions): Promise<Slot | null> {
  const used = await usedSlots(kind.warm);
  for (const { slot, parts: old } of await slotsOf(kindFolder(kind))) {
    if (used.has(slot)) continue;
    const isFitting = old !== null && old.every(({ mirror }, index) => mirror === parts[index]?.mirror);
    // What a crash left, or another object format: no use, and nobody's.
    if (!isFitting) await removeFolder(slot);
    // Whatever commands wrote was put right when it was given back.
    else if ((await refillSlot(slot, parts, "nobody", options)) === null)
      return { folder: slot, place: slotPlace(slot), fresh: false };
  }
  return null;
}

/** Puts a slot to its commits. When that fails it is removed, and the failure answered. */
export async function refillSlot(
  slot: string,
  parts: TreePart[],
  writer: TreeWriter,
  options: TreeOptions,
): Promise<FetchFailure | null> {
  await replaceJson(join(slot, "slot.json"), { version: 1, parts: null } satisfies SlotRecord);
  const failed = await restoreTree(slotPlace(slot), parts, writer, options);
  if (failed === null) await replaceJson(join(slot, "slot.json"), { version: 1, parts } satisfies SlotRecord);
  else await removeFolder(slot);
  return failed;
}

/** Whoever has a slot of its own may move and spoil its tree: only what it puts back is whole again. */
async function hand({ domain }: SlotKind, slot: Slot, parts: TreePart[], claim: Claim): Promise<void> {
  const record: SlotRecord = { version: 1, parts: domain === null ? parts : null };
  await replaceJson(join(slot.folder, "slot.json"), record);
  await claim(slot, parts);
}

async function makeSlot(folder: string, parts: TreePart[], options: TreeOptions): Promise<Slot | FetchFailure> {
  const slot = join(folder, randomUUID());
  await mkdir(slot, { recursive: true, mode: 0o700 });
  const failed = await fillTree(slotPlace(slot), parts, options);
  if (failed !== null) {
    await removeFolder(slot);
    return failed;
  }
  return { folder: slot, place: slotPlace(slot), fresh: true };
}

/** Slots that a workspace uses. */
async function usedSlots(warm: string): Promise<Set<string | null>> {
  return new Set([...(await readRecords(warm)).values()].map(({ slot }) => slot));
}

async function slotsOf(folder: string): Promise<{ slot: string; parts: TreePart[] | null }[]> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith("lock"));
  return Promise.all(
    names.map(async (name) => {
      const slot = join(folder, name);
      return { slot, parts: (await readJson<SlotRecord>(join(slot, "slot.json")))?.parts ?? null };
    }),
  );
}
