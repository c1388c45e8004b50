import { readFile } from "node:fs/promises";
import { posix } from "node:path";
import { fieldErrors, LIMITS } from "@plumule/protocol";
import * as z from "zod";
import { admitUrl, type Credential } from "../git.ts";
import { refuseWorkspace, type WorkspaceRefusal } from "./provider.ts";

/** A repository of a workspace. */
export interface WorkspaceRepository {
  /** Without credentials, in the form that git understands. */
  url: string;
  /** What the URL held of credentials; used by the provider alone. */
  credential: Credential | null;
  /** Where it goes, relative to the root of the workspace; `.` is the root. */
  path: string;
  /** Branch, tag, full ref or commit id to check out; null for the repository's default branch. */
  reference: string | null;
}

/** What a workspace is made of. */
export interface WorkspaceConfig {
  name: string;
  repositories: WorkspaceRepository[];
  /** What `bash` runs, once the repositories are there, in the root of the workspace; null for nothing. */
  setupScript: string | null;
}

/** What git would take for an option, a range or another syntax than a name (git-check-ref-format(1)). */
const REFERENCE = /^(?![-/.@])(?!.*(?:\.\.|\/\/|\/\.|@\{))[^\s\p{Cc}~^:?*[\\]{1,255}(?<![/.]|\.lock)$/u;

const repositorySchema = z.object({
  url: z.string().transform((url, context) => {
    const { plain, credential } = withoutCredential(url);
    const admitted = admitUrl(plain, { allowLocal: true });
    if (!("refused" in admitted)) return { url: admitted.url, credential };
    context.addIssue({ code: "custom", message: admitted.refused });
    return z.NEVER;
  }),
  path: z.string().transform((path, context) => {
    // An absolute path begins at the root of the workspace, as for its commands.
    const inside = posix.normalize(`./${path}`).replace(/(?<=.)\/$/, "");
    const parts = inside.split("/");
    const isFine = path !== "" && !path.includes("\0") && !parts.some((part) => part === ".." || part === ".git");
    if (isFine) return inside;
    context.addIssue({ code: "custom", message: "a path inside the workspace is needed, without .git" });
    return z.NEVER;
  }),
  reference: z
    .string()
    .regex(REFERENCE, "a branch, a tag, a full ref or a commit id is needed")
    .nullish()
    .transform((reference) => reference ?? null),
});

/**
 * The configuration file of a workspace: `{ "name", "repositories": [{ "url", "path", "reference"? }], "setup_script" }`, the format of Derrick's
 * workspace provider. Keys that are not known are ignored, as there.
 */
export const workspaceConfigSchema = z
  .object({
    name: z.string().min(1).max(LIMITS.nameCharacters),
    repositories: z.array(repositorySchema).max(LIMITS.workspaceRepositories).default([]),
    setup_script: z.string().max(LIMITS.scriptCharacters).nullish(),
  })
  .transform(({ name, repositories, setup_script: script }, context): WorkspaceConfig => {
    for (const [index, { path }] of repositories.entries()) {
      const other = repositories.findIndex((repository) => overlaps(repository.path, path));
      if (other >= index) continue;
      const message = `overlaps with the path of repository ${other}: each needs a folder of its own`;
      context.addIssue({ code: "custom", message, path: ["repositories", index, "path"] });
    }
    return {
      name,
      repositories: repositories.map(({ url, ...rest }) => ({ ...url, ...rest })),
      setupScript: script === undefined || script === null || script.trim() === "" ? null : script,
    };
  });

/** Parses the text of a configuration file. `detail` names each wrong value by its JSON pointer, and never holds a credential. */
export function parseWorkspaceConfig(text: string): WorkspaceConfig | WorkspaceRefusal {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return refuseWorkspace("invalid", `the configuration is no JSON: ${(error as Error).message.slice(0, 200)}`);
  }
  const parsed = workspaceConfigSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const faults = fieldErrors(parsed.error).map(({ pointer, detail }) => `${pointer || "/"}: ${detail}`);
  return refuseWorkspace("invalid", `the configuration is not valid: ${faults.join("; ")}`);
}

/** Reads a configuration file. */
export async function readWorkspaceConfig(path: string): Promise<WorkspaceConfig | WorkspaceRefusal> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => error);
  if (text instanceof Error) return refuseWorkspace("invalid", `${path} cannot be read: ${text.code ?? text.message}`);
  return parseWorkspaceConfig(text);
}

function withoutCredential(url: string): { plain: string; credential: Credential | null } {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed?.protocol !== "https:" || (parsed.username === "" && parsed.password === ""))
    return { plain: url, credential: null };
  const credential = { username: decoded(parsed.username), password: decoded(parsed.password) };
  parsed.username = "";
  parsed.password = "";
  return { plain: parsed.href, credential };
}

/** A token may hold a per cent sign that begins no escape. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function overlaps(a: string, b: string): boolean {
  return a === "." || b === "." || a === b || a.startsWith(`${b}/`) || b.startsWith(`${a}/`);
}
