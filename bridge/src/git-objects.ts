import { spawn } from "node:child_process";

/** An object of a repository. */
export type GitObject = { oid: string; type: string; content: Buffer };

/** Objects of one repository, read through one `git cat-file --batch`. */
export interface GitObjects {
  /** Reads what a name such as `<oid>:refs` or `<oid>^{commit}` leads to; null when the repository does not have it. One at a time. */
  read(name: string): Promise<GitObject | null>;
  close(): void;
}

/** Largest object that is read, bytes: a blob `refs` of 100,000 refs. Anything can be pushed, and what is larger counts as missing. */
const OBJECT_BYTES = 16 * 1024 * 1024;

/** Opens the objects of the bare repository in a folder. A git that ends early makes every later read reject. */
export function openObjects(folder: string): GitObjects {
  const child = spawn("git", [...gitArguments(folder), "cat-file", "--batch"], {
    env: gitVariables(),
    stdio: ["pipe", "pipe", "ignore"],
  });
  // A broken pipe shows in the output, which ends.
  child.stdin.on("error", () => {});
  child.on("error", () => child.stdout.destroy());
  const output = child.stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let held: Buffer = Buffer.alloc(0);
  const more = async (): Promise<void> => {
    const next = await output.next();
    if (next.done === true) throw new Error(`git cat-file has ended in ${folder}`);
    held = Buffer.concat([held, next.value]);
  };
  const line = async (): Promise<string> => {
    while (!held.includes("\n")) await more();
    const end = held.indexOf("\n");
    const text = held.toString("utf8", 0, end);
    held = held.subarray(end + 1);
    return text;
  };
  const take = async (bytes: number, keep: boolean): Promise<Buffer> => {
    const parts: Buffer[] = [];
    for (let left = bytes; left > 0;) {
      if (held.length === 0) await more();
      const part = held.subarray(0, left);
      if (keep) parts.push(part);
      left -= part.length;
      held = held.subarray(part.length);
    }
    return Buffer.concat(parts);
  };
  return {
    async read(name) {
      if (/[\s\p{Cc}]/u.test(name)) return null;
      child.stdin.write(`${name}\n`);
      const [, oid, type, size] = /^([0-9a-f]{40,64}) ([a-z]+) (\d+)$/.exec(await line()) ?? [];
      if (oid === undefined || type === undefined) return null;
      const fits = Number(size) <= OBJECT_BYTES;
      const content = await take(Number(size), fits);
      await take(1, false);
      return fits ? { oid, type, content } : null;
    },
    close() {
      child.stdin.end();
      child.stdout.destroy();
    },
  };
}

/** A commit as its object says (git-cat-file(1)). `committedAt` in ms. */
export type Commit = { parents: string[]; committedAt: number; message: string };

/** Reads a commit object. */
export function parseCommit(content: Buffer): Commit {
  const text = content.toString("utf8");
  const end = text.indexOf("\n\n");
  const headers = text.slice(0, end === -1 ? undefined : end).split("\n");
  const [, seconds] = /> (\d+) [+-]\d+$/.exec(headers.find((line) => line.startsWith("committer ")) ?? "") ?? [];
  return {
    parents: headers.filter((line) => line.startsWith("parent ")).map((line) => line.slice("parent ".length)),
    committedAt: Number(seconds ?? 0) * 1_000,
    message: end === -1 ? "" : text.slice(end + 2),
  };
}

/**
 * Arguments for git in a storage that others write: no hooks, no file-system monitor, and none of its configuration for pagers or
 * helpers. The owner may be another user, whose objects are only read.
 */
export function gitArguments(folder: string): string[] {
  const settings = ["core.hooksPath=/dev/null", "core.fsmonitor=false", "credential.helper=", "gc.auto=0"];
  return ["--git-dir", folder, ...[...settings, `safe.directory=${folder}`].flatMap((one) => ["-c", one])];
}

/** The environment of git: nobody's configuration and no questions. */
export function gitVariables(): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "",
    LC_ALL: "C",
    HOME: "/nonexistent",
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_TERMINAL_PROMPT: "0",
    GIT_OPTIONAL_LOCKS: "0",
  };
}
