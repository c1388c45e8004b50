import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const IMAGE = `localhost/plumule-test:${process.pid}`;
/** Programs of this machine that the image has, with what they are linked to. */
const PROGRAMS = "sh bash cat head ls mkdir mv chmod readlink rm sleep env git id".split(" ");

/**
 * Makes a small image of this machine's own programs, since nothing is pulled, and finds settings with which podman can run it here. Settings are in
 * the environment from then on. A string says why it cannot.
 */
export function containerImage(folder: string): { image: string } | string {
  if (spawnSync("podman", ["--version"]).status !== 0) return "podman";
  fillRoot(join(folder, "root"));
  execFileSync("sh", ["-c", 'tar -C "$1" -c . | podman import --quiet - "$2"', "sh", join(folder, "root"), IMAGE], {
    stdio: "ignore",
  });
  const conf = join(folder, "containers.conf");
  process.env["CONTAINERS_CONF"] = conf;
  for (const runtime of ["crun", "runc"]) {
    // A test machine may be a container itself, which has no right to raise a limit.
    const lines = `[containers]\nnetns = "host"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "${runtime}"\n`;
    writeFileSync(conf, lines);
    if (spawnSync("podman", ["run", "--rm", IMAGE, "sh", "-c", "exit 42"]).status === 42) return { image: IMAGE };
  }
  return "podman with a runtime that works here";
}

function fillRoot(root: string): void {
  for (const name of ["bin", "etc", "tmp", "proc", "dev"]) mkdirSync(join(root, name), { recursive: true });
  symlinkSync(".", join(root, "usr"));
  for (const name of PROGRAMS) {
    const path = execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
    copyFileSync(realpathSync(path), join(root, "bin", name));
    const linked = spawnSync("ldd", [realpathSync(path)], { encoding: "utf8" }).stdout;
    for (const library of linked.match(/\/\S+/g) ?? []) {
      mkdirSync(join(root, dirname(library)), { recursive: true });
      copyFileSync(realpathSync(library), join(root, library));
    }
  }
}
