import { basename, dirname, join } from "node:path";
import { type Context, currentContext, runAs } from "./clock.ts";
import type { World } from "./world.ts";

type Watch = { context: Context; listener: (event: string, name: string) => void };
type File = { bytes: Uint8Array; durable: Uint8Array };

/** Time that the disk takes to make something durable, ms. A process may be killed meanwhile. */
const SYNC_MS = 4;

/**
 * The disk of a machine. Contents become durable with `sync` of their file, names with `sync` of their folder; a power loss takes back everything
 * else, a killed process nothing.
 */
export class Disk {
  /** When set, nothing more is written (ENOSPC). */
  isFull = false;
  readonly #world: World;
  #names = new Map<string, File>();
  #durableNames = new Map<string, File>();
  readonly #folders = new Set<string>(["/"]);
  readonly #watches = new Map<string, Set<Watch>>();

  constructor(world: World) {
    this.#world = world;
  }

  /** The power was lost: what was not durable is gone, or happened to reach the disk, in part or whole. */
  losePower(): void {
    const { timing } = this.#world;
    const names = new Map(this.#durableNames);
    for (const [path, file] of this.#names) if (!names.has(path) && timing.chance(0.5)) names.set(path, file);
    for (const file of names.values()) {
      const { bytes, durable } = file;
      file.bytes = timing.chance(0.5)
        ? durable
        : bytes.subarray(0, timing.between(Math.min(durable.length, bytes.length), bytes.length + 1));
    }
    this.#names = names;
    this.#durableNames = new Map(names);
  }

  makeFolder(path: string): void {
    for (let folder = path; !this.#folders.has(folder); folder = dirname(folder)) this.#folders.add(folder);
  }

  /** Names in a folder, files and folders. */
  list(folder: string): string[] {
    if (!this.#folders.has(folder)) throw failure("ENOENT", folder);
    const inside = (path: string): boolean => path !== folder && dirname(path) === folder;
    return [...this.#names.keys(), ...this.#folders].filter(inside).map((path) => path.slice(join(folder, "/").length));
  }

  isFolder(path: string): boolean {
    return this.#folders.has(path);
  }

  find(path: string): File | null {
    return this.#names.get(path) ?? null;
  }

  /** Opens a file for writing; a new one is empty. */
  create(path: string, truncates: boolean): File {
    const known = this.#names.get(path);
    if (known !== undefined) {
      if (truncates) known.bytes = EMPTY;
      return known;
    }
    if (this.isFull) throw failure("ENOSPC", path);
    const file = { bytes: EMPTY, durable: EMPTY };
    this.#names.set(path, file);
    return file;
  }

  /** Writes at a place, or at the end. What is written over what is there needs no room. */
  write(path: string, file: File, bytes: Uint8Array, at: number = file.bytes.length): void {
    const size = Math.max(file.bytes.length, at + bytes.length);
    if (size > file.bytes.length && (this.isFull || this.#world.faults.strikes("disk full")))
      throw failure("ENOSPC", path);
    const next = new Uint8Array(size);
    next.set(file.bytes);
    next.set(bytes, at);
    file.bytes = next;
    this.#changed(path);
  }

  /** Tells of changes in a folder from now on. */
  watch(folder: string, listener: Watch["listener"]): () => void {
    const context = currentContext();
    if (context === null || !this.#folders.has(folder)) throw failure("ENOENT", folder);
    const watches = this.#watches.get(folder) ?? new Set();
    const watch = { context, listener };
    this.#watches.set(folder, watches.add(watch));
    return () => watches.delete(watch);
  }

  #changed(path: string): void {
    for (const watch of this.#watches.get(dirname(path)) ?? [])
      this.#world.clock.after(this.#world.timing.next(), () => {
        const isWatched = this.#watches.get(dirname(path))?.has(watch) === true;
        if (isWatched && watch.context.owner.alive)
          runAs(watch.context, () => watch.listener("change", basename(path)));
      });
  }

  rename(from: string, to: string): void {
    const file = this.#names.get(from);
    if (file === undefined) throw failure("ENOENT", from);
    this.#names.delete(from);
    this.#names.set(to, file);
    this.#changed(to);
  }

  /** Removes a file, or a folder with all that is in it. Folders are not what a runner relies on, so they are gone at once. */
  remove(path: string): boolean {
    const below = `${path}/`;
    const names = [...this.#names.keys()].filter((name) => name === path || name.startsWith(below));
    for (const name of names) this.#names.delete(name);
    let found = names.length > 0;
    for (const folder of this.#folders)
      if (folder === path || folder.startsWith(below)) found = this.#folders.delete(folder) || found;
    return found;
  }

  syncFile(file: File): void {
    file.durable = file.bytes;
  }

  syncFolder(folder: string): void {
    for (const [path] of this.#durableNames)
      if (dirname(path) === folder && !this.#names.has(path)) this.#durableNames.delete(path);
    for (const [path, file] of this.#names) if (dirname(path) === folder) this.#durableNames.set(path, file);
  }

  /** Until the disk has done it. */
  busy(): Promise<void> {
    return new Promise((resolve) => this.#world.clock.timer(this.#world.timing.next() * SYNC_MS, resolve));
  }
}

const EMPTY = new Uint8Array();

/** An error as Node makes it, but for its stack: the product asks for many a file that is not there, and a stack takes longer than the answer. */
export function failure(code: string, path: string): NodeJS.ErrnoException {
  const depth = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  const error = Object.assign(new Error(`${code}: ${path}`), { code });
  Error.stackTraceLimit = depth;
  return error;
}
