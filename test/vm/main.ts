// Runs tests on a Linux of today, in a machine of their own: `npm run test:vm`, or `npm run test:vm -- test/unit/runner-limits.test.ts`.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Guest, guestIn, missingTools } from "./guest-image.ts";

const root = join(import.meta.dirname, "../..");

/** What a machine with cgroups of version 1, or without systemd, cannot show. */
const FILES = [
  "test/unit/runner-limits.test.ts",
  "test/unit/runner-container.test.ts",
  "test/unit/workspace-provider.test.ts",
  "test/unit/workspace-container.test.ts",
  "test/vm/service.test.ts",
];
/** Their times are those of a real processor, and run where there is KVM: a tenth of a second is one there alone. */
const TIMED = ["test/unit/runner-process.test.ts", "test/unit/runner-supervisor.test.ts"];
/** It has no network: what a test needs is in it. */
const MACHINE = "-machine q35 -smp 2 -m 4G -nodefaults -display none -no-reboot -nic none".split(" ");
/** An hour, for a machine without KVM that has more to do. */
const LONGEST_MS = 3_600_000;

/** KVM where the processor itself can do it; else every instruction is emulated, which is some twenty times as slow. */
function hasKvm(): boolean {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return /^flags.*\b(vmx|svm)\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return false;
  }
}

/** QEMU 7.2 loses the flags of `cmpxchg16b` when it emulates two processors at once, and Linux panics. */
const PROCESSOR = hasKvm() ? "-accel kvm -cpu host" : "-accel tcg,thread=multi -cpu Nehalem,-cx16";

/**
 * The sources as they are in the work tree with the packages they need, the package that is made from them, and the names of the files to run, as an
 * archive that the guest reads from a disk.
 */
function packTree(to: string, files: readonly string[]): string {
  const archive = join(to, "tree.tar");
  const add = (...what: string[]): void => void execFileSync("tar", ["-r", "-f", archive, ...what], { cwd: root });
  const listed = execFileSync(
    "git",
    ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
    {
      cwd: root,
      encoding: "utf8",
    },
  );
  const sources = listed.split("\0").filter((path) => path !== "" && existsSync(join(root, path)));
  writeFileSync(join(to, "sources"), sources.join("\0"));
  writeFileSync(join(to, "wanted"), `${files.join("\n")}\n`);
  add("--null", "--files-from", join(to, "sources"));
  add("node_modules");
  execFileSync(process.execPath, [join(root, "scripts/pack.mjs"), to]);
  add("-C", to, "wanted", "package");
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
      ...PROCESSOR.split(" "),
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
  const files = named.length > 0 ? named : hasKvm() ? [...FILES, ...TIMED] : FILES;
  if (named.length === 0 && !hasKvm())
    process.stdout.write(`without KVM everything is emulated, and slow; not run: ${TIMED.join(", ")}\n`);
  const scratch = mkdtempSync(join(tmpdir(), "plumule-vm-"));
  try {
    return await boot(guest, packTree(scratch, files), scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

process.exitCode = await main();
