#!/usr/bin/env node
import { readFileSync } from "node:fs";

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
  const { runProgram } = await import("./program.ts");
  await runProgram(argv, version);
}
