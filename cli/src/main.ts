#!/usr/bin/env -S node --max-semi-space-size=1
import { readFileSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

// The flag keeps a runner's memory low while it sends long logs: with more room for what is young, V8 leaves tens of megabytes of sent bodies lying about.
// The parts are loaded when they are needed, since an answer to `--version` should not wait for all of them.
const argv = process.argv.slice(2);
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
};
if (argv[0] === "--version" || argv[0] === "-V") process.stdout.write(`${version}\n`);
else if (argv[0] === "help" && argv[1] === "exit-codes") {
  const { exitCodeLines } = await import("./exit-codes.ts");
  process.stdout.write(`${exitCodeLines().join("\n")}\n`);
} else {
  // To compile itself is half of what a short command does. In a folder of the user's own, for what lies there is run; where it cannot be written, nothing is kept.
  enableCompileCache(join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "plumule", "compiled"));
  const { runProgram } = await import("./program.ts");
  await runProgram(argv, version);
}
