import * as z from "zod";
import { herculesData, type OpenedSecrets } from "../secrets/files.ts";

/** Under this name an effect finds the token for its state files. */
export const TASK_TOKEN = "hercules-ci";

const secretsMapSchema = z.record(z.string(), z.union([z.string(), z.object({ type: z.literal("GitToken") })]));

/** What an effect may ask for: everything without a map; else what the map names, under the names that it gives. */
export type SecretsMap = z.output<typeof secretsMapSchema> | null;

/** Reads the map of an effect's environment: `secretsMap`, or `secretsToUse` as it was called before. */
export function readSecretsMap(env: Readonly<Record<string, string>>): { map: SecretsMap } | { refused: string } {
  const text = env["secretsMap"] ?? env["secretsToUse"] ?? "";
  if (text === "") return { map: null };
  try {
    const parsed = secretsMapSchema.safeParse(JSON.parse(text));
    if (parsed.success) return { map: parsed.data };
  } catch {
    // Not JSON.
  }
  return { refused: 'secretsMap has to be JSON such as { "ssh": "deploy-key", "git": { "type": "GitToken" } }' };
}

/**
 * The content of an effect's secrets.json (hercules-ci-agent, Secrets.hs): `{ name: { "data": { … } } }`. A `GitToken` is the secret of its own
 * name in the map: here is no forge that could give one. Null when one that the map asks for is missing.
 */
export function secretsForEffect(
  secrets: OpenedSecrets,
  map: SecretsMap,
  token: string,
): Record<string, { data: unknown }> | null {
  const own = { [TASK_TOKEN]: { data: { token } } };
  if (map === null)
    return {
      ...Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, { data: herculesData(value) }])),
      ...own,
    };
  const entries = Object.entries(map).map(([name, wanted]) => {
    const value = secrets[typeof wanted === "string" ? wanted : name];
    if (value === undefined) return null;
    const data = herculesData(value);
    const text = data["value"];
    return [
      name,
      { data: typeof wanted !== "string" && typeof text === "string" ? { token: text.trim() } : data },
    ] as const;
  });
  const found = entries.filter((entry) => entry !== null);
  return found.length < entries.length ? null : { ...Object.fromEntries(found), ...own };
}
