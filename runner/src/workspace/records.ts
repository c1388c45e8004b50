import { createHash, randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ProcessIdentity } from "../process-identity.ts";
import type { TreePart } from "./tree.ts";

/**
 * What stands in `<warm>/records/<id>.json` about a workspace: what it uses, so that nobody changes or removes that, and how it is taken down. It lies
 * apart from what commands may write to. A persisted contract: new fields need a default when they are read.
 */
export interface TreeRecord {
  version: 1;
  /** The folder of the workspace, where `checkout` is. */
  folder: string;
  /** The mirrors that it needs, also while they are being filled. */
  mirrors: string[];
  parts: TreePart[];
  /** The warm checkout below its overlay, or the one that was moved into its folder; null while there is none. */
  slot: string | null;
  /** Whether the slot is mounted over; else it was moved. */
  mounted: boolean;
  /** Whether a moved slot may serve others again. */
  keep: boolean;
  /** The layer of the setup phase, or null. */
  setup: string | null;
  /** The process that holds the namespace of its mounts, where they are not the machine's. */
  keeper: ProcessIdentity | null;
}

/** What stands in `slot.json` of a warm checkout. Its time of change is when it was last used. */
export interface SlotRecord {
  version: 1;
  /** Null while its files are being changed: after a crash they are of no use. */
  parts: TreePart[] | null;
}

/** Folders below a folder of warm things. */
export function warmFolders(warm: string): { records: string; slots: string; uppers: string; setups: string } {
  const at = (name: string): string => join(warm, name);
  return { records: at("records"), slots: at("slots"), uppers: at("uppers"), setups: at("setups") };
}

/** The paths of a workspace. */
export function workspacePaths(folder: string): { checkout: string; home: string; temporary: string } {
  return { checkout: join(folder, "checkout"), home: join(folder, "home"), temporary: join(folder, "tmp") };
}

/** A digest over fields of any content: each is preceded by its length, so that no two lists have the same bytes. */
export function digestOf(fields: readonly string[]): string {
  const hash = createHash("sha256");
  for (const field of fields) hash.update(`${Buffer.byteLength(field)}:`).update(field);
  return hash.digest("hex");
}

/** Writes the record of a workspace over the earlier one. */
export async function writeRecord(warm: string, id: string, record: TreeRecord): Promise<void> {
  await replaceJson(join(warmFolders(warm).records, `${id}.json`), record);
}

/** The record of a workspace; null when there is none. */
export async function readRecord(warm: string, id: string): Promise<TreeRecord | null> {
  return readJson<TreeRecord>(join(warmFolders(warm).records, `${id}.json`));
}

/** Forgets a workspace. */
export async function removeRecord(warm: string, id: string): Promise<void> {
  await rm(join(warmFolders(warm).records, `${id}.json`), { force: true });
}

/** All records by their workspaces. */
export async function readRecords(warm: string): Promise<Map<string, TreeRecord>> {
  const found = new Map<string, TreeRecord>();
  for (const name of await readdir(warmFolders(warm).records).catch(() => [])) {
    if (!name.endsWith(".json")) continue;
    const id = name.slice(0, -".json".length);
    const record = await readRecord(warm, id);
    if (record !== null) found.set(id, record);
  }
  return found;
}

/** Puts a document in the place of another, whole for every reader. */
export async function replaceJson(path: string, value: unknown): Promise<void> {
  const unfinished = `${path}.${randomUUID()}.unfinished`;
  await mkdir(join(path, ".."), { recursive: true, mode: 0o700 });
  await writeFile(unfinished, JSON.stringify(value), { mode: 0o600 });
  await rename(unfinished, path);
}

/** A document that this program wrote; null when it is not there or not whole. */
export async function readJson<T>(path: string): Promise<T | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as T;
  } catch {
    return null;
  }
}
