import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The checkout whose Worker and page are run. */
export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
/** The folder of the built page. */
export const PAGE_FOLDER = join(ROOT, "dashboard/dist");

/** Builds the page as `wrangler.toml` asks for, where this checkout has one. Rejects with what the build said. */
export async function buildPage(): Promise<void> {
  const script = join(ROOT, "scripts/page.mjs");
  if (existsSync(script)) await promisify(execFile)(process.execPath, [script], { cwd: ROOT });
}
