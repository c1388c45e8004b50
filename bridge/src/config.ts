import { execFile } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { accepted, namespaceIdSchema, refused, repositoryUrlSchema, type Result } from "@plumule/protocol";
import * as z from "zod";

const run = promisify(execFile);

/** What a repository's hook needs to know. `queue` is a folder, `key` a file; both are absolute. */
export const hookConfigSchema = z.object({
  /** Origin of the broker. */
  url: z.url({ protocol: /^https?$/ }).transform((url) => url.replace(/\/+$/, "")),
  namespace: namespaceIdSchema,
  /** Id of the hook in the namespace's settings, whose keys must hold this one. */
  hook: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/),
  key: z.string().startsWith("/"),
  /** How runners reach this repository, and its name in trigger rules. */
  repository: repositoryUrlSchema,
  queue: z.string().startsWith("/"),
});
export type HookConfig = z.output<typeof hookConfigSchema>;

const FIELDS = ["url", "namespace", "hook", "key", "repository", "queue"] as const;

/**
 * The configuration of the repository at `gitDirectory`: `plumule.url`, `.namespace`, `.hook`, `.key`, `.repository` and `.queue` of git's own
 * configuration, each overridden by `PLUMULE_URL` and so on. By default the hook is called `git`, the repository is the
 * `file:` URL of its folder and the queue lies in it.
 */
export async function readHookConfig(
  gitDirectory: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Result<HookConfig, "not-configured">> {
  const fromGit = await readGitConfig(gitDirectory);
  const defaults: Partial<Record<string, string>> = {
    hook: "git",
    repository: pathToFileURL(gitDirectory).href,
    queue: join(gitDirectory, "plumule"),
  };
  const parsed = hookConfigSchema.safeParse(
    Object.fromEntries(
      FIELDS.map((name) => [name, env[`PLUMULE_${name.toUpperCase()}`] ?? fromGit.get(name) ?? defaults[name]]),
    ),
  );
  if (parsed.success) return accepted(parsed.data);
  const [issue] = parsed.error.issues;
  const name = String(issue?.path[0]);
  return refused("not-configured", `plumule.${name}: ${issue?.message}; set it with \`git config plumule.${name} …\``);
}

async function readGitConfig(gitDirectory: string): Promise<Map<string, string>> {
  // Exit code 1 says that nothing is set.
  const { stdout } = await run("git", ["--git-dir", gitDirectory, "config", "-z", "--get-regexp", "^plumule\\."]).catch(
    () => ({ stdout: "" }),
  );
  return new Map(
    stdout.split("\0").flatMap((entry) => {
      const [key = "", ...value] = entry.split("\n");
      return key.startsWith("plumule.") ? [[key.slice("plumule.".length), value.join("\n")] as const] : [];
    }),
  );
}
