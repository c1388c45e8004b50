import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import {
  getJob,
  getLog,
  getStatements,
  type OutputContent,
  parseBase64,
  parseEnvelope,
  type RunView,
  sha256Hex,
  toBase64,
  utf8,
  type Verification,
  verifyStatement,
} from "@plumule/protocol";
import type { Envelope } from "@plumule/protocol";
import { privateStore } from "@plumule/runner";
import { nixStoreOf } from "../dev/instance.ts";
import type { Push } from "./replacement.ts";
import { DEPLOYMENT, NAMESPACE, type Stage } from "./stage.ts";

const run = promisify(execFile);
/** The outputs of the demo are a few hundred bytes. */
const NAR_BYTES = 1024 * 1024;

/** What a reader takes home: the signed envelopes, the log, and which run they are about. */
export type Evidence = { envelopes: readonly Envelope[]; log: Uint8Array; run: RunView };

/** Fetches statements and log of a job, while there is a broker. */
export async function fetchEvidence({ ask }: Stage, { job }: Push): Promise<Evidence> {
  const detail = await ask(getJob, { params: { ns: NAMESPACE, job } });
  const last = detail.body.runs.at(-1);
  if (last === undefined) throw new Error("the job has no run");
  const statements = await (await ask(getStatements, { params: { ns: NAMESPACE, job } })).response.text();
  const envelopes = statements.split("\n").flatMap((line) => {
    if (line === "") return [];
    const parsed = parseEnvelope(utf8(line));
    if (!parsed.ok) throw new Error(parsed.detail);
    return [parsed.value];
  });
  if (envelopes.length === 0) throw new Error("the job has no statements");
  const log = await (await ask(getLog, { params: { ns: NAMESPACE, run: last.id } })).response.arrayBuffer();
  return { envelopes, log: new Uint8Array(log), run: last };
}

/** What verifying found: how many statements hold, how many checks that took, and what a changed byte fails at. */
export type Proof = { statementCount: number; checkCount: number; failedCheck: string };

/**
 * Verifies the evidence against what is known without the broker: the runner's key from its own process, the commit from git, the hash of the
 * log's bytes, and the outputs as they lie in the store. Then changes one byte of the signed payload, which must fail.
 */
export async function verifyEvidence(stage: Stage, { commit, job }: Push, evidence: Evidence): Promise<Proof> {
  const { envelopes, log, run: about } = evidence;
  const outputs = await Promise.all(about.outputs.map(({ name, path }) => readOutput(stage, name, path)));
  const expected = { namespace: NAMESPACE, deployment: DEPLOYMENT, job, run: about.id, epoch: about.epoch, commit };
  const [result, ...provenance] = envelopes;
  const first = await verifyStatement(result, {
    signers: [stage.runner],
    expected: { ...expected, logSha256: await sha256Hex(log), logBytes: log.length, outputs },
  });
  const others = await Promise.all(
    provenance.map((one) => verifyStatement(one, { signers: [stage.runner], expected })),
  );
  for (const verification of [first, ...others])
    if (!verification.ok) throw new Error(`a statement does not verify: ${failureOf(verification)}`);
  const tampered = await verifyStatement(changeOneByte(envelopes[0]), { signers: [stage.runner], expected });
  if (tampered.ok) throw new Error("a changed statement verifies");
  return {
    statementCount: envelopes.length,
    checkCount: [first, ...others].reduce((count, { checks }) => count + checks.length, 0),
    failedCheck: failureOf(tampered),
  };
}

function failureOf({ checks }: Verification): string {
  const failed = checks.find(({ ok }) => !ok);
  return failed === undefined ? "no check" : `${failed.name} (${failed.detail})`;
}

/** The same envelope with the lowest bit of the payload's middle byte turned. */
function changeOneByte(envelope: Envelope | undefined): Envelope {
  const payload = parseBase64(envelope?.payload ?? "");
  if (envelope === undefined || payload === null) throw new Error("there is no payload to change");
  const middle = payload.length >> 1;
  payload[middle] = (payload[middle] ?? 0) ^ 1;
  return { ...envelope, payload: toBase64(payload) };
}

/** An output as it lies in the store: Nix writes its archive, this process hashes it. */
async function readOutput({ stateDir }: Stage, name: string, path: string): Promise<OutputContent> {
  const env = { ...(await privateStore(nixStoreOf(stateDir))), PATH: process.env["PATH"] };
  const { stdout } = await run("nix-store", ["--dump", path], { env, encoding: "buffer", maxBuffer: NAR_BYTES });
  return { name, path, narHash: createHash("sha256").update(stdout).digest("hex"), narSize: stdout.length };
}
