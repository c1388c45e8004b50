import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";

/** Where a bench works: `machine` in words, and new folders by name, removed with the process. */
export type Stage = { machine: string; folderOf: (name: string) => string };

/** Makes the stage of a bench, and says on which machine it is, and how busy that was before. */
export function openStage(): Stage {
  const folder = mkdtempSync(join(tmpdir(), "plumule-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  const machine = `${cpus().length} cores, ${cpus()[0]?.model.trim() ?? "unknown"}, Node ${process.versions.node}`;
  console.log(`${machine}, load ${loadavg()[0]?.toFixed(2)} before the start`);
  return {
    machine,
    folderOf: (name) => {
      const path = join(folder, name);
      mkdirSync(path);
      return path;
    },
  };
}
