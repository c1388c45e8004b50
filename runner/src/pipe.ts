import { execFile } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** The descriptors of a kernel pipe, both blocking and neither inherited unless it is passed on. Their owner closes them. */
export interface Pipe {
  readFd: number;
  writeFd: number;
}

/** Pipes made with one `mkfifo`, whose start is what they cost: a process needs one to three. */
const BATCH_COUNT = 16;
/** With fewer in stock the next batch is made, while the processes that took the others start. */
const LOW_COUNT = 4;

const stock: Pipe[] = [];
let making: Promise<void> | null = null;

/**
 * Opens pipes whose ends can be given to a child, one end as several descriptors if need be. Node's own `"pipe"` is a
 * socket and cannot be shared: standard output and error would lose their order, a job's `>/dev/stderr` would fail
 * (ENXIO), and bash, taking a socket on standard input for rshd, would read `~/.bashrc`. Node has no pipe(2), but a
 * FIFO whose name is removed at once is one.
 */
export async function openPipes(count: number): Promise<Pipe[]> {
  while (stock.length < count) await restock();
  const pipes = stock.splice(0, count);
  // Whoever needs a pipe that could not be made tries again, and says why not.
  if (stock.length < LOW_COUNT) void restock().catch(() => {});
  return pipes;
}

/** Makes the first pipes, for a process that has time now and will be in a hurry. A failure shows when they are needed. */
export function stockPipes(): void {
  void restock().catch(() => {});
}

function restock(): Promise<void> {
  making ??= makePipes(BATCH_COUNT)
    .then((pipes) => void stock.push(...pipes))
    .finally(() => (making = null));
  return making;
}

async function makePipes(count: number): Promise<Pipe[]> {
  const folder = mkdtempSync(join(tmpdir(), "plumule-pipe-"));
  try {
    const paths = Array.from({ length: count }, (_, index) => join(folder, `fifo-${index}`));
    await promisify(execFile)("mkfifo", ["-m", "600", ...paths]);
    return paths.map((path) => {
      // Opening one end blocks until there is the other; this descriptor is both.
      const bothFd = openSync(path, constants.O_RDWR);
      const pipe = { readFd: openSync(path, constants.O_RDONLY), writeFd: openSync(path, constants.O_WRONLY) };
      closeSync(bothFd);
      return pipe;
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
