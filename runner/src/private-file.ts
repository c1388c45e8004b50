import { constants } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";

/** Why a private file cannot be used; `detail` says what to do. */
export type PrivateFileRefusal = { ok: false; reason: "missing" | "permissions" | "format"; detail: string };

/** A key file is a few hundred bytes; a longer one is something else. */
const KEY_FILE_BYTES = 16 * 1024;

/** Makes a file that its owner alone can read. Never overwrites: false when there is one already. */
export async function createPrivateFile(path: string, content: string | Buffer): Promise<boolean> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "EEXIST") return null;
    throw error;
  });
  if (file === null) return false;
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  return true;
}

/** Reads a key file. One that others may read is refused, because whoever copied it can do what its owner can. */
export async function readPrivateFile(path: string): Promise<{ ok: true; text: string } | PrivateFileRefusal> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (file === null) return refuse("missing", `no key at ${path}`);
  try {
    // Of the open file, so that nobody can put another one in its place between the check and the reading.
    const status = await file.stat();
    if (!status.isFile() || status.size > KEY_FILE_BYTES) return refuse("format", `${path} is no key file`);
    const mode = (status.mode & 0o777).toString(8);
    if ((status.mode & 0o077) !== 0) return refuse("permissions", `${path} has mode ${mode}; run chmod 600 on it`);
    if (![process.getuid?.(), 0].includes(status.uid)) return refuse("permissions", `${path} belongs to another user`);
    return { ok: true, text: await file.readFile("utf8") };
  } finally {
    await file.close();
  }
}

function refuse(reason: PrivateFileRefusal["reason"], detail: string): PrivateFileRefusal {
  return { ok: false, reason, detail };
}
