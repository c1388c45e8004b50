import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ContainerPlace } from "../../runner/src/container.ts";
import { probeLevels } from "../../runner/src/probe-container.ts";

/** The machine's own programs, so that an image can be nearly empty and nothing is fetched. */
const PROGRAMS = ["/bin", "/usr", "/lib", "/lib64", "/nix"].map((path) => ({ path, writable: false }));
/** Engines of some machines do not start with what they were configured with: crun where cgroups are of both versions, or without the right to raise limits. */
const FALLBACK = `[engine]\nruntime = "runc"\n[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n`;
const none = { by: "none", why: "for the test" } as const;

/** A place for containers, with this machine's programs and a writable folder; or why there is none. */
export async function containerPlace(folder: string): Promise<ContainerPlace | { missing: string }> {
  const image = "localhost/plumule-test:2";
  if (spawnSync("podman", ["--version"]).error !== undefined) return { missing: "no podman" };
  const made = importImage(image);
  if (made !== null) return { missing: made };
  const mounts = [...PROGRAMS, { path: folder, writable: true }];
  for (const conf of [null, FALLBACK]) {
    if (conf !== null) {
      writeFileSync(join(folder, "containers.conf"), conf);
      process.env["CONTAINERS_CONF"] = join(folder, "containers.conf");
    }
    const engine = { engine: "podman", image, mounts };
    const { unavailable } = await tryEngine(engine);
    if (unavailable === null) return engine;
    if (conf !== null) return { missing: unavailable };
  }
  return { missing: "no way to start one" };
}

async function tryEngine({ image }: ContainerPlace): Promise<{ unavailable: string | null }> {
  const { report } = await probeLevels(image, { memory: none, tasks: none });
  return { unavailable: report.unavailable.get("container") ?? null };
}

/** An image of two shells and what they are linked with, made once. Why there is none, or null. */
function importImage(image: string): string | null {
  if (spawnSync("podman", ["image", "exists", image]).status === 0) return null;
  const root = mkdtempSync(join(tmpdir(), "plumule-image-"));
  try {
    for (const name of ["bin", "usr", "lib", "lib64", "tmp", "nix"]) mkdirSync(join(root, name));
    const script = `set -e; for s in sh bash; do for f in $(ldd "$(command -v $s)" | grep -o '/[^ ]*'); do mkdir -p "$1$(dirname $f)"; cp -L $f "$1$f"; done; cp -L "$(command -v $s)" "$1/bin/$s"; done; tar -C "$1" -c . | podman import - "$2"`;
    const { status, stderr } = spawnSync("sh", ["-c", script, "sh", root, image], { encoding: "utf8" });
    return status === 0 ? null : `no image: ${stderr.trim().split("\n").at(-1)}`;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
