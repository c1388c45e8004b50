import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { join } from "node:path";

const run = promisify(execFile);

/** Copies what the setup phase left into a workspace whose folders are not overlays. */
export async function applyLayer(layer: string, { checkout, home }: { checkout: string; home: string }): Promise<void> {
  await run("cp", ["-a", join(layer, "tree/."), checkout]);
  await run("cp", ["-a", join(layer, "home/."), home]);
}
