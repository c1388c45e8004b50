import { LIMITS } from "@plumule/protocol";
import * as z from "zod";
import { WORKSPACE_ID } from "../workspace/provider.ts";

/** Serializers of many languages write `null` for what is not given, as Derrick's does. */
function optional<T extends z.ZodType>(schema: T): z.ZodType<z.output<T> | undefined> {
  return schema.nullish().transform((value) => value ?? undefined);
}

const path = z.string().min(1).max(4_096);

const environment = z
  .record(z.string().max(LIMITS.nameCharacters), z.string().max(LIMITS.environmentCharacters))
  .refine((env) => Object.keys(env).length <= LIMITS.environmentCount, {
    message: `at most ${LIMITS.environmentCount} variables`,
  });

const command = {
  /** A text for `bash -c`, or a program and its arguments. */
  cmd: z.union(
    [
      z.string().min(1).max(LIMITS.scriptCharacters),
      z.array(z.string().max(LIMITS.scriptCharacters)).min(1).max(LIMITS.arrayItems),
    ],
    `a text for bash, or a list of a program and its arguments; at most ${LIMITS.scriptCharacters} characters each`,
  ),
  /** Folder to start in, from the root of the workspace. */
  working_dir: optional(path),
  env: optional(environment),
  /** The longest run, seconds. */
  timeout: optional(
    z
      .number()
      .positive()
      .max(LIMITS.runMaxMs / 1000),
  ),
  /** Text for standard input. */
  stdin: optional(z.string()),
};

/** `setup`: what is given to the workspace besides its configuration. */
export const setupBodySchema = z.strictObject({
  id: optional(z.string().regex(WORKSPACE_ID, "lower-case letters, digits and hyphens, at most 63")),
  env: optional(environment),
});

/** `cmd` and `cmd_with_output`. */
export const commandBodySchema = z.strictObject(command);
export type CommandBody = z.output<typeof commandBodySchema>;

/** `exec`: a command whose output is streamed. */
export const execBodySchema = z.strictObject({
  ...command,
  /** Standard output and error as two streams, which do not keep their order between them. */
  split: optional(z.boolean()),
  /** Output as base64 instead of as text, in which bytes that are not UTF-8 are replaced. */
  binary: optional(z.boolean()),
});

/** `stop`: a command that `exec` has started. */
export const stopBodySchema = z.strictObject({
  command: z.uuid(),
  /** Without the grace in which it may end itself. */
  kill: optional(z.boolean()),
});

/** `read_file`. */
export const readFileBodySchema = z.strictObject({ path, working_dir: optional(path) });

/** `write_file`: a whole file, in base64. */
export const writeFileBodySchema = z.strictObject({
  path,
  working_dir: optional(path),
  content: z.base64(),
});

/** A request without a body of its own. */
export const noBodySchema = z.strictObject({});
