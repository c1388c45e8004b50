#!/usr/bin/env node
// A repository's `post-receive` hook: tells the broker what was pushed. In hooks/post-receive:
//   exec node <path to this file>
// The configuration is git's own (`git config plumule.url …`); see config.ts.

import { resolve } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as pause } from "node:timers/promises";
import { readHookConfig } from "./config.ts";
import { loadSigner } from "./key.ts";
import { openQueue } from "./queue.ts";
import { receivePush } from "./receive.ts";

function say(line: string): void {
  process.stdout.write(`plumule: ${line}\n`);
}

async function main(): Promise<void> {
  // Read to the end first: git reports a broken pipe when a hook leaves its input behind.
  const input = await text(process.stdin);
  // git starts the hook in the repository with GIT_DIR set, mostly to ".".
  const gitDirectory = resolve(process.env["GIT_DIR"] ?? ".");
  const config = await readHookConfig(gitDirectory, process.env);
  if (!config.ok) return say(config.detail);
  const signer = await loadSigner(config.value.key);
  if (!signer.ok) return say(signer.detail);
  const queue = await openQueue(config.value.queue);
  await receivePush(input, config.value, gitDirectory, {
    fetch,
    signer: signer.value,
    queue,
    say,
    now: () => new Date(),
    pause: (ms) => pause(ms),
  });
}

try {
  await main();
} catch (error) {
  // The push has happened; a hook that fails would only frighten.
  say(`the broker was not told: ${error instanceof Error ? error.message : String(error)}`);
}
