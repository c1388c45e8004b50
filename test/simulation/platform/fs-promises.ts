// `node:fs/promises` for the code of a simulated machine: what of it the runner uses.
// What is not here is the real one, which nothing that is simulated calls.
export * from "node:fs/promises";
import { currentDisk } from "./computer.ts";
import { type Disk, failure } from "./disk.ts";

type File = NonNullable<ReturnType<Disk["find"]>>;
const utf8 = new TextEncoder();

class Handle {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #file: File | null;

  constructor(disk: Disk, path: string, file: File | null) {
    this.#disk = disk;
    this.#path = path;
    this.#file = file;
  }

  async writeFile(content: string | Uint8Array): Promise<void> {
    this.#disk.write(this.#path, this.#open(), typeof content === "string" ? utf8.encode(content) : content);
  }

  async read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number; buffer: Uint8Array }> {
    const found = this.#open().bytes.subarray(position, position + length);
    buffer.set(found, offset);
    return { bytesRead: found.length, buffer };
  }

  async readFile(encoding?: "utf8"): Promise<string | Uint8Array> {
    const { bytes } = this.#open();
    return encoding === undefined ? bytes : new TextDecoder().decode(bytes);
  }

  async stat(): Promise<{ isFile(): boolean; size: number; mode: number; uid: number }> {
    return { isFile: () => this.#file !== null, size: this.#open().bytes.length, mode: 0o100600, uid: 0 };
  }

  async sync(): Promise<void> {
    await this.#disk.busy();
    if (this.#file === null) this.#disk.syncFolder(this.#path);
    else this.#disk.syncFile(this.#file);
  }

  async datasync(): Promise<void> {
    return this.sync();
  }

  async close(): Promise<void> {}

  #open(): File {
    if (this.#file === null) throw failure("EISDIR", this.#path);
    return this.#file;
  }
}

export async function open(path: string, flags: string | number = "r"): Promise<Handle> {
  const disk = currentDisk();
  if (disk.isFolder(path)) return new Handle(disk, path, null);
  if (typeof flags === "number" || flags === "r") {
    const file = disk.find(path);
    if (file === null) throw failure("ENOENT", path);
    return new Handle(disk, path, file);
  }
  if (flags.startsWith("wx") && disk.find(path) !== null) throw failure("EEXIST", path);
  return new Handle(disk, path, disk.create(path, flags.startsWith("w")));
}

export async function mkdir(path: string): Promise<void> {
  currentDisk().makeFolder(path);
}

export async function readdir(path: string): Promise<string[]> {
  return currentDisk().list(path);
}

export async function readFile(path: string, encoding?: "utf8"): Promise<string | Uint8Array> {
  return (await open(path)).readFile(encoding);
}

export async function writeFile(path: string, content: string | Uint8Array): Promise<void> {
  const disk = currentDisk();
  disk.write(path, disk.create(path, true), typeof content === "string" ? utf8.encode(content) : content);
}

export async function rename(from: string, to: string): Promise<void> {
  const disk = currentDisk();
  await disk.busy();
  disk.rename(from, to);
}

export async function rm(path: string, options: { force?: boolean } = {}): Promise<void> {
  if (!currentDisk().remove(path) && options.force !== true) throw failure("ENOENT", path);
}

export async function lstat(path: string): Promise<{ isDirectory(): boolean }> {
  const disk = currentDisk();
  if (!disk.isFolder(path) && disk.find(path) === null) throw failure("ENOENT", path);
  return { isDirectory: () => disk.isFolder(path) };
}

export async function chmod(): Promise<void> {}
