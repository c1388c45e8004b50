import * as z from "zod";
import { parseBase64 } from "./bytes.ts";
import {
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  runIdSchema,
  runnerIdSchema,
  sha256Schema,
  timeSchema,
} from "./ids.ts";
import { type Expansion, expansionSchema } from "./expansion.ts";
import { LIMITS } from "./limits.ts";
import { outcomeSchema } from "./run.ts";
import type { Result } from "./result.ts";
import { type StatedSchedule, statedScheduleSchema } from "./schedules.ts";
import {
  draftStatement,
  STATEMENT_TYPE,
  type StatementDraft,
  type StatementRefusal,
  statementPath,
  statementSchema,
  statementWord,
  subjectSchema,
} from "./statements.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

export const JOB_RESULT_PREDICATE_TYPE = "https://plumule.dev/job-result/v1";

/** An output as a result names it; `narHash` is the lower-case hex SHA-256 of the NAR, `narSize` its bytes. */
export const statedOutputSchema = z.looseObject({
  name: statementWord,
  path: statementPath,
  narHash: sha256Schema,
  narSize: z.int().min(0),
});
export type StatedOutput = z.output<typeof statedOutputSchema>;
/** What must be equal for two outputs to be the same. */
export type OutputContent = Pick<StatedOutput, "name" | "path" | "narHash" | "narSize">;

/** What ran the job. `isolation` is null when nothing was run. */
const runnerSchema = z.looseObject({
  did: runnerIdSchema,
  version: statementWord,
  isolation: statementWord.nullable(),
  system: statementWord,
  nix: statementWord.optional(),
  /** The job was a stranger's. */
  untrusted: z.boolean().optional(),
});

/**
 * What a runner says about one run, in the spirit of in-toto's test-result: exit code, lease and log stand in the signed bytes. Namespace,
 * deployment, job, run and epoch bind it to one lease, so that a copy is no result of another job. A run that its runner gave itself had no lease: its
 * epoch is 0, which no lease has, and its `identity` says which work it did (`jobIdentity`). A persisted contract: fields may be added, never changed.
 */
export const jobResultPredicateSchema = z.looseObject({
  namespace: namespaceIdSchema,
  deployment: deploymentIdSchema,
  job: jobIdSchema,
  run: runIdSchema,
  epoch: z.int().min(0),
  identity: sha256Schema.optional(),
  kind: statementWord,
  result: outcomeSchema,
  exitCode: z.int().nullable(),
  reason: z.looseObject({ code: statementWord, detail: z.string().max(2_000) }).nullable(),
  taskSha256: sha256Schema,
  configurationSha256: sha256Schema.nullable(),
  startedAt: timeSchema,
  finishedAt: timeSchema,
  runner: runnerSchema,
  log: z.looseObject({ sha256: sha256Schema, bytes: z.int().min(0), truncated: z.boolean() }),
  outputs: z.array(statedOutputSchema).max(TRUST_LIMITS.subjects),
  flakeLockSha256: sha256Schema.optional(),
  /** What an effect with a plan came to: the plan that was made, with its text, or the approved one that the run had. `sha256` is that of the text. */
  plan: z.looseObject({ sha256: sha256Schema, text: z.string().max(LIMITS.planBytes).optional() }).optional(),
  /** The schedules of the task file for the branch, of a run of all of it that ended well. */
  schedules: z.array(statedScheduleSchema).max(LIMITS.taskFileSchedules).optional(),
  /** What the run has read in a task file whose jobs become jobs of the lane. */
  expansion: expansionSchema.optional(),
});
export type StatedPlan = NonNullable<z.output<typeof jobResultPredicateSchema>["plan"]>;
export type JobResultPredicate = z.output<typeof jobResultPredicateSchema>;

/** A job result: exactly one subject, the commit, or the task where a job has no commit. */
export const jobResultSchema = statementSchema.extend({
  subject: z.tuple([subjectSchema]),
  predicateType: z.literal(JOB_RESULT_PREDICATE_TYPE),
  predicate: jobResultPredicateSchema.refine(({ epoch, identity }) => (epoch === 0) === (identity !== undefined), {
    path: ["identity"],
    message: "stands where there was no lease (epoch 0), and nowhere else",
  }),
});
export type JobResult = z.output<typeof jobResultSchema>;

