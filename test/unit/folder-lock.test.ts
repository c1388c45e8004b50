import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockFolder, whileLocked } from "../../runner/src/folder-lock.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const module = join(import.meta.dirname, "../../runner/src/folder-lock.ts");
/** Adds one to the number in a file, many times, in the way that only works alone. */
const COUNTING = `
  import { readFileSync, writeFileSync } from "node:fs";
  import { setImmediate as later } from "node:timers/promises";
  import { whileLocked } from ${JSON.stringify(module)};
  const [folder, count] = process.argv.slice(1);
  for (let n = 0; n < Number(count); n += 1)
    await whileLocked(folder, "counting", async () => {
      const before = Number(readFileSync(folder + "/number", "utf8"));
      await later();
      writeFileSync(folder + "/number", String(before + 1));
    });`;

describe("the lock of a folder", () => {
  it("says who has it and what for", async () => {
    const lock = await lockFolder(folder, "a test");
    expect(await lockFolder(folder, "another")).toEqual({ pid: process.pid, purpose: "a test" });
    if (!("release" in lock)) throw new Error("not taken");
    await lock.release();
    expect(await lockFolder(folder, "another")).toHaveProperty("release");
  });

  it("is one's alone, in this process and in others, also when one before it died with it", async () => {
    writeFileSync(join(folder, "number"), "0");
    const dead = spawnSync("sh", ["-c", "echo $$"], { encoding: "utf8" }).stdout.trim();
    writeFileSync(join(folder, "lock"), `${dead} 1\ngone`);
    const children = [1, 2, 3].map(() => {
      const args = ["--input-type=module", "--eval", COUNTING, folder, "60"];
      return once(spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] }), "exit");
    });
    const own = Array.from({ length: 60 }, () =>
      whileLocked(folder, "counting", async () => {
        const before = Number(readFileSync(join(folder, "number"), "utf8"));
        await new Promise(setImmediate);
        writeFileSync(join(folder, "number"), String(before + 1));
      }),
    );
    expect(await Promise.all([Promise.all(children), Promise.all(own).then(() => "done")])).toEqual([
      [
        [0, null],
        [0, null],
        [0, null],
      ],
      "done",
    ]);
    expect(readFileSync(join(folder, "number"), "utf8")).toBe("240");
  });

  it("is waited for no longer than the caller wants", async () => {
    await lockFolder(folder, "for ever");
    const wait = whileLocked(folder, "too late", async () => "never", AbortSignal.timeout(50));
    await expect(wait).rejects.toThrow(/timeout/i);
  });
});
