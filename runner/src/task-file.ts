import { lstat, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { installableSchema, LIMITS, type Task } from "@plumule/protocol";
import * as YAML from "yaml";
import * as z from "zod";

/** One thing to do in a checkout. `flake`: whatever checks and default package the flake offers. */
export type Step = { name: string; task: Exclude<Task, { kind: "repository" }> | { kind: "flake" } };

/** The work that a repository describes for itself: steps in order, and where they were found. */
export type RepositorySteps = { found: ".radicle/plumule.yaml" | ".radicle/native.yaml" | "flake.nix"; steps: Step[] };

/** Why a repository's description cannot be used, for a person. */
export type TaskFileRefusal = { refused: "task-invalid" | "nothing-to-do"; detail: string };

/** Largest task file read, bytes: it is written by hand. */
const TASK_FILE_BYTES = 256 * 1024;

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "1 to 63 of a-z, 0-9 and hyphens");
const jobSchema = z.union([
  z.strictObject({
    shell: z.string().min(1).max(LIMITS.scriptCharacters),
    develop: installableSchema.optional(),
    packages: z.array(installableSchema).min(1).max(64).optional(),
  }),
  z.strictObject({ build: z.union([installableSchema, z.array(installableSchema).min(1).max(64)]) }),
]);
/** `.radicle/plumule.yaml`: `jobs` by name, each a `shell` script or a `build` of installables, run in the order of the file. */
const plumuleFileSchema = z.strictObject({
  version: z.literal(1).optional(),
  jobs: z.record(name, jobSchema).refine((jobs) => Object.keys(jobs).length > 0, "at least one job"),
});
/** `.radicle/native.yaml` of radicle-native-ci: one key `shell` with a Bash snippet. */
const nativeFileSchema = z.looseObject({ shell: z.string().min(1).max(LIMITS.scriptCharacters) });

/**
 * What to do for a checkout: its `.radicle/plumule.yaml`, else `.radicle/native.yaml`, else what its flake offers. `wanted` picks one job
 * by name.
 */
export async function readRepositorySteps(
  checkout: string,
  wanted: string | undefined,
): Promise<RepositorySteps | TaskFileRefusal> {
  const plumule = await readYaml(checkout, ".radicle/plumule.yaml", plumuleFileSchema);
  if (plumule !== null)
    return "refused" in plumule
      ? plumule
      : pick(
          ".radicle/plumule.yaml",
          Object.entries(plumule.content.jobs).map(([job, one]) => ({ name: job, task: taskOf(one) })),
          wanted,
        );
  const native = await readYaml(checkout, ".radicle/native.yaml", nativeFileSchema);
  if (native !== null)
    return "refused" in native
      ? native
      : pick(
          ".radicle/native.yaml",
          [{ name: "native", task: { kind: "shell", script: native.content.shell } }],
          wanted,
        );
  const flake = await stat(join(checkout, "flake.nix")).catch(() => null);
  if (flake === null)
    return {
      refused: "nothing-to-do",
      detail:
        "The commit has no .radicle/plumule.yaml, no .radicle/native.yaml and no flake.nix, so there is nothing to run.",
    };
  return pick("flake.nix", [{ name: "flake", task: { kind: "flake" } }], wanted);
}

/** All that a step may say which a stranger wrote: what to run, never with what rights. */
const STRANGERS_FIELDS: readonly string[] = ["kind", "script", "develop", "packages", "installables"];

/**
 * Why a step is not run for a stranger, or null. The file at the commit is theirs: it says what is built and tested, which was approved
 * with the commit. Secrets, effects, locks, isolation, pool and time come from the rule and the runner alone.
 */
export function strangersFault({ name, task }: Step): string | null {
  if (task.kind === "effect") return `${name}: an effect is not run for a stranger.`;
  const field = Object.keys(task).find((one) => !STRANGERS_FIELDS.includes(one));
  return field === undefined ? null : `${name}: \`${field}\` is not given to the commit of a stranger.`;
}

function taskOf(job: z.output<typeof jobSchema>): Step["task"] {
  if ("build" in job)
    return { kind: "nix-build", installables: typeof job.build === "string" ? [job.build] : job.build };
  return {
    kind: "shell",
    script: job.shell,
    ...(job.develop === undefined ? {} : { develop: job.develop }),
    ...(job.packages === undefined ? {} : { packages: job.packages }),
  };
}

function pick(
  found: RepositorySteps["found"],
  steps: Step[],
  wanted: string | undefined,
): RepositorySteps | TaskFileRefusal {
  if (wanted === undefined) return { found, steps };
  const one = steps.find((step) => step.name === wanted);
  if (one === undefined)
    return {
      refused: "task-invalid",
      detail: `${found} has no job \`${wanted}\`; it has ${steps.map((step) => step.name).join(", ")}.`,
    };
  return { found, steps: [one] };
}

/** Null when the file is not there. A link is not followed: it could lead out of the checkout. */
async function readYaml<S extends z.ZodType>(
  checkout: string,
  path: string,
  schema: S,
): Promise<{ content: z.output<S> } | TaskFileRefusal | null> {
  const file = await lstat(join(checkout, path)).catch(() => null);
  if (file === null) return null;
  if (!file.isFile()) return invalid(path, "it is not a plain file");
  if (file.size > TASK_FILE_BYTES) return invalid(path, `it is longer than ${TASK_FILE_BYTES} bytes`);
  const document = YAML.parseDocument(await readFile(join(checkout, path), "utf8"), { prettyErrors: true });
  const fault = document.errors[0];
  if (fault !== undefined) return invalid(path, fault.message);
  const content = unfold(document);
  if (content instanceof Error) return invalid(path, content.message);
  const parsed = schema.safeParse(content);
  if (parsed.success) return { content: parsed.data };
  const issue = parsed.error.issues[0];
  return invalid(
    path,
    `${issue === undefined || issue.path.length === 0 ? "the document" : issue.path.join(".")}: ${issue?.message ?? "not valid"}`,
  );
}

/** The library throws when aliases would unfold a small file into a large document. */
function unfold(document: YAML.Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function invalid(path: string, detail: string): TaskFileRefusal {
  return { refused: "task-invalid", detail: `${path} cannot be used: ${detail}`.slice(0, LIMITS.textCharacters) };
}
