import {
  JOB_RESULT_PREDICATE_TYPE,
  parseBase64,
  planTextOf,
  refuse,
  sha256Hex,
  utf8,
  verifyStatement,
  type Claims,
  type Expansion,
  type Refusal,
  type ResultBody,
  type RunView,
} from "@plumule/protocol";
import { placeBytes, sealLog } from "./core/log.ts";
import type { Job, Lane, Run } from "./core/model.ts";
import type { RunBytes } from "./run-bytes.ts";

/** What a statement says beyond its result's body. */
export type Stated = { plan: string | null; schedules: Claims["schedules"]; expansion: Expansion | null };

/** Checks a result against the run that it claims to end: who signed it, what about, and that it says what its body says. */
export async function checkResult(
  lane: Pick<Lane, "namespace" | "deployment">,
  job: Job,
  run: Run,
  body: ResultBody,
): Promise<Stated | Refusal> {
  const verification = await verifyStatement(body.statements[0], {
    signers: [run.runner],
    expected: {
      namespace: lane.namespace,
      deployment: lane.deployment,
      job: job.id,
      run: run.id,
      // One without a lease says so: it has to have signed 0.
      epoch: Math.max(run.epoch, 0),
      commit: job.brief.source?.commit ?? null,
      taskSha256: job.taskSha256,
      logSha256: body.log.sha256,
      logBytes: body.log.bytes,
      outputs: body.outputs,
    },
  });
  if (!verification.ok) {
    const failed = verification.checks.find((check) => !check.ok);
    const code =
      failed?.name === "signature" || failed?.name === "key-admission" ? "bad-signature" : "invalid-statement";
    return refuseStatement(
      code,
      `${failed?.name ?? "statement"}: ${failed?.detail ?? "not verified"}${failed?.expected === undefined ? "" : ` (expected ${failed.expected}, found ${failed.actual ?? "nothing"})`}`,
    );
  }
  const { claims, statement } = verification;
  if (claims.predicateType !== JOB_RESULT_PREDICATE_TYPE)
    return refuseStatement(
      "invalid-statement",
      `predicate-type: the first statement has to be a ${JOB_RESULT_PREDICATE_TYPE}`,
    );
  if (claims.untrusted !== (job.brief.stranger !== undefined))
    return refuseStatement("invalid-statement", "untrusted: the statement has to say whether the job was a stranger's");
  if (claims.result !== body.outcome)
    return refuseStatement("invalid-statement", `result: signed as ${claims.result}, sent as ${body.outcome}`);
  if (statement.predicate["exitCode"] !== body.exitCode)
    return refuseStatement("invalid-statement", "exitCode: signed and sent differ");
  const text = body.statements[0] === undefined ? null : planTextOf(body.statements[0]);
  if (text !== null && (await sha256Hex(utf8(text))) !== claims.plan)
    return refuseStatement("invalid-statement", "plan: its text has another digest");
  const approved = job.plan?.approved == null ? null : job.plan.sha256;
  if (job.brief.planned === true && body.outcome === "succeeded" && (approved === null || claims.plan !== approved))
    return refuseStatement(
      "invalid-statement",
      `plan: approved is ${approved ?? "none"}, signed ${claims.plan ?? "none"}`,
    );
  return { plan: claims.plan ?? null, schedules: claims.schedules, expansion: claims.expansion ?? null };
}

function refuseStatement(code: "bad-signature" | "invalid-statement", detail: string): Refusal {
  return refuse(code, `The result is not accepted. ${detail}`, { errors: [{ pointer: "/statements/0", detail }] });
}

/** A log compared with what was signed, and the bytes that the result brought for it. `size` is what was stored while it was compared. */
export type Sealed = { log: RunView["log"]; size: number; rest: Uint8Array };

/**
 * Compares a run's log with the signed length and digest. A tail that does not fit is left out and shows in the state of the log: a
 * result is not lost because of its log (P9).
 */
export async function sealRun(bytes: RunBytes, run: Run, body: ResultBody): Promise<Sealed> {
  const size = bytes.output(run.epoch)?.bytes ?? 0;
  const tail = readTail(body);
  const placed = tail === null ? null : placeBytes(size, tail.offset, tail.bytes.length);
  let rest = new Uint8Array();
  let sound = true;
  if (tail !== null && placed !== null) {
    sound = !("refused" in placed) && bytes.holds(run.epoch, tail.offset, tail.bytes.subarray(0, placed.repeatedBytes));
    if (sound && !("refused" in placed)) rest = tail.bytes.subarray(placed.repeatedBytes);
    else sound = "refused" in placed && placed.refused === "log-gap";
  }
  const sha256 = size === 0 ? await sha256Hex(rest) : await bytes.digest(run.epoch, rest);
  return { log: sealLog({ bytes: size + rest.length, sha256, sound }, body.log), size, rest };
}

function readTail({ logTail }: ResultBody): { offset: number; bytes: Uint8Array<ArrayBuffer> } | null {
  const bytes = logTail === undefined ? null : parseBase64(logTail.base64);
  return logTail === undefined || bytes === null ? null : { offset: logTail.offset, bytes };
}

/** What identifies a result that is sent again. */
export function digestOfResult(body: ResultBody): Promise<string> {
  return sha256Hex(utf8(JSON.stringify(body)));
}
