// Runs tests on a Linux of today, in a machine of their own: `npm run test:vm`, or `npm run test:vm -- test/unit/runner-limits.test.ts`.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Guest, guestIn, missingTools } from "./guest-image.ts";

const root = join(import.meta.dirname, "../..");

/** What a machine with cgroups of version 1, or without systemd, cannot show. */
const FILES = [
  "test/unit/runner-limits.test.ts",
  "test/unit/runner-process.test.ts",
  "test/unit/runner-container.test.ts",
  "test/unit/runner-supervisor.test.ts",
  "test/unit/workspace-provider.test.ts",
  "test/unit/workspace-container.test.ts",
  "test/unit/service-files.test.ts",
  "test/vm/service.test.ts",
];
/** It has no network: what a test needs is in it. */
const MACHINE = "-machine q35 -smp 2 -m 4G -nodefaults -display none -no-reboot -nic none".split(" ");
/** An hour, for a machine without KVM that has more to do. */
const LONGEST_MS = 3_600_000;

/** KVM where the processor itself can do it; else every instruction is emulated, which is some twenty times as slow. */
function accelerator(): string[] {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    if (/^flags.*\b(vmx|svm)\b/m.test(readFileSync("/proc/cpuinfo", "utf8"))) return ["-accel", "kvm", "-cpu", "host"];
  } catch {
    // As below.
  }
  // QEMU 7.2 loses the flags of `cmpxchg16b` when it emulates two processors at once, and Linux panics.
  return ["-accel", "tcg,thread=multi", "-cpu", "Nehalem,-cx16"];
}

/** The sources as they are in the work tree, with the packages they need, as an archive that the guest reads from a disk. */
function packTree(to: string, files: readonly string[]): string {
  const archive = join(to, "tree.tar");
  const list = join(to, "files");
  const listed = execFileSync(
    "git",
    ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
    { cwd: root },
  );
  writeFileSync(list, listed);
  execFileSync("tar", ["-c", "--ignore-failed-read", "-f", archive, "--null", "-T", list], {
    cwd: root,
    stdio: ["ignore", "ignore", "ignore"],
  });
  execFileSync("tar", ["-r", "-f", archive, "node_modules"], { cwd: root });
  writeFileSync(join(to, "wanted"), `${files.join("\n")}\n`);
  execFileSync("tar", ["-r", "-f", archive, "-C", to, "wanted"]);
  return archive;
}

/** Boots the guest, prints what its tests say, and answers the exit code: 0 when they ended and none failed. */
async function boot(guest: Guest, archive: string, scratch: string): Promise<number> {
  const consoleFile = join(scratch, "console.log");
  const disk = (file: string, how: string): string[] => ["-drive", `file=${file},if=virtio,format=raw,${how}`];
  const child = spawn(
    "qemu-system-x86_64",
    [
      ...MACHINE,
      ...accelerator(),
      "-serial",
      `file:${consoleFile}`,
      ...disk(guest.root, "snapshot=on"),
      ...disk(archive, "readonly=on"),
      "-kernel",
      guest.kernel,
      "-initrd",
      guest.initrd,
      "-append",
      "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=no",
      // What the tests say, on the second serial line.
      "-serial",
      "stdio",
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const overdue = setTimeout(() => child.kill(), LONGEST_MS);
  let last = "";
  createInterface({ input: child.stdout }).on("line", (line) => {
    last = line.trim() === "" ? last : line.trim();
    process.stdout.write(`${line}\n`);
  });
  await once(child, "close");
  clearTimeout(overdue);
  const counts = /^(\d+) passed, (\d+) failed/.exec(last);
  if (counts === null)
    process.stderr.write(
      `the guest ended before its tests did; its console said:\n${readFileSync(consoleFile, "utf8").slice(-4_000)}\n`,
    );
  return counts === null || Number(counts[1]) === 0 || Number(counts[2]) > 0 ? 1 : 0;
}

async function main(): Promise<number> {
  const missing = missingTools();
  if (missing.length > 0) {
    process.stderr.write(
      `plumule: this boots a machine of its own: please install ${missing.join(", ")} and try again.\n`,
    );
    return 1;
  }
  const guest = guestIn(join(root, ".plumule/vm"));
  if (typeof guest === "string") {
    process.stderr.write(`plumule: ${guest}\n`);
    return 1;
  }
  const named = process.argv.slice(2);
  const scratch = mkdtempSync(join(tmpdir(), "plumule-vm-"));
  try {
    return await boot(guest, packTree(scratch, named.length > 0 ? named : FILES), scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

process.exitCode = await main();
