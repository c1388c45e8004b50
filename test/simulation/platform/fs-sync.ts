// `node:fs` for the code of a simulated machine: what of it the runner uses.
// What is not here is the real one, which nothing that is simulated calls.
export * from "node:fs";
import { currentDisk } from "./computer.ts";
import { type Disk, failure } from "./disk.ts";

const utf8 = new TextEncoder();

type File = NonNullable<ReturnType<Disk["find"]>>;
/** Open files by descriptor. Descriptors are never used again, so that one of a killed process leads nowhere. */
const open = new Map<number, { disk: Disk; path: string; file: File }>();
let next = 3;

function opened(descriptor: number): { disk: Disk; path: string; file: File } {
  const found = open.get(descriptor);
  if (found === undefined) throw failure("EBADF", String(descriptor));
  return found;
}

export const constants = { O_RDONLY: 0, O_WRONLY: 1, O_CREAT: 0o100, O_NONBLOCK: 0o4000 };

/** Opens for writing: `w` empties the file, everything else leaves what is there. */
export function openSync(path: string, flags: string | number): number {
  const disk = currentDisk();
  open.set(next, { disk, path, file: disk.create(path, flags === "w") });
  next += 1;
  return next - 1;
}

/** Text goes to a position, bytes to the end: so the runner uses it. */
export function writeSync(descriptor: number, content: string | Uint8Array, place = 0): number {
  const { disk, path, file } = opened(descriptor);
  const bytes = typeof content === "string" ? utf8.encode(content) : content.subarray(place);
  disk.write(path, file, bytes, typeof content === "string" ? place : undefined);
  return bytes.length;
}

export function writeFileSync(path: string, content: string): void {
  const disk = currentDisk();
  disk.write(path, disk.create(path, true), utf8.encode(content));
}

export function appendFileSync(path: string, content: string): void {
  const disk = currentDisk();
  disk.write(path, disk.create(path, false), utf8.encode(content));
}

export function readFileSync(path: string): string {
  const file = currentDisk().find(path);
  if (file === null) throw failure("ENOENT", path);
  return new TextDecoder().decode(file.bytes);
}

export function existsSync(path: string): boolean {
  const disk = currentDisk();
  return disk.find(path) !== null || disk.isFolder(path);
}

export function statSync(path: string): { size: number } | undefined {
  const file = currentDisk().find(path);
  return file === null ? undefined : { size: file.bytes.length };
}

export function readdirSync(path: string): string[] {
  return currentDisk().list(path);
}

export function accessSync(path: string): void {
  if (!existsSync(path)) throw failure("ENOENT", path);
}

export function mkdirSync(path: string): void {
  currentDisk().makeFolder(path);
}

export function renameSync(from: string, to: string): void {
  currentDisk().rename(from, to);
}

export function watch(
  folder: string,
  listener: (event: string, name: string) => void,
): { on(): { close(): void }; close(): void } {
  const close = currentDisk().watch(folder, listener);
  return { on: () => ({ close }), close };
}

export function fsyncSync(descriptor: number): void {
  const { disk, file } = opened(descriptor);
  disk.syncFile(file);
}

export function closeSync(descriptor: number): void {
  opened(descriptor);
  open.delete(descriptor);
}
