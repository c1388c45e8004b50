import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { LIMITS, type SecretCondition, secretConditionSchema, secretNameSchema } from "@plumule/protocol";
import { type Failure, isFailure, misuse } from "./failure.ts";

/** A secret as a flag names it: with its bytes, or null for one that the namespace stores. */
export type SecretInput = { name: string; value: Uint8Array | null };

/**
 * Reads the secrets of flags: `NAME=@file`, `NAME=-` for standard input, `NAME` for a stored one. A value in the flag itself is refused.
 */
export async function readSecrets(flags: readonly string[], cwd: string): Promise<SecretInput[] | Failure> {
  const found: SecretInput[] = [];
  for (const flag of flags) {
    const at = flag.indexOf("=");
    const [name, from] = at < 0 ? [flag, null] : [flag.slice(0, at), flag.slice(at + 1)];
    const fault = secretNameSchema.safeParse(name).error?.issues[0]?.message;
    if (fault !== undefined) return misuse(`${at < 0 ? "--secret" : name} is no name of a secret`, `Give ${fault}.`);
    if (found.some((one) => one.name === name)) return misuse(`The secret ${name} is given twice`, "Give it once.");
    const value = from === null ? null : await readValue(name, from, cwd, flags);
    if (isFailure(value)) return value;
    found.push({ name, value });
  }
  return found;
}

async function readValue(
  name: string,
  from: string,
  cwd: string,
  flags: readonly string[],
): Promise<Uint8Array | Failure> {
  if (from !== "-" && !from.startsWith("@"))
    return misuse(
      `The value of ${name} stands on the command line`,
      `Every program of this machine can read it there, and your shell keeps it. Name a file: --secret ${name}=@FILE, or pipe it: --secret ${name}=-`,
    );
  if (from === "-" && flags.filter((flag) => flag.endsWith("=-")).length > 1)
    return misuse("Two secrets come from standard input", "Name a file for one of them: --secret NAME=@FILE.");
  const path = from === "-" ? "/dev/stdin" : resolve(cwd, from.slice(1));
  const value = await readFile(path).catch((error: Error) =>
    misuse(`${path} cannot be read: ${error.message}`, "Give a file that you can read."),
  );
  if (isFailure(value)) return value;
  if (value.length === 0 || value.length > LIMITS.secretBytes)
    return misuse(`The secret ${name} has ${value.length} bytes`, `Give 1 to ${LIMITS.secretBytes} bytes.`);
  return value;
}

const FACTS = ["repository", "branch", "delegate", "deployment"] as const;

/**
 * The condition that `--if` flags say: each is `FACT=VALUE`, of which one of several values separated by commas has to hold; all flags have
 * to hold. `always` asks for nothing, `@file` is a condition as JSON.
 */
export async function readCondition(flags: readonly string[], cwd: string): Promise<SecretCondition | Failure> {
  if (flags.length === 0)
    return misuse(
      "A stored secret needs a condition",
      "Say which jobs may have it, such as --if repository=rad:z… --if branch=main; --if always means every job of the namespace.",
    );
  const parts: SecretCondition[] = [];
  for (const flag of flags) {
    const part = flag.startsWith("@") ? await readConditionFile(resolve(cwd, flag.slice(1))) : parseCondition(flag);
    if (isFailure(part)) return part;
    parts.push(part);
  }
  const has = (fact: (typeof FACTS)[number]): boolean => flags.some((flag) => flag.startsWith(`${fact}=`));
  if (has("branch") && !has("repository"))
    return misuse(
      "The condition names a branch of no repository",
      "Anybody can make a repository with that branch: add --if repository=rad:z….",
    );
  const [only, ...rest] = parts;
  return only !== undefined && rest.length === 0 ? only : { and: parts };
}

function parseCondition(flag: string): SecretCondition | Failure {
  if (flag === "always") return { and: [] };
  const at = flag.indexOf("=");
  const [fact, values] = [flag.slice(0, at), flag.slice(at + 1).split(",")];
  const parsed = values.map((value) => secretConditionSchema.safeParse({ [fact]: value }));
  const conditions = parsed.flatMap(({ data }) => (data === undefined ? [] : [data]));
  if (at < 1 || !(FACTS as readonly string[]).includes(fact) || conditions.length !== values.length)
    return misuse(
      `--if ${flag} is no condition`,
      "Give repository=URL, branch=NAME, delegate=DID:KEY or deployment=NAME; several values are separated by commas.",
    );
  const [only, ...rest] = conditions;
  return only !== undefined && rest.length === 0 ? only : { or: conditions };
}

async function readConditionFile(path: string): Promise<SecretCondition | Failure> {
  try {
    const parsed = secretConditionSchema.safeParse(JSON.parse(await readFile(path, "utf8")));
    if (parsed.success) return parsed.data;
    return misuse(`${path} holds no condition`, "See docs/secrets.md for its form.");
  } catch (error) {
    return misuse(`${path} cannot be read: ${(error as Error).message}`, "Give a JSON file.");
  }
}
