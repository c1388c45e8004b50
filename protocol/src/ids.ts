import * as z from "zod";
import { toHex } from "./bytes.ts";

/** A tenant's name: lower case, digits and hyphens, so that it can stand in a path, a host name and an object name. */
export const namespaceIdSchema = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, "1 to 63 of a-z, 0-9 and inner hyphens");
export type NamespaceId = z.output<typeof namespaceIdSchema>;

/** A deployment's name inside its namespace. Never `.` or `..`, never a leading hyphen: it stands in paths and argv. */
export const deploymentIdSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/,
    "1 to 128 of A-Z, a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit",
  );
export type DeploymentId = z.output<typeof deploymentIdSchema>;

/** The name of a pool inside its namespace. */
export const poolNameSchema = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, "1 to 63 of a-z, 0-9 and inner hyphens");
export type PoolName = z.output<typeof poolNameSchema>;

/**
 * A job: UUIDv7 (RFC 9562) whose 12-bit `rand_a` field is zero.
 * The field is the attempt counter of the job's runs, so that a run names its job without an index.
 */
export const jobIdSchema = z
  .string()
  .regex(
    /^[0-9a-f]{8}-[0-9a-f]{4}-7000-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    "a job id (UUIDv7 with an attempt field of 000)",
  );
export type JobId = z.output<typeof jobIdSchema>;

/** A run: the job's UUID with the attempt (1 to 4095) in `rand_a`. The radicle-job run id. */
export const runIdSchema = z
  .string()
  .regex(
    /^[0-9a-f]{8}-[0-9a-f]{4}-7(?!000)[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    "a run id (UUIDv7 with an attempt field above 000)",
  );
export type RunId = z.output<typeof runIdSchema>;

/** A runner: `did:key` of its Ed25519 key. Only the shape is checked here; admission of the key is `admitKey`. */
export const runnerIdSchema = z
  .string()
  .regex(/^did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{44}$/, "a did:key of an Ed25519 key (did:key:z6Mk…)");
export type RunnerId = z.output<typeof runnerIdSchema>;

/** A git commit id, SHA-1 or SHA-256, lower-case hex. */
export const commitSchema = z
  .string()
  .regex(/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/, "a full commit id of 40 or 64 lower-case hex digits");

/** A git ref that may be named in a job; no component may start with `-` or `.`, or end in `.lock`. */
export const refSchema = z
  .string()
  .max(255)
  .regex(
    /^refs\/(?:heads|tags|patches)(?:\/(?![-.])(?:(?!\.\.|\.lock(?:\/|$))[A-Za-z0-9._+@=-])+)+$/,
    "a ref below refs/heads, refs/tags or refs/patches",
  );

/** A UUID of any version, lower case. */
export const uuidSchema = z
  .string()
  .regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/, "a lower-case UUID");

/** Lower-case hex SHA-256. */
export const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/, "64 lower-case hex digits");

/** An RFC 3339 time in UTC with milliseconds, as the broker writes it. */
export const timeSchema = z.iso.datetime();

/** Integer milliseconds since the Unix epoch; what the objects store. */
export type Millis = number;

/** The wire form of a time. */
export function formatTime(at: Millis): string {
  return new Date(at).toISOString();
}

/** The wire form of a time that may not have come yet. */
export function formatTimeOrNull(at: Millis | null): string | null {
  return at === null ? null : formatTime(at);
}

/**
 * A job id from the time and eight random bytes (62 bits of them are used).
 * Time first, so that ids sort by creation; the caller brings the randomness, so that cores stay pure.
 */
export function makeJobId(now: Millis, random: Uint8Array): JobId {
  if (random.length !== 8) throw new RangeError("a job id needs 8 random bytes");
  const time = now.toString(16).padStart(12, "0");
  const tail = Uint8Array.from(random);
  tail.set([((random.at(0) ?? 0) & 0x3f) | 0x80]);
  const digits = toHex(tail);
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-${digits.slice(0, 4)}-${digits.slice(4)}`;
}

/** The id of a job's n-th run, n from 1 to 4095. */
export function runIdOf(job: JobId, attempt: number): RunId {
  if (!Number.isInteger(attempt) || attempt < 1 || attempt > 0xfff) throw new RangeError("an attempt is 1 to 4095");
  return `${job.slice(0, 15)}${attempt.toString(16).padStart(3, "0")}${job.slice(18)}`;
}

/** The job that a run belongs to. */
export function jobOfRun(run: RunId): JobId {
  return `${run.slice(0, 15)}000${run.slice(18)}`;
}

/** Which attempt of its job a run is, from 1. */
export function attemptOfRun(run: RunId): number {
  return Number.parseInt(run.slice(15, 18), 16);
}

/** When a job was made, from its id. */
export function jobCreatedAt(job: JobId): Millis {
  return Number.parseInt(job.slice(0, 8) + job.slice(9, 13), 16);
}

/** A sequence as events carry it: 16 decimal digits, so that text order is number order (CloudEvents sequence extension). */
export function formatSequence(sequence: number): string {
  return sequence.toString().padStart(16, "0");
}
