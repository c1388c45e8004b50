import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { dropCheckout, provideCheckout } from "../../runner/src/workspace/checkout.ts";
import { type OverlayMode, probeOverlay } from "../../runner/src/workspace/overlay.ts";
import { mergePacks } from "../../runner/src/workspace/merge-packs.ts";
import { collectSometimes, collectWarm } from "../../runner/src/workspace/quota.ts";
import { readRecords, warmFolders } from "../../runner/src/workspace/records.ts";

let state: string;
let folders: { mirrors: string; warm: string };

function git(cwd: string, ...args: string[]): string {
  const identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"];
  return execFileSync("git", [...identity, ...args], { cwd, encoding: "utf8" }).trim();
}

/** A repository with one file, and a checkout of it that was used so many minutes ago. */
async function warmUp(name: string, minutes: number, overlay: OverlayMode | null = null): Promise<void> {
  const origin = join(state, name);
  mkdirSync(origin, { recursive: true });
  git(origin, "init", "-q");
  writeFileSync(join(origin, "file"), randomBytes(400_000));
  git(origin, "add", "-A");
  git(origin, "commit", "-qm", "x");
  const source = { repository: origin, commit: git(origin, "rev-parse", "HEAD") };
  const made = await provideCheckout({
    ...folders,
    id: name,
    folder: join(state, "workspaces", name),
    sources: [{ source, path: "." }],
    domain: "test",
    overlay,
    setup: null,
    fetch: { mirrors: folders.mirrors, policy: { allowLocal: true }, timeoutMs: 60_000 },
  });
  if (!made.ok) throw new Error(made.detail);
  const usedAt = new Date(Date.now() - minutes * 60_000);
  for (const path of [...made.record.mirrors, join(made.record.slot ?? "", "slot.json")])
    utimesSync(path, usedAt, usedAt);
}

async function release(name: string, minutes: number): Promise<void> {
  const { slot } = (await readRecords(folders.warm)).get(name) ?? {};
  await dropCheckout(folders.warm, name);
  const usedAt = new Date(Date.now() - minutes * 60_000);
  utimesSync(join(slot ?? "", "slot.json"), usedAt, usedAt);
}

const slots = (): number =>
  readdirSync(warmFolders(folders.warm).slots)
    .flatMap((kind) => readdirSync(join(warmFolders(folders.warm).slots, kind)))
    .filter((name) => name !== "lock").length;
const mirrors = (): number => readdirSync(folders.mirrors).length;

beforeEach(() => {
  state = realpathSync(mkdtempSync(join(tmpdir(), "plumule-quota-")));
  folders = { mirrors: join(state, "mirrors"), warm: join(state, "warm") };
});
afterEach(async () => {
  for (const id of (await readRecords(folders.warm)).keys()) await dropCheckout(folders.warm, id);
  rmSync(state, { recursive: true, force: true });
});

describe("what is kept warm", () => {
  test("stays while it is within its quota and the disk has room", async () => {
    await warmUp("a", 5);
    await release("a", 5);
    expect(await collectWarm({ ...folders, quotaBytes: 1e12, floorBytes: 0 })).toEqual({
      removedCount: 0,
      removedBytes: 0,
    });
    expect([slots(), mirrors()]).toEqual([1, 1]);
  });

  test("goes when it was used longest ago, and a mirror after the checkouts that borrow from it", async () => {
    for (const [name, minutes] of [
      ["old", 30],
      ["new", 10],
    ] as const) {
      await warmUp(name, minutes);
      await release(name, minutes + 1);
    }
    const { removedBytes } = await collectWarm({ ...folders, quotaBytes: 1_200_000, floorBytes: 0 });
    expect(removedBytes).toBeGreaterThan(800_000);
    expect([slots(), mirrors()]).toEqual([1, 1]);
    expect(readdirSync(folders.warm).filter((name) => name.startsWith("trash"))).toEqual([]);
  });

  test("stays whatever the quota as long as a workspace uses it, and goes for a floor after that", async () => {
    const overlay = await probeOverlay(folders.warm);
    await warmUp("used", 30, typeof overlay === "string" ? overlay : null);
    const nothing = { ...folders, quotaBytes: 0, floorBytes: 0 };
    expect(await collectWarm(nothing)).toMatchObject({ removedCount: 0 });
    await release("used", 30);
    expect(await collectWarm({ ...nothing, quotaBytes: 1e12, floorBytes: 1e18 })).toMatchObject({ removedCount: 2 });
    expect([slots(), mirrors()]).toEqual([0, 0]);
  });

  test("is freed from workspaces whose folder a crash or a person removed", async () => {
    await warmUp("gone", 1);
    rmSync(join(state, "workspaces/gone"), { recursive: true });
    await collectWarm({ ...folders, quotaBytes: 0, floorBytes: 0 });
    expect([(await readRecords(folders.warm)).size, slots(), mirrors()]).toEqual([0, 0, 0]);
  });

  test("is looked at only now and then while there is room", async () => {
    await warmUp("a", 5);
    await collectSometimes({ ...folders, quotaBytes: 0, floorBytes: 0 });
    await release("a", 5);
    await collectSometimes({ ...folders, quotaBytes: 0, floorBytes: 0 });
    expect(slots()).toBe(1);
    await collectSometimes({ ...folders, quotaBytes: 1e12, floorBytes: 1e18 });
    expect(slots()).toBe(0);
  });
});

describe("a mirror", () => {
  test("of many packs gets few, and loses nothing that no ref leads to", async () => {
    const mirror = join(folders.mirrors, "m");
    mkdirSync(mirror, { recursive: true });
    git(mirror, "init", "-q", "--bare");
    const pack =
      "for n in $(seq 20); do echo $n | git hash-object -w --stdin | tee -a ids | git pack-objects -q objects/pack/pack >/dev/null; git prune-packed -q; done";
    execFileSync("sh", ["-c", pack], { cwd: mirror });
    const left = join(mirror, "objects/pack/tmp_pack_x");
    writeFileSync(left, "");
    utimesSync(left, 1, 1);
    const packs = (): number =>
      readdirSync(join(mirror, "objects/pack")).filter((name) => name.endsWith(".pack")).length;
    expect(packs()).toBe(20);
    expect(await mergePacks(folders, AbortSignal.abort())).toBe(0);
    expect(packs()).toBe(20);
    expect(await mergePacks(folders, new AbortController().signal)).toBe(1);
    expect([packs(), existsSync(left)]).toEqual([1, false]);
    const check = execFileSync("git", ["cat-file", "--batch-check=%(objecttype)"], {
      cwd: mirror,
      input: readFileSync(join(mirror, "ids")),
    });
    expect(check.toString()).toBe("blob\n".repeat(20));
    // There is nothing more to do.
    expect(await mergePacks(folders, new AbortController().signal)).toBe(0);
  });
});
