import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { removeDurably, UNFINISHED_SUFFIX, writeDurably } from "./durable-file.ts";

/** Small records by key that survive a crash of the runner or of its machine. */
export interface Journal<Entry> {
  /** Every record, by key. */
  list(): ReadonlyMap<string, Entry>;
  get(key: string): Entry | undefined;
  /** Resolves when the record is on the disk; rejects when the disk refuses it, and then the earlier record stands. */
  put(key: string, record: Entry): Promise<void>;
  /** Resolves when the record is gone from the disk. An unknown key is fine. */
  remove(key: string): Promise<void>;
  /** Files that could not be read when the journal was opened, renamed and kept for a person. */
  readonly setAside: readonly string[];
}

const KEY = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const SUFFIX = ".json";

/**
 * Opens a journal: one JSON file per record in a folder of its own, a persisted contract. A file that is no JSON or that
 * `parse` refuses is renamed to `<name>.corrupt` and reported, because a runner that refuses to start helps nobody.
 * One process may have it open. Keys are file names; another shape is a RangeError.
 */
export async function openJournal<Entry>(
  folder: string,
  parse: (value: unknown) => Entry | null,
): Promise<Journal<Entry>> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const records = new Map<string, Entry>();
  const setAside: string[] = [];
  for (const name of (await readdir(folder)).toSorted()) {
    const path = join(folder, name);
    if (name.endsWith(UNFINISHED_SUFFIX)) await rm(path, { force: true });
    if (!name.endsWith(SUFFIX)) continue;
    const record = parse(await readJson(path));
    if (record !== null) {
      records.set(name.slice(0, -SUFFIX.length), record);
    } else {
      await rename(path, `${path}.corrupt`);
      setAside.push(`${path}.corrupt`);
    }
  }

  // One write after the other: two writes of one key must not share their unfinished file, and the last call wins.
  let last: Promise<unknown> = Promise.resolve();
  const inOrder = (work: () => Promise<void>): Promise<void> => {
    const turn = last.then(work);
    last = turn.catch(() => {});
    return turn;
  };
  const pathOf = (key: string): string => {
    if (!KEY.test(key)) throw new RangeError(`not a journal key: ${JSON.stringify(key)}`);
    return join(folder, `${key}${SUFFIX}`);
  };
  return {
    list: () => records,
    get: (key) => records.get(key),
    put: async (key, record) => {
      const path = pathOf(key);
      // Taken now, and with `parse`, so that what is read today is what a restart would read.
      const content = JSON.stringify(record);
      const copy = parse(JSON.parse(content));
      if (copy === null) throw new TypeError(`a record that could not be read back: ${path}`);
      await inOrder(async () => {
        await writeDurably(path, content);
        records.set(key, copy);
      });
    },
    remove: async (key) => {
      const path = pathOf(key);
      await inOrder(async () => {
        await removeDurably(path);
        records.delete(key);
      });
    },
    setAside,
  };
}

/** The content of a JSON file; undefined, which fits no record, when it cannot be read as one. */
async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch {
    return undefined;
  }
}
