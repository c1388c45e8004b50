import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { whileLocked } from "../folder-lock.ts";
import { identityOf, isAlive, type ProcessIdentity } from "../process-identity.ts";
import { refuseWorkspace, type WorkspaceRefusal } from "./provider.ts";

/**
 * The lock of one workspace, in a folder of its own: many commands at a time, or one change of everything. Commands wait for a change; a change does not
 * wait for commands, which may take hours.
 */
export interface Hold {
  /** Does some work beside others. `purpose` says what to those who are turned away. */
  share<T>(purpose: string, work: () => Promise<T>): Promise<T>;
  /** Does some work alone; `busy`, with who it is, while commands run. */
  alone<T>(purpose: string, work: () => Promise<T>): Promise<T | WorkspaceRefusal>;
  /** Resolves when no command runs, or after a while. */
  quiet(withinMs: number): Promise<void>;
}

interface User extends ProcessIdentity {
  purpose: string;
}

const LOOK_MS = 20;
const PURPOSE_CHARACTERS = 200;

/** Opens the lock of a workspace. */
export function openHold(folder: string): Hold {
  const users = join(folder, "users");
  const current = async (): Promise<User[]> => {
    const names = await readdir(users).catch(() => []);
    const read = await Promise.all(names.map((name) => readUser(join(users, name))));
    return read.filter((user) => user !== null);
  };
  return {
    async share(purpose, work) {
      const path = join(users, randomUUID());
      await whileLocked(folder, purpose.slice(0, PURPOSE_CHARACTERS), async () => {
        const identity = identityOf(process.pid) ?? { pid: process.pid, startedAt: "", boot: "" };
        const user: User = { ...identity, purpose: purpose.slice(0, PURPOSE_CHARACTERS) };
        await mkdir(users, { recursive: true, mode: 0o700 });
        await writeFile(path, JSON.stringify(user), { mode: 0o600 });
      });
      try {
        return await work();
      } finally {
        await rm(path, { force: true });
      }
    },
    alone: (purpose, work) =>
      whileLocked(folder, purpose, async () => {
        const [user] = await current();
        if (user === undefined) return work();
        return refuseWorkspace("busy", `process ${user.pid} is at work in it: ${user.purpose}`);
      }),
    async quiet(withinMs) {
      for (const until = performance.now() + withinMs; performance.now() < until; await pause(LOOK_MS))
        if ((await current()).length === 0) return;
    },
  };
}

/** Who runs a command; null for one that has gone, whose file is removed. */
async function readUser(path: string): Promise<User | null> {
  try {
    const user = JSON.parse(await readFile(path, "utf8")) as User;
    if (isAlive(user)) return user;
  } catch {
    // Being written, which only happens under the lock, or left by a crash.
  }
  await rm(path, { force: true });
  return null;
}
