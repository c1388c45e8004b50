import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";

/**
 * The absolute path of a program, or null when there is none. A name without a slash is looked for in `path` (the
 * format of `$PATH`); a name with one is taken relative to `cwd`. Relative and empty entries of `path` are skipped: they would let a checkout
 * bring its own `git` or `nix`.
 */
export function findExecutable(name: string, path: string, cwd: string): string | null {
  if (name.includes("/")) {
    const file = isAbsolute(name) ? name : resolve(cwd, name);
    return isExecutable(file) ? file : null;
  }
  if (name === "") return null;
  for (const folder of path.split(delimiter)) {
    if (isAbsolute(folder) && isExecutable(join(folder, name))) return join(folder, name);
  }
  return null;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
