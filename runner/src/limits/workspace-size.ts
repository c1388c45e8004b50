import { execFile } from "node:child_process";

/** The size of a run's workspace, watched while it works. */
export interface WorkspaceWatch {
  /** Bytes on disk now; null when they cannot be told. */
  measure(): Promise<number | null>;
  /** Ends the watching, and resolves when nothing is measured any more. */
  close(): Promise<void>;
}

/** The shortest time between two measurements, ms. */
const LOOK_MS = 1_000;
/** Measuring takes at most one part in so many of the time. */
const SHARE = 20;

/**
 * Measures the folders of a workspace again and again, and calls `onOver` once when they hold more than `limitBytes`. Nothing is measured without a
 * limit. What lies on another file system counts as nothing, such as a warm checkout below an overlay, which many runs share.
 */
export function watchWorkspace(
  folders: readonly string[],
  limitBytes: number | null,
  onOver: (bytes: number) => void,
): WorkspaceWatch {
  let timer: NodeJS.Timeout | undefined;
  let isClosed = limitBytes === null;
  let looking: Promise<void> = Promise.resolve();
  const look = async (): Promise<void> => {
    const startedAt = performance.now();
    const bytes = await sizeOf(folders);
    if (isClosed) return;
    if (limitBytes !== null && bytes !== null && bytes > limitBytes) return onOver(bytes);
    wait(Math.max(LOOK_MS, (performance.now() - startedAt) * SHARE));
  };
  const wait = (ms: number): void => {
    timer = setTimeout(() => void (looking = look()), ms);
  };
  if (!isClosed) wait(LOOK_MS);
  return {
    measure: () => (limitBytes === null ? Promise.resolve(null) : sizeOf(folders)),
    close() {
      isClosed = true;
      clearTimeout(timer);
      return looking;
    },
  };
}

/** Bytes of folders on disk, or null. By du(1): as fast as the kernel, hard links once, and in a process of its own, because a large tree would hold up the log. */
export function sizeOf(folders: readonly string[]): Promise<number | null> {
  return new Promise((resolve) => {
    // It ends with 1 when a file went away meanwhile, and says the rest all the same.
    execFile("du", ["-skx", ...folders], (_, stdout) => {
      const kib = stdout.match(/^\d+/gm);
      resolve(kib === null ? null : kib.reduce((sum, one) => sum + Number(one), 0) * 1024);
    });
  });
}
