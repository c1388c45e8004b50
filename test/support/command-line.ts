import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const main = join(import.meta.dirname, "../../cli/src/main.ts");

/** A `plumule` at work, as a person starts it. */
export type CommandLine = {
  child: ChildProcess;
  /** What it has printed so far. */
  out: () => string;
  err: () => string;
  /** Resolves when it has printed this, on either stream. */
  printed: (text: string) => Promise<void>;
  /** Its exit code; null when a signal ended it. */
  done: Promise<number | null>;
};

/** Starts `plumule` with arguments, in a process group of its own: the checkout's, or another `program`. */
export function startCommand(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  program: string = main,
): CommandLine {
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const done = once(child, "close").then(([code]) => code as number | null);
  return {
    child,
    out: () => out,
    err: () => err,
    done,
    async printed(text) {
      const ended = done.then((code) => `ended with ${code} instead of printing ${text}: ${out}${err}`);
      while (!`${out}${err}`.includes(text)) {
        const next = Promise.race([once(child.stdout, "data"), once(child.stderr, "data"), ended]);
        const what = await next;
        if (typeof what === "string" && !`${out}${err}`.includes(text)) throw new Error(what);
      }
    },
  };
}

/** Command lines of live processes whose environment or arguments mention a text. */
export function processesAbout(text: string): string[] {
  return pidsAbout(text).map((pid) => readProcess(pid, "cmdline").replaceAll("\0", " ").trim());
}

/** The numbers of live processes whose environment or arguments mention a text. */
export function pidsAbout(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => `${readProcess(pid, "environ")}\0${readProcess(pid, "cmdline")}`.includes(text))
    .filter((pid) => readProcess(pid, "cmdline") !== "");
}

function readProcess(pid: number, file: "environ" | "cmdline"): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}
