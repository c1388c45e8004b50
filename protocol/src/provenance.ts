import * as z from "zod";
import { parseHex, toBase64 } from "./bytes.ts";
import {
  commitSchema,
  deploymentIdSchema,
  jobIdSchema,
  namespaceIdSchema,
  runIdSchema,
  sha256Schema,
  timeSchema,
} from "./ids.ts";
import type { Result } from "./result.ts";
import {
  builderIdOf,
  draftStatement,
  type Resource,
  resourceSchema,
  STATEMENT_TYPE,
  type StatementDraft,
  type StatementRefusal,
  statementPath,
  statementSchema,
  statementUri,
  statementWord,
  subjectSchema,
} from "./statements.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

export const PROVENANCE_PREDICATE_TYPE = "https://slsa.dev/provenance/v1";
export const NIX_BUILD_TYPE = "https://plumule.dev/buildtypes/nix/v1";

/** What the submitter chose. Strict, the one place where SLSA wants it: an unknown parameter could change what was built. */
export const externalParametersSchema = z.strictObject({
  repository: statementUri.nullable(),
  ref: statementPath.nullable(),
  patch: commitSchema.nullable(),
  attribute: statementPath,
});

const internalParametersSchema = z.looseObject({
  system: statementWord,
  sandbox: z.boolean(),
  namespace: namespaceIdSchema,
  deployment: deploymentIdSchema,
  job: jobIdSchema,
  run: runIdSchema,
  /** 0 for a run that had no lease. */
  epoch: z.int().min(0),
  nixVersion: statementWord,
});

/** A built path: its NAR hash is its digest, its store path the uri. */
const builtSubjectSchema = subjectSchema.extend({
  name: statementPath,
  uri: statementUri.regex(/^nix:\//, "a `nix:` URI of a store path"),
  digest: z.looseObject({ sha256: sha256Schema }),
  annotations: z.looseObject({ narHash: statementWord, narSize: z.int().min(0), drvPath: statementPath.optional() }),
});

const logSchema = resourceSchema.extend({
  name: z.literal("log"),
  digest: z.looseObject({ sha256: sha256Schema }),
  annotations: z.looseObject({ bytes: z.int().min(0), truncated: z.boolean() }),
});

/** SLSA Provenance v1 of the outputs of one attribute, built by Nix. */
export const provenanceSchema = statementSchema.extend({
  subject: z.array(builtSubjectSchema).min(1).max(TRUST_LIMITS.subjects),
  predicateType: z.literal(PROVENANCE_PREDICATE_TYPE),
  predicate: z.looseObject({
    buildDefinition: z.looseObject({
      buildType: z.literal(NIX_BUILD_TYPE),
      externalParameters: externalParametersSchema,
      internalParameters: internalParametersSchema,
      resolvedDependencies: z.array(resourceSchema).max(TRUST_LIMITS.dependencies),
    }),
    runDetails: z.looseObject({
      builder: z.looseObject({ id: statementPath, version: z.record(statementWord, statementWord) }),
      metadata: z.looseObject({ invocationId: statementPath, startedOn: timeSchema, finishedOn: timeSchema }),
      byproducts: z.tuple([logSchema]),
    }),
  }),
});
export type Provenance = z.output<typeof provenanceSchema>;

/** What a runner knows of one built attribute. `inputs` are the locked inputs of the flake, `flakeLockSha256` and `drv` what they came from. */
export type ProvenanceInput = {
  attribute: string;
  outputs: readonly { name: string; path: string; narHash: string; narSize: number; drvPath?: string | undefined }[];
  source: {
    repository: string;
    commit: string;
    tree?: string | undefined;
    ref?: string | undefined;
    patch?: string | undefined;
  } | null;
  namespace: string;
  deployment: string;
  job: string;
  run: string;
  epoch: number;
  system: string;
  sandbox: boolean;
  runner: { did: string; version: string; isolation: string; nix: string; untrusted?: boolean | undefined };
  startedAt: string;
  finishedAt: string;
  log: { sha256: string; bytes: number; truncated: boolean };
  flakeLockSha256?: string | undefined;
  drv?: { path: string; sha256: string } | undefined;
  inputs?:
    | readonly { name: string; uri: string; commit?: string | undefined; sha256?: string | undefined }[]
    | undefined;
};

/** The provenance of the outputs of one attribute, with the bytes to sign. `narHash` is lower-case hex; the SRI form stands in the annotations. */
export function draftProvenance(input: ProvenanceInput): Result<StatementDraft<Provenance>, StatementRefusal> {
  const { source, runner, log } = input;
  return draftStatement(provenanceSchema, {
    _type: STATEMENT_TYPE,
    subject: input.outputs.map(({ name, path, narHash, narSize, drvPath }) => ({
      name,
      uri: `nix:${path}`,
      digest: { sha256: narHash },
      annotations: { narHash: sriOf(narHash), narSize, ...(drvPath === undefined ? {} : { drvPath }) },
    })),
    predicateType: PROVENANCE_PREDICATE_TYPE,
    predicate: {
      buildDefinition: {
        buildType: NIX_BUILD_TYPE,
        externalParameters: {
          repository: source?.repository ?? null,
          ref: source?.ref ?? null,
          patch: source?.patch ?? null,
          attribute: input.attribute,
        },
        internalParameters: {
          system: input.system,
          sandbox: input.sandbox,
          namespace: input.namespace,
          deployment: input.deployment,
          job: input.job,
          run: input.run,
          epoch: input.epoch,
          nixVersion: runner.nix,
        },
        resolvedDependencies: resolvedDependencies(input),
      },
      runDetails: {
        builder: {
          id: builderIdOf(runner.did, runner.isolation, runner.untrusted === true),
          version: { runner: runner.version, nix: runner.nix },
        },
        metadata: {
          invocationId: `urn:uuid:${input.job}/${input.epoch}`,
          startedOn: input.startedAt,
          finishedOn: input.finishedAt,
        },
        byproducts: [
          {
            name: "log",
            mediaType: "text/plain",
            digest: { sha256: log.sha256 },
            annotations: { bytes: log.bytes, truncated: log.truncated },
          },
        ],
      },
    },
  });
}

function resolvedDependencies({ source, flakeLockSha256, drv, inputs }: ProvenanceInput): Resource[] {
  const dependencies: Resource[] = [];
  if (source !== null) {
    const digest =
      source.tree === undefined ? { gitCommit: source.commit } : { gitCommit: source.commit, gitTree: source.tree };
    dependencies.push({
      name: "source",
      uri: `git+${source.repository}${source.ref === undefined ? "" : `@${source.ref}`}`,
      digest,
    });
  }
  if (flakeLockSha256 !== undefined) dependencies.push({ name: "flake.lock", digest: { sha256: flakeLockSha256 } });
  if (drv !== undefined) dependencies.push({ name: "drv", uri: `nix:${drv.path}`, digest: { sha256: drv.sha256 } });
  for (const { name, uri, commit, sha256 } of inputs ?? []) {
    const digest = {
      ...(commit === undefined ? {} : { gitCommit: commit }),
      ...(sha256 === undefined ? {} : { sha256 }),
    };
    dependencies.push({ name: `inputs/${name}`, uri, ...(Object.keys(digest).length === 0 ? {} : { digest }) });
  }
  return dependencies;
}

/** The SRI form that Nix prints; text that is no hex stays as it is, so that the schema names the fault. */
function sriOf(narHash: string): string {
  const bytes = parseHex(narHash);
  return bytes === null ? narHash : `sha256-${toBase64(bytes)}`;
}
