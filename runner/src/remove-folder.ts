import { chmod, lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** Removes a folder with everything in it. False when something of it could not be removed, such as files of another user. */
export async function removeFolder(folder: string): Promise<boolean> {
  const options = { recursive: true, force: true, maxRetries: 2 };
  try {
    await rm(folder, options);
    return true;
  } catch {
    // Build tools make folders read-only (Go's module cache, copies from a Nix store); their owner may undo that.
    await makeWritable(folder);
  }
  return rm(folder, options).then(
    () => true,
    () => false,
  );
}

/** Gives the owner all rights to a folder and those in it. */
export async function makeWritable(path: string): Promise<void> {
  const status = await lstat(path).catch(() => null);
  if (status?.isDirectory() !== true) return;
  await chmod(path, 0o700).catch(() => {});
  for (const name of await readdir(path).catch(() => [])) await makeWritable(join(path, name));
}
