import { describeIssues } from "./dsse.ts";
import type { Expansion } from "./expansion.ts";
import { type JobResult, JOB_RESULT_PREDICATE_TYPE, jobResultSchema, type StatedOutput } from "./job-result.ts";
import { type Provenance, PROVENANCE_PREDICATE_TYPE, provenanceSchema } from "./provenance.ts";
import { accepted, refused, type Result } from "./result.ts";
import type { StatedSchedule } from "./schedules.ts";
import { builderIdOf, isUntrustedBuilder, type Statement, statementSchema } from "./statements.ts";

/** What both kinds of statement say, in one shape to check against; `outputs` of a provenance are those of its attribute. */
export type Claims = {
  predicateType: typeof JOB_RESULT_PREDICATE_TYPE | typeof PROVENANCE_PREDICATE_TYPE;
  namespace: string;
  deployment: string;
  job: string;
  run: string;
  /** 0: the runner gave itself this run, and nobody a lease. */
  epoch: number;
  /** Of a run without a lease, which work it did (`jobIdentity`). */
  identity?: string;
  /** The repository, as the job's source named it; null when the statement names none. */
  repository: string | null;
  /** The commit, or null when the statement names none. */
  commit: string | null;
  /** The digest of the task; a provenance does not name it. */
  taskSha256: string | null;
  configurationSha256: string | null;
  flakeLockSha256: string | null;
  result: JobResult["predicate"]["result"];
  system: string;
  /** The did:key of the runner that the statement says it is by. */
  runner: string;
  /** Null when nothing was run. */
  builderId: string | null;
  /** The job was a stranger's: the builder id says so too. */
  untrusted: boolean;
  log: { sha256: string; bytes: number };
  outputs: readonly StatedOutput[];
  startedAt: string;
  finishedAt: string;
  /** The SHA-256 of the plan that the run made, or applied; missing for a run without one. */
  plan?: string;
  /** The schedules of the task file for the branch; missing for a run that says nothing about them. */
  schedules?: readonly StatedSchedule[];
  /** What the run has read in a task file whose jobs become jobs of the lane. */
  expansion?: Expansion;
};

/** What a verified statement claims, who signed it (did:key), and the SHA-256 of the signed payload: the identity of the statement. */
export type SignedClaims = { signer: string; sha256: string; claims: Claims };

/** A statement of a known predicate with what it claims. */
export type ReadStatement = { statement: Statement; claims: Claims };

/** Reads a statement that was verified. Statements of unknown predicates are refused by `predicate-type`, malformed ones by `statement`. */
export function readStatement(value: unknown): Result<ReadStatement, "statement" | "predicate-type"> {
  const parsed = statementSchema.safeParse(value);
  if (!parsed.success) return refused("statement", describeIssues(parsed.error));
  switch (parsed.data.predicateType) {
    case JOB_RESULT_PREDICATE_TYPE: {
      const result = jobResultSchema.safeParse(value);
      return result.success
        ? accepted({ statement: result.data, claims: claimsOfJobResult(result.data) })
        : refused("statement", describeIssues(result.error));
    }
    case PROVENANCE_PREDICATE_TYPE: {
      const provenance = provenanceSchema.safeParse(value);
      return provenance.success
        ? accepted({ statement: provenance.data, claims: claimsOfProvenance(provenance.data) })
        : refused("statement", describeIssues(provenance.error));
    }
    default:
      return refused("predicate-type", `the predicate type ${parsed.data.predicateType} is not known`);
  }
}

function claimsOfJobResult({ subject, predicate }: JobResult): Claims {
  const { runner } = predicate;
  return {
    predicateType: JOB_RESULT_PREDICATE_TYPE,
    namespace: predicate.namespace,
    deployment: predicate.deployment,
    job: predicate.job,
    run: predicate.run,
    epoch: predicate.epoch,
    ...(predicate.identity === undefined ? {} : { identity: predicate.identity }),
    repository: subject[0].digest.gitCommit === undefined ? null : (subject[0].name ?? null),
    commit: subject[0].digest.gitCommit ?? null,
    taskSha256: predicate.taskSha256,
    configurationSha256: predicate.configurationSha256,
    flakeLockSha256: predicate.flakeLockSha256 ?? null,
    result: predicate.result,
    system: runner.system,
    runner: runner.did,
    builderId: runner.isolation === null ? null : builderIdOf(runner.did, runner.isolation, runner.untrusted === true),
    untrusted: runner.untrusted === true,
    log: predicate.log,
    outputs: predicate.outputs,
    startedAt: predicate.startedAt,
    finishedAt: predicate.finishedAt,
    ...(predicate.plan === undefined ? {} : { plan: predicate.plan.sha256 }),
    ...(predicate.schedules === undefined ? {} : { schedules: predicate.schedules }),
    ...(predicate.expansion === undefined ? {} : { expansion: predicate.expansion }),
  };
}

function claimsOfProvenance({ subject, predicate }: Provenance): Claims {
  const { buildDefinition, runDetails } = predicate;
  const { internalParameters, resolvedDependencies } = buildDefinition;
  const { digest, annotations } = runDetails.byproducts[0];
  const [runner = ""] = runDetails.builder.id.split("#", 1);
  const dependency = (name: string): (typeof resolvedDependencies)[number] | undefined =>
    resolvedDependencies.find((resource) => resource.name === name);
  return {
    predicateType: PROVENANCE_PREDICATE_TYPE,
    namespace: internalParameters.namespace,
    deployment: internalParameters.deployment,
    job: internalParameters.job,
    run: internalParameters.run,
    epoch: internalParameters.epoch,
    repository: buildDefinition.externalParameters.repository,
    commit: dependency("source")?.digest?.gitCommit ?? null,
    taskSha256: null,
    configurationSha256: null,
    flakeLockSha256: dependency("flake.lock")?.digest?.sha256 ?? null,
    result: "succeeded",
    system: internalParameters.system,
    runner,
    builderId: runDetails.builder.id,
    untrusted: isUntrustedBuilder(runDetails.builder.id),
    log: { sha256: digest.sha256, bytes: annotations.bytes },
    outputs: subject.map(({ name, uri, digest: nar, annotations: { narSize } }) => ({
      name,
      path: uri.slice("nix:".length),
      narHash: nar.sha256,
      narSize,
    })),
    startedAt: runDetails.metadata.startedOn,
    finishedAt: runDetails.metadata.finishedOn,
  };
}
