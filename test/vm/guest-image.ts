import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A machine that can be booted: a root file system that is never written to, and the kernel with its modules. */
export type Guest = { root: string; kernel: string; initrd: string };

/** The release of Debian whose systemd has `DelegateSubgroup=` (254 and later). */
const RELEASE = "trixie";
const PACKAGES = `
  linux-image-cloud-amd64 initramfs-tools systemd systemd-sysv udev dbus kmod libpam-systemd dbus-user-session procps iproute2 busybox-static
  podman crun uidmap fuse-overlayfs passt netavark aardvark-dns docker.io docker-cli
  bubblewrap git ca-certificates curl openssh-client openssl xz-utils`
  .trim()
  .split(/\s+/);
/** The user of the guest that runs jobs; `useradd` gives it subordinate ids for its containers. */
export const GUEST_USER = "plumule";
/** Takes the tree from the second disk, and hands over to the script that came with it. The console is the kernel's own. */
const SERVICE = `[Unit]
Description=the tests of plumule
After=multi-user.target

[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
ExecStart=/bin/sh -c 'mkdir /plumule && tar -x -f /dev/vdb -C /plumule && exec /bin/sh /plumule/test/vm/guest.sh'
ExecStopPost=/usr/bin/systemctl poweroff --force

[Install]
WantedBy=graphical.target
`;

/**
 * The guest in a folder, made from Debian's packages when it is not there yet, which takes some minutes and 1.5 GB. A string says why it cannot be made.
 * What the machine lacks is told by {@link missingTools}.
 */
export function guestIn(folder: string): Guest | string {
  const digest = createHash("sha256")
    .update(JSON.stringify([RELEASE, PACKAGES, SERVICE]))
    .digest("hex")
    .slice(0, 12);
  const at = join(folder, `guest-${digest}`);
  const guest = { root: join(at, "root.img"), kernel: join(at, "kernel"), initrd: join(at, "initrd") };
  if (existsSync(at)) return guest;
  if (process.getuid?.() !== 0)
    return "the guest's files have owners of their own: please run this as root the first time.";
  const source = debianSource();
  if (source === null)
    return "no source of Debian's packages is known to apt: please run `apt-get update` on a Debian machine.";
  rmSync(folder, { recursive: true, force: true });
  const making = join(folder, "making");
  const tree = join(making, "root");
  mkdirSync(making, { recursive: true });
  process.stdout.write(`making a guest of Debian ${RELEASE} in ${folder} (once)\n`);
  const include = `--include=${PACKAGES.join(",")}`;
  const made = spawnSync(
    "mmdebstrap",
    ["--quiet", "--mode=root", "--variant=minbase", include, RELEASE, tree, source],
    {
      stdio: ["ignore", "inherit", "inherit"],
    },
  );
  if (made.status !== 0) return "mmdebstrap could not make the guest; its own words stand above.";
  furnish(tree);
  for (const [prefix, name] of [
    ["vmlinuz-", "kernel"],
    ["initrd.img-", "initrd"],
  ] as const) {
    const file = readdirSync(join(tree, "boot")).find((entry) => entry.startsWith(prefix));
    if (file === undefined) return `the kernel's package has brought no ${prefix}*`;
    copyFileSync(join(tree, "boot", file), join(making, name));
  }
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", tree, join(making, "root.img"), "5G"], { stdio: "inherit" });
  rmSync(tree, { recursive: true });
  renameSync(making, at);
  return guest;
}

/** The programs without which there is no guest, and the packages of Debian that have them. */
export function missingTools(): string[] {
  const tools = { "qemu-system-x86_64": "qemu-system-x86", mmdebstrap: "mmdebstrap", mke2fs: "e2fsprogs" };
  return Object.entries(tools).flatMap(([tool, name]) => (spawnSync(tool, ["-V"]).error === undefined ? [] : [name]));
}

/** Where apt of this machine has Debian's packages from. */
function debianSource(): string | null {
  const query = ["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
  const { stdout } = spawnSync("apt-get", query, { encoding: "utf8" });
  return /^Debian (\S+)$/m.exec(stdout ?? "")?.[1] ?? null;
}

function furnish(tree: string): void {
  const inside = (...words: string[]): void => void execFileSync("chroot", [tree, ...words], { stdio: "ignore" });
  inside("useradd", "--create-home", "--shell", "/bin/bash", GUEST_USER);
  writeFileSync(join(tree, "etc/hostname"), "guest\n");
  writeFileSync(join(tree, "etc/systemd/system/plumule-tests.service"), SERVICE);
  inside("systemctl", "enable", "plumule-tests.service");
  // Nobody logs in, and what is not looked at need not be started by an emulated processor.
  const idle = [
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "docker.service",
    "docker.socket",
    "containerd.service",
  ];
  inside("systemctl", "mask", ...idle);
  inside("systemctl", "set-default", "graphical.target");
}