/** What a runner knows when a run ends. Times are RFC 3339 in UTC; `source` is null for a job without a repository. */
export type JobResultInput = {
  source: { repository: string; commit: string } | null;
  namespace: string;
  deployment: string;
  job: string;
  run: string;
  /** 0 for a run without a lease, which then has an identity. */
  epoch: number;
  identity?: string | undefined;
  kind: string;
  result: JobResultPredicate["result"];
  exitCode: number | null;
  reason: { code: string; detail: string } | null;
  taskSha256: string;
  configurationSha256: string | null;
  startedAt: string;
  finishedAt: string;
  runner: {
    did: string;
    version: string;
    isolation: string | null;
    system: string;
    nix?: string | undefined;
    untrusted?: boolean | undefined;
  };
  log: { sha256: string; bytes: number; truncated: boolean };
  outputs: readonly OutputContent[];
  flakeLockSha256?: string | undefined;
  plan?: { sha256: string; text?: string | undefined } | undefined;
  schedules?: readonly StatedSchedule[] | undefined;
  expansion?: Expansion | undefined;
};

/** The statement of a run's end, about the commit (`gitCommit`) or else about the task (`sha256` of its digest), with the bytes to sign. */
export function draftJobResult(input: JobResultInput): Result<StatementDraft<JobResult>, StatementRefusal> {
  const { source, runner, reason } = input;
  const subject =
    source === null
      ? { name: "task", digest: { sha256: input.taskSha256 } }
      : { name: source.repository, digest: { gitCommit: source.commit } };
  return draftStatement(jobResultSchema, {
    _type: STATEMENT_TYPE,
    subject: [subject],
    predicateType: JOB_RESULT_PREDICATE_TYPE,
    predicate: {
      namespace: input.namespace,
      deployment: input.deployment,
      job: input.job,
      run: input.run,
      epoch: input.epoch,
      ...(input.identity === undefined ? {} : { identity: input.identity }),
      kind: input.kind,
      result: input.result,
      exitCode: input.exitCode,
      // Text from a build may hold half of a surrogate pair, which verifiers refuse.
      reason: reason === null ? null : { code: reason.code, detail: reason.detail.toWellFormed() },
      taskSha256: input.taskSha256,
      configurationSha256: input.configurationSha256,
      startedAt: input.startedAt,
      finishedAt: input.finishedAt,
      runner: {
        did: runner.did,
        version: runner.version,
        isolation: runner.isolation,
        system: runner.system,
        ...(runner.nix === undefined ? {} : { nix: runner.nix }),
        ...(runner.untrusted === true ? { untrusted: true } : {}),
      },
      log: { sha256: input.log.sha256, bytes: input.log.bytes, truncated: input.log.truncated },
      outputs: input.outputs.map(({ name, path, narHash, narSize }) => ({ name, path, narHash, narSize })),
      ...(input.flakeLockSha256 === undefined ? {} : { flakeLockSha256: input.flakeLockSha256 }),
      ...(input.plan === undefined ? {} : { plan: input.plan }),
      ...(input.schedules === undefined
        ? {}
        : { schedules: input.schedules.map(({ name, cron }) => ({ name, cron })) }),
      ...(input.expansion === undefined ? {} : { expansion: input.expansion }),
    },
  });
}

/** The text of a plan in a stored statement, which was verified when it came; null for one that has none. */
export function planTextOf({ payload }: { payload: string }): string | null {
  const bytes = parseBase64(payload);
  const statement = bytes === null ? null : jobResultSchema.safeParse(JSON.parse(new TextDecoder().decode(bytes)));
  return statement?.data?.predicate.plan?.text ?? null;
}

/** Outputs as text to compare and to print: one line each, in an order of their own, so that only content can differ. */
export function describeOutputs(outputs: readonly OutputContent[]): string {
  return outputs
    .map(({ name, path, narHash, narSize }) => `${name} ${path} sha256:${narHash} ${narSize}`)
    .toSorted()
    .join("\n");
}
