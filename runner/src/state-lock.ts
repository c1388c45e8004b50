import { type FolderLock, lockFolder } from "./folder-lock.ts";

/** The right to use a state folder: two processes at work on the same files would destroy them. */
export type StateLock = FolderLock;

/** Locks a state folder, which is made private to the user, for this process. */
export async function lockState(folder: string): Promise<StateLock | { refused: string }> {
  const lock = await lockFolder(folder, "");
  if ("release" in lock) return lock;
  return {
    refused:
      lock.pid === 0
        ? `${folder} is being taken by another process at this moment.`
        : `${folder} is in use by process ${lock.pid}: stop it, or choose another folder with --state.`,
  };
}
