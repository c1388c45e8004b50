import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type CommandLine, processesAbout, startCommand } from "../support/command-line.ts";

let folder: string;
let temporary: string;
let command: CommandLine | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-demo-test-"));
  temporary = join(folder, "tmp");
  mkdirSync(temporary);
});
afterEach(() => {
  command?.child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

function demo(env: Readonly<Record<string, string>> = {}): CommandLine {
  return (command = startCommand(["demo"], { TMPDIR: temporary, ...env }));
}

async function expectNothingLeft(): Promise<void> {
  for (let tries = 0; tries < 20 && processesAbout(folder).length > 0; tries += 1) await pause(50);
  expect(processesAbout(folder)).toEqual([]);
  expect(readdirSync(temporary)).toEqual([]);
}

it("shows a push becoming a signed result, and leaves nothing behind", async () => {
  const { done, out, err } = demo();
  expect(await done, `${out()}${err()}`).toBe(0);
  const id = "[0-9a-f]{8}-[0-9a-f]{4}";
  for (const line of [
    /pushes go to (?:a bare repository|rad:z)/,
    /refs\/heads\/main [0-9a-f]{7} (?:by did:key:\S+ )?→ job [0-9a-f-]{36} queued: http/,
    new RegExp(`job ${id} queued, assigned to the local runner in \\d+ ms`),
    /stem> the stem goes up, grow/,
    new RegExp(`second push replaced the first: ${id} superseded by ${id}; its [1-9]\\d* processes are gone`),
    /resumed at event \d+: [1-9]\d* recovered, 0 lost/,
    /stem ✔ {2}leaf-left ✔/,
    /a job for \S+ waits: No runner offers/,
    /signed by z6Mk\S+: ✔ 2 statements/,
    /one byte changed: ✘ fails at signature/,
    /times: push → queued \d+ ms, queued → assigned \d+ ms, assigned → first log line \d+ ms/,
    /Nix alone \d+ ms; plumule's own -?\d+ ms/,
    /no process left, folder removed/,
  ])
    expect(out()).toMatch(line);
  await expectNothingLeft();
});

it("leaves nothing behind when it is interrupted during a build", async () => {
  const { child, printed, done } = demo();
  await printed("the stem goes up");
  child.kill("SIGINT");
  expect(await done).toBe(130);
  await expectNothingLeft();
});

it("leaves nothing behind when it is interrupted while it starts", async () => {
  const { child, done } = demo();
  // Its folder is there, so it listens; broker and runner are being started.
  while (readdirSync(temporary).length === 0) await pause(5);
  await pause(300);
  child.kill("SIGINT");
  expect(await done).toBe(130);
  await expectNothingLeft();
});

it("names the step that fails, and leaves nothing behind", async () => {
  // A machine with everything but Nix.
  const programs = join(folder, "bin");
  mkdirSync(programs);
  for (const place of (process.env["PATH"] ?? "").split(delimiter).toReversed()) {
    for (const name of ["git", "sh", "env", "setpriv", "unshare", "setsid", "bwrap"]) {
      try {
        if (readdirSync(place).includes(name)) symlinkSync(join(place, name), join(programs, name));
      } catch {
        // A folder of PATH that does not exist, or a program that an earlier folder has too.
      }
    }
  }
  const { done, err } = demo({ PATH: programs });
  expect(await done).toBe(1);
  expect(err()).toContain("The demo failed at: start broker and runner: no Nix");
  await expectNothingLeft();
});
