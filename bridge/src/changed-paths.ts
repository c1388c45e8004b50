import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { isUtf8 } from "node:buffer";
import { LIMITS, type Push } from "@plumule/protocol";
import { gitArguments, gitVariables } from "./git-objects.ts";

const run = promisify(execFile);

/** Bytes of git's list that are read; many times what is told, and short of what a push of a whole system would print. */
const LIST_BYTES = 256 * 1024;
/** How long git may compare two trees, ms: whoever pushes waits for it. */
const COMPARE_MS = 2_000;

/** The push with the paths that it changes, as far as the repository in a folder can tell; as it is where that is not known. */
export async function withChangedPaths(push: Push, folder: string): Promise<Push> {
  const from = startOf(push);
  const changed = from === null ? null : await readChangedPaths(folder, from, push.after);
  return changed === null ? push : { ...push, ...changed };
}

/**
 * What a push is compared with: what its ref led to, or for a patch what it is to be merged into, so that every revision is about the whole patch. A ref
 * that is new has nothing to compare with.
 */
function startOf({ type, before, after, base }: Push): string | null {
  const from = type === "patch" ? base : before;
  return [from ?? "", after].some((commit) => /^0*$/.test(commit)) ? null : (from ?? null);
}

/**
 * The paths that differ between two commits, both names of a rename, in git's order, at most as many as a webhook tells. A name that is no UTF-8
 * cannot be told. Null when git cannot tell, because the repository does not have one of them, or not in time.
 */
export async function readChangedPaths(
  folder: string,
  from: string,
  to: string,
): Promise<Pick<Push, "paths" | "pathsTruncated"> | null> {
  const flags = ["-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=none"];
  const list = await run("git", [...gitArguments(folder), "diff-tree", ...flags, from, to, "--"], {
    env: gitVariables(),
    encoding: "buffer",
    maxBuffer: LIST_BYTES,
    timeout: COMPARE_MS,
  }).then(
    ({ stdout }) => ({ stdout, isWhole: true }),
    (error: Error & { code?: unknown; stdout?: Buffer }) =>
      error.code === "ERR_CHILD_PROCESS_STDIO_MAXBUFFER" && error.stdout !== undefined
        ? { stdout: error.stdout, isWhole: false }
        : null,
  );
  if (list === null) return null;
  const paths: string[] = [];
  let bytes = 0;
  let { isWhole } = list;
  // Every name ends with a zero byte: what stands behind the last one is nothing, or was cut.
  for (let at = 0, end = list.stdout.indexOf(0); end !== -1; at = end + 1, end = list.stdout.indexOf(0, at)) {
    const name = list.stdout.subarray(at, end);
    const path = name.toString("utf8");
    // As it is written in the webhook, where a control character takes six bytes.
    const told = bytes + Buffer.byteLength(JSON.stringify(path));
    if (!isUtf8(name) || told > LIMITS.changedPathsBytes || paths.length === LIMITS.changedPaths) {
      isWhole = false;
      continue;
    }
    bytes = told;
    paths.push(path);
  }
  return { paths, ...(isWhole ? {} : { pathsTruncated: true }) };
}
