import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { privateStore } from "@plumule/runner";
import type { Stage } from "./stage.ts";

const run = promisify(execFile);

/**
 * How long Nix alone takes for the build of the second push, ms: the same commit in a fresh store that holds what the first push had built.
 * What a job takes beyond this is plumule's own.
 */
export async function timeBareNix({ folder, garden }: Stage): Promise<number> {
  const env = { ...(await privateStore(join(folder, "bare"))), PATH: process.env["PATH"] };
  const build = async (name: string): Promise<void> =>
    void (await run("nix", ["build", "--no-link", `.#${name}`], { cwd: garden.clone, env }));
  await build("root");
  const startedAt = performance.now();
  await build("default");
  return performance.now() - startedAt;
}
