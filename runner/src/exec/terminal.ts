import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import type { TerminalSize } from "@plumule/protocol";
import { findTracked } from "../process-tree.ts";

const run = promisify(execFile);
const ASK_MS = 5_000;

/** Whether this machine can make a terminal: Node cannot by itself, script(1) of util-linux can. Other programs of that name take other options. */
export async function canMakeTerminals(path: string): Promise<boolean> {
  try {
    const { stdout } = await run("script", ["--version"], { env: { PATH: path }, timeout: ASK_MS });
    return stdout.includes("util-linux");
  } catch {
    return false;
  }
}

/** A command line that runs a command in a new terminal of some size, and ends with its exit code. What is typed comes by a pipe, so it has to echo. */
export function inTerminal(argv: readonly string[], { columns, rows }: TerminalSize): string[] {
  const words = argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  return ["script", "-qfec", `stty sane rows ${rows} cols ${columns}; exec ${words.join(" ")}`, "/dev/null"];
}

/** Tells the terminal of a process with this tracking id its new size; the kernel tells whoever looks at it. */
export async function resizeTerminal(trackingId: string, { columns, rows }: TerminalSize): Promise<void> {
  const pid = findTracked(trackingId).find(hasTerminal);
  // By way of the process: in other mounts the same path may be another terminal.
  if (pid !== undefined)
    await run("stty", ["-F", `/proc/${pid}/fd/0`, "rows", String(rows), "cols", String(columns)], { timeout: ASK_MS });
}

/** Field 7 of proc(5) `stat` is the controlling terminal, 0 for none. */
function hasTerminal(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[4] !== "0";
  } catch {
    return false;
  }
}
