import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fieldErrors, runnerIdSchema, timeSchema, type TrustPolicy, trustPolicySchema } from "@plumule/protocol";
import { configFolder } from "./connection.ts";
import { type Failure, misuse } from "./failure.ts";

/** A key that the reader decided to believe, with the name they know it by. */
export type PinnedKey = { key: string; name: string | null; pinnedAt: string };

type Env = Readonly<Record<string, string | undefined>>;

/** Where pinned keys are kept: on the reader's own disk, since a list that the broker keeps would prove nothing against it. */
export function trustFile(env: Env): string {
  return join(configFolder(env), "trust.json");
}

/** Reads the pinned keys; none when there is no file yet. A file that does not fit is a failure: silence would look like "not pinned". */
export async function readPinned(env: Env): Promise<PinnedKey[] | Failure> {
  const path = trustFile(env);
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (text === null) return [];
  try {
    const { keys } = JSON.parse(text) as { keys?: unknown };
    if (Array.isArray(keys) && keys.every(isPinnedKey)) return keys;
  } catch {
    // Said below.
  }
  return misuse(
    `${path} does not hold keys`,
    "Correct it, or move it away and pin your keys again: `plumule key trust`.",
  );
}

/** Keeps the pinned keys, whole or not at all. */
export async function writePinned(env: Env, keys: readonly PinnedKey[]): Promise<void> {
  const path = trustFile(env);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFile(`${path}.unfinished`, `${JSON.stringify({ keys }, null, 2)}\n`, { mode: 0o600 });
  await rename(`${path}.unfinished`, path);
}

/** Reads a trust policy of the reader's own. */
export async function readPolicy(file: string, cwd: string): Promise<TrustPolicy | Failure> {
  const text = await readFile(resolve(cwd, file), "utf8").catch(() => null);
  if (text === null)
    return misuse(`There is no file ${file}`, "Save one first: curl …/v1/NAMESPACE/trust > trust.json.");
  try {
    const parsed = trustPolicySchema.safeParse(JSON.parse(text));
    if (parsed.success) return parsed.data;
    return misuse(`${file} is no trust policy`, "Correct it.", fieldErrors(parsed.error));
  } catch {
    return misuse(`${file} is no JSON`, "Give a trust policy as JSON.");
  }
}

function isPinnedKey(value: unknown): value is PinnedKey {
  if (typeof value !== "object" || value === null) return false;
  const { key, name, pinnedAt } = value as Partial<Record<keyof PinnedKey, unknown>>;
  const named = name === null || typeof name === "string";
  return runnerIdSchema.safeParse(key).success && named && timeSchema.safeParse(pinnedAt).success;
}
