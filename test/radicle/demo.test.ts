import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type CommandLine, processesAbout, startCommand } from "../support/command-line.ts";

let folder: string;
let command: CommandLine;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "pd-"));
  for (const name of ["home", "tmp"]) mkdirSync(join(folder, name));
  const home = join(folder, "home");
  command = startCommand(["demo"], { HOME: home, RAD_HOME: join(home, ".radicle"), TMPDIR: join(folder, "tmp") });
});
afterEach(() => {
  command.child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

async function expectNothingLeft(): Promise<void> {
  await vi.waitFor(() => expect(processesAbout(folder)).toEqual([]));
  expect(readdirSync(join(folder, "tmp"))).toEqual([]);
  expect(readdirSync(join(folder, "home")).filter((name) => name.includes("rad"))).toEqual([]);
}

it(
  "the demo pushes to a node of its own and reads the job COB, and leaves nothing of either",
  { timeout: 120_000 },
  async () => {
    expect(await command.done, `${command.out()}${command.err()}`).toBe(0);
    for (const line of [
      /pushes go to rad:z\w+ on a Radicle node of its own/,
      /git push rad: commit [0-9a-f]{7} "grow faster"/,
      /bridge: rad:z\w+ refs\/heads\/main [0-9a-f]{7} by did:key:z6Mk\w+ → job [0-9a-f-]{36} queued/,
      /job COB, as rad-job reads it: ✔ run [0-9a-f]{8} succeeded, by node z6Mk/,
      /no process left, folder removed/,
    ])
      expect(command.out()).toMatch(line);
    await expectNothingLeft();
  },
);

it("the demo ends its node when it is interrupted", { timeout: 120_000 }, async () => {
  await command.printed("the stem goes up");
  command.child.kill("SIGINT");
  expect(await command.done).toBe(130);
  await expectNothingLeft();
});
