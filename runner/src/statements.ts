import {
  type Assignment,
  draftJobResult,
  draftProvenance,
  type Envelope,
  type IsolationLevel,
  jobIdentity,
  signEnvelope,
  STATEMENT_PAYLOAD_TYPE,
} from "@plumule/protocol";
import { fileDigest } from "./file-digest.ts";
import type { SealedLog } from "./log-file.ts";
import type { Machine } from "./machine.ts";
import type { BuiltTarget, TaskEnd } from "./tasks/task.ts";

/** Everything that the statements of a finished run say. Times are RFC 3339. */
export type RunFacts = {
  assignment: Assignment;
  machine: Machine;
  end: TaskEnd;
  log: SealedLog;
  startedAt: string;
  finishedAt: string;
  /** Of the checkout, when the work had ended. */
  flakeLockSha256: string | undefined;
  /** The level that the run had; null when nothing was run. */
  isolation: IsolationLevel | null;
};

/**
 * Signs what happened: first the job's result about the commit, then, for a success, provenance of each built attribute. Outputs that do not
 * fit into one statement are a fault of the plan and throw.
 */
export async function signStatements(facts: RunFacts): Promise<Envelope[]> {
  const { assignment, machine, end, flakeLockSha256 } = facts;
  const result = draftJobResult({
    source: assignment.spec.source ?? null,
    ...identityOf(assignment),
    ...(await workOf(assignment)),
    kind: assignment.spec.task.kind,
    result: end.outcome,
    exitCode: end.exitCode,
    reason: end.reason === null ? null : { code: end.reason.code, detail: end.reason.detail },
    taskSha256: assignment.taskSha256,
    configurationSha256: assignment.configurationSha256,
    startedAt: facts.startedAt,
    finishedAt: facts.finishedAt,
    runner: {
      did: machine.runner,
      version: machine.version,
      isolation: facts.isolation,
      system: machine.offer.systems[0] ?? "unknown",
      ...(machine.nix === null ? {} : { nix: machine.nix.version }),
      untrusted: assignment.untrusted,
    },
    log: logOf(facts.log),
    outputs: end.targets.flatMap((target) => target.outputs),
    flakeLockSha256,
    plan: end.plan,
    schedules: end.schedules,
    expansion: end.expansion,
  });
  if (!result.ok) throw new Error(`the result cannot be stated: ${result.detail}`);
  const envelopes = [await signEnvelope(STATEMENT_PAYLOAD_TYPE, result.value.bytes, machine.signer)];
  if (end.outcome !== "succeeded") return envelopes;
  for (const target of end.targets) envelopes.push(await signProvenance(facts, target, flakeLockSha256));
  return envelopes;
}

async function signProvenance(
  { assignment, machine, log, startedAt, finishedAt, isolation }: RunFacts,
  target: BuiltTarget,
  flakeLockSha256: string | undefined,
): Promise<Envelope> {
  const drvSha256 = await fileDigest(target.drv);
  const { source } = assignment.spec;
  const draft = draftProvenance({
    attribute: target.attribute,
    outputs: target.outputs,
    source:
      source === undefined
        ? null
        : {
            repository: source.repository,
            commit: source.commit,
            ...(source.ref === undefined ? {} : { ref: source.ref }),
          },
    ...identityOf(assignment),
    system: machine.nix?.system ?? "unknown",
    sandbox: machine.nix?.sandbox ?? false,
    runner: {
      did: machine.runner,
      version: machine.version,
      isolation: isolation ?? machine.isolation,
      nix: machine.nix?.version ?? "unknown",
      untrusted: assignment.untrusted,
    },
    startedAt,
    finishedAt,
    log: logOf(log),
    flakeLockSha256,
    ...(drvSha256 === undefined ? {} : { drv: { path: target.drv, sha256: drvSha256 } }),
  });
  if (!draft.ok) throw new Error(`the provenance of ${target.attribute} cannot be stated: ${draft.detail}`);
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, draft.value.bytes, machine.signer);
}

function identityOf({ namespace, deployment, job, run, epoch }: Assignment): {
  namespace: string;
  deployment: string;
  job: string;
  run: string;
  epoch: number;
} {
  return { namespace, deployment, job, run, epoch };
}

/** A run without a lease names the work that it did. Throws for one that is about no commit. */
async function workOf({ epoch, spec, taskSha256, configurationSha256 }: Assignment): Promise<{ identity?: string }> {
  if (epoch !== 0) return {};
  if (spec.source === undefined) throw new Error("a run without a lease is about a commit");
  const { repository, commit } = spec.source;
  return { identity: await jobIdentity({ repository, commit, taskSha256, configurationSha256 }) };
}

function logOf({ bytes, sha256, omittedBytes }: SealedLog): { bytes: number; sha256: string; truncated: boolean } {
  return { bytes, sha256, truncated: omittedBytes > 0 };
}
