import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { ContainerPlace } from "../../runner/src/container.ts";
import { engineIn } from "../../runner/src/container-engine.ts";

/** Made once per machine: a later version of the programs below wants another number. */
const IMAGE = "localhost/plumule-test:3";
/** Programs of this machine that the image has, with what they are linked to; nothing is fetched. */
const PROGRAMS = "sh bash cat head ls mkdir mv chmod readlink rm sleep env git id".split(" ");
/** This machine's own programs, for jobs in containers, whose image can then be nearly empty. */
const MACHINE = ["/bin", "/usr", "/lib", "/lib64", "/nix"].map((path) => ({ path, writable: false }));

/**
 * An image with which podman can start containers here, and settings with which it can, which are in the environment from then on: a test machine may
 * be a container itself, which has no right to raise a limit, or not the cgroups that crun wants. `missing` says why there is none.
 */
export function containerImage(): { engine: string; image: string } | { missing: string } {
  const engine = engineIn(process.env["PATH"] ?? "", "podman");
  if ("unavailable" in engine) return { missing: engine.unavailable };
  const podman = (...args: string[]): number | null => spawnSync(engine.program, args).status;
  const fault = podman("image", "exists", IMAGE) === 0 ? null : makeImage();
  if (fault !== null) return { missing: fault };
  for (const runtime of [null, "crun", "runc"]) {
    if (runtime !== null) {
      // Files share a process, so that what one sets has to outlive its folder.
      const conf = join(tmpdir(), `plumule-containers-${runtime}.conf`);
      const draft = `${conf}.${process.pid}`;
      writeFileSync(
        draft,
        `[containers]\nnetns = "host"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "${runtime}"\n`,
      );
      renameSync(draft, conf);
      process.env["CONTAINERS_CONF"] = conf;
    }
    if (podman("run", "--rm", IMAGE, "sh", "-c", "exit 42") === 42) return { engine: engine.program, image: IMAGE };
  }
  return { missing: "podman with a runtime that works here" };
}

/** A place for jobs in containers, with this machine's programs and a writable folder; or why there is none. */
export function containerPlace(folder: string): ContainerPlace | { missing: string } {
  const found = containerImage();
  return "missing" in found ? found : { ...found, mounts: [...MACHINE, { path: folder, writable: true }] };
}

/** Why the image cannot be made, or null. */
function makeImage(): string | null {
  const root = mkdtempSync(join(tmpdir(), "plumule-image-"));
  try {
    for (const name of ["bin", "etc", "tmp", "proc", "dev", "nix", "usr"]) mkdirSync(join(root, name));
    symlinkSync("../bin", join(root, "usr/bin"));
    for (const name of PROGRAMS) copyProgram(root, name);
    const script = 'tar -C "$1" -c . | podman import --quiet - "$2"';
    const { status, stderr } = spawnSync("sh", ["-c", script, "sh", root, IMAGE], { encoding: "utf8" });
    return status === 0 ? null : `no image: ${stderr.trim().split("\n").at(-1)}`;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function copyProgram(root: string, name: string): void {
  const path = realpathSync(spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim());
  copyFileSync(path, join(root, "bin", name));
  for (const library of spawnSync("ldd", [path], { encoding: "utf8" }).stdout.match(/\/\S+/g) ?? []) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    copyFileSync(realpathSync(library), join(root, library));
  }
}
