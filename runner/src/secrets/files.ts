import { createHash } from "node:crypto";
import { lstatSync, statfsSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseUtf8, runIdSchema } from "@plumule/protocol";

/** Where a runner has its age identity, and the folder in memory for opened secrets; null when it has none and may not use the disk. */
export type SecretPlaces = { identity: string; folder: string | null };

/** Opened secrets by name. */
export type OpenedSecrets = Readonly<Record<string, Uint8Array>>;

/** File systems that live in memory (linux/magic.h): tmpfs and ramfs. */
const MEMORY_TYPES = [0x01021994, 0x858458f6];

/**
 * The folder in memory where one runner puts opened secrets, below the first of the places that is a tmpfs; null when none is. Its name
 * comes from the runner's state folder, so that the runner finds it again after a crash, and two runners never share one.
 */
export function memoryFolder(state: string, places: readonly string[] = memoryPlaces()): string | null {
  const place = places.find(isInMemory);
  if (place === undefined) return null;
  return join(place, `plumule-${createHash("sha256").update(state).digest("hex").slice(0, 16)}`);
}

function memoryPlaces(): string[] {
  return ["/dev/shm", `/run/user/${process.getuid?.() ?? "none"}`];
}

function isInMemory(path: string): boolean {
  try {
    return MEMORY_TYPES.includes(statfsSync(path).type >>> 0);
  } catch {
    return false;
  }
}

/** Where a run's secrets lie: a folder with a file for each, and all of them as one file in the form of Hercules. */
export type SecretPaths = { folder: string; hercules: string };

/**
 * Writes the secrets of a run for its user alone; `hercules` is what goes into the one file. Rejects when the folder cannot be made or belongs to
 * somebody else: its parent is open to everybody.
 */
export async function writeSecretFiles(
  root: string,
  run: string,
  secrets: OpenedSecrets,
  hercules: unknown = herculesSecrets(secrets),
): Promise<SecretPaths> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  const status = lstatSync(root);
  if (!status.isDirectory() || status.uid !== process.getuid?.() || (status.mode & 0o077) !== 0)
    throw new Error(`${root} is not this runner's own folder`);
  const own = runFolder(root, run);
  const paths: SecretPaths = { folder: join(own, "secrets"), hercules: join(own, "secrets.json") };
  // Made anew: whatever lies there is of a run that a crash has ended.
  await rm(own, { recursive: true, force: true });
  await mkdir(own, { mode: 0o700 });
  await mkdir(paths.folder, { mode: 0o700 });
  for (const [name, value] of Object.entries(secrets))
    await writeFile(join(paths.folder, name), value, { mode: 0o400, flag: "wx" });
  await writeFile(paths.hercules, JSON.stringify(hercules), { mode: 0o400, flag: "wx" });
  return paths;
}

/** Removes a run's secrets; nothing when there are none. */
export async function removeSecretFiles(root: string, run: string): Promise<void> {
  await rm(runFolder(root, run), { recursive: true, force: true });
}

/** Removes what was left behind by runs that are not at work any more. */
export async function sweepSecretFiles(root: string, isAtWork: (run: string) => boolean): Promise<void> {
  const left = (await readdir(root).catch(() => [])).filter((name) => runIdSchema.safeParse(name).success);
  for (const run of left) if (!isAtWork(run)) await removeSecretFiles(root, run);
}

function runFolder(root: string, run: string): string {
  if (!runIdSchema.safeParse(run).success) throw new RangeError(`not a run id: ${run}`);
  return join(root, run);
}

/** What stands in the file at `$HERCULES_CI_SECRETS_JSON` (hercules-ci-agent, Secrets.hs): `{ name: { "data": { … } } }`. */
function herculesSecrets(secrets: OpenedSecrets): unknown {
  return Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, { data: herculesData(value) }]));
}

/** A secret as Hercules has it: one that is a JSON object is the data itself; any other text is its field `value`, and what is no text `base64`. */
export function herculesData(value: Uint8Array): Record<string, unknown> {
  const text = parseUtf8(value);
  if (text === null) return { base64: Buffer.from(value).toString("base64") };
  try {
    const data: unknown = JSON.parse(text);
    if (typeof data === "object" && data !== null && !Array.isArray(data)) return data as Record<string, unknown>;
  } catch {
    // Not JSON: the text itself.
  }
  return { value: text };
}
