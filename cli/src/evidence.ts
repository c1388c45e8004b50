import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import {
  type Expected,
  getStatements,
  LIMITS,
  listJobs,
  looksLikeSummary,
  type Quorum,
  type RunView,
  sha256Hex,
  utf8,
} from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import type { Context } from "./context.ts";
import { EXIT } from "./exit-codes.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";
import { readLog } from "./log-reading.ts";
import { shortId } from "./print.ts";
import { type FoundJob, resolveJob, resolveTarget } from "./resolve.ts";
import { readUnverified } from "./verification.ts";

/**
 * Statements to look at, and what each must agree with; verdicts of a broker stand apart. `quorum` and `ref` are those of the job, where the broker was
 * asked for it; `next` is what one would do after a success.
 */
export type Evidence = {
  envelopes: unknown[];
  summaries: unknown[];
  expectedOf: (envelope: unknown) => Expected;
  quorum: Quorum | null;
  ref: string;
  notes: string[];
  next: string;
};

/** The statements that an argument means: of a file or URL, or of a job at the broker. */
export async function findEvidence(
  what: string | undefined,
  { cwd, connect, offline }: Pick<Context, "cwd" | "connect"> & { offline: boolean },
): Promise<Evidence | Failure> {
  if (what !== undefined && !/^https?:\/\//.test(what)) {
    const path = resolve(cwd, what);
    if ((await stat(path).catch(() => null))?.isFile() === true) return ofText(await readFile(path, "utf8"));
  }
  // No name of something at the broker has a slash or ends like that.
  const isPath = what !== undefined && !/^https?:/.test(what) && /\/|\.jsonl?$/.test(what);
  if (offline || isPath)
    return misuse(
      what === undefined ? "Offline there are only files" : `There is no file ${what}`,
      "Save the statements first: curl …/v1/NAMESPACE/jobs/JOB/statements > job.intoto.jsonl.",
    );
  if (what !== undefined && /^https?:\/\//.test(what)) return ofUrl(what);
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, what, cwd);
  return isFailure(found) ? found : ofJob(connection, found);
}

/** JSON Lines, one envelope each; a single document or a list of them will do too. A line that is no JSON is a statement that cannot be verified. */
function ofText(text: string): Evidence {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const whole = parseOrNull(text);
  const all: unknown[] = whole === null ? lines.map(parseOrNull) : [whole].flat();
  return {
    envelopes: all.filter((envelope) => !looksLikeSummary(envelope)),
    summaries: all.filter(looksLikeSummary),
    expectedOf: () => ({}),
    quorum: null,
    ref: "",
    notes: [],
    next: "compare job and commit with what you expect",
  };
}

function parseOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function ofUrl(url: string): Promise<Evidence | Failure> {
  try {
    const answer = await fetch(url);
    if (answer.ok) return ofText(await answer.text());
    return { exit: EXIT.notFound, what: `${url} answers ${answer.status}`, next: "Check the address." };
  } catch (error) {
    const why = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    return {
      exit: EXIT.unreachable,
      what: `${url} cannot be reached`,
      why,
      next: "Check the address and the network.",
    };
  }
}

/** A job's statements, to be compared with all that the broker says of the job, and with the log's own bytes. */
async function ofJob(connection: Connection, { job, spec, runs }: FoundJob): Promise<Evidence | Failure> {
  const answer = await connection.ask(getStatements, { params: { ns: connection.ns, job: job.id } });
  if (isFailure(answer)) return answer;
  const evidence = ofText(await answer.response.text());
  if (evidence.envelopes.length === 0)
    return {
      exit: EXIT.unverified,
      what: `Nothing is signed about job ${shortId(job.id)}`,
      why: `it is ${job.state}`,
      next: `plumule watch ${shortId(job.id)}`,
    };
  const notes: string[] = [];
  const digests = new Map<string, Pick<Expected, "logSha256" | "logBytes">>();
  for (const run of runs.filter(({ statementCount }) => statementCount > 0)) {
    const digest = await hashLog(connection, run);
    if (isFailure(digest)) notes.push(`the log of run ${run.attempt} was not checked: ${digest.why ?? digest.what}`);
    else digests.set(run.id, digest);
  }
  const taskSha256 = await sha256Hex(utf8(JSON.stringify(spec.task)));
  const about: Expected = {
    namespace: connection.ns,
    deployment: job.deployment,
    job: job.id,
    commit: job.source?.commit ?? null,
  };
  const expectedOf = (envelope: unknown): Expected => {
    const claimed = readUnverified(envelope).run;
    const run = runs.find(({ id }) => id === claimed) ?? runs.find(({ id }) => id === job.run);
    if (run === undefined) return about;
    const isResult = run.statementCount > 0 && fromResult(envelope);
    const content = isResult ? { taskSha256, outputs: run.outputs } : {};
    return { ...about, run: run.id, epoch: run.epoch, ...digests.get(run.id), ...content };
  };
  const asked = { quorum: spec.quorum ?? null, ref: job.source?.ref ?? "" };
  return { ...evidence, ...asked, notes, expectedOf, next: `plumule get ${shortId(job.id)}` };
}

/** A provenance names neither the task nor the other outputs. */
function fromResult(envelope: unknown): boolean {
  const payload = (envelope as { payload?: unknown } | null)?.payload;
  return typeof payload === "string" && Buffer.from(payload, "base64").includes("/job-result/");
}

async function hashLog(
  connection: Connection,
  run: RunView,
): Promise<Pick<Expected, "logSha256" | "logBytes"> | Failure> {
  if (run.log.state === "expired" || run.log.state === "open")
    return misuse(`its state is ${run.log.state}`, "Nothing can be done.");
  const hash = createHash("sha256");
  const bytes = await readLog(connection, run.id, 0, (_, chunk) => hash.update(chunk));
  return isFailure(bytes) ? bytes : { logSha256: hash.digest("hex"), logBytes: bytes };
}

/** Every envelope that an argument means, to be searched for contradictions: of a file or URL, of a job, or of all jobs of a commit. */
export async function findBundle(
  what: string | undefined,
  context: Pick<Context, "cwd" | "connect"> & { offline: boolean },
): Promise<unknown[] | Failure> {
  if (what === undefined) return misuse("What to look at is not named", "Name a file, a job or a commit.");
  const path = resolve(context.cwd, what);
  const isFile = (await stat(path).catch(() => null))?.isFile() === true;
  if (isFile || context.offline || /\/|\.jsonl?$/.test(what)) {
    const evidence = await findEvidence(what, context);
    return isFailure(evidence) ? evidence : evidence.envelopes;
  }
  const connection = await context.connect();
  if (isFailure(connection)) return connection;
  const target = await resolveTarget(connection, what, context.cwd);
  if (isFailure(target)) return target;
  if (target.kind !== "commit") {
    const found = await resolveJob(connection, what, context.cwd);
    if (isFailure(found)) return found;
    const proofs = (found.equivocations ?? []).flatMap(({ envelopes }) => envelopes);
    const envelopes = await statementsOf(connection, found.job.id);
    return isFailure(envelopes) ? envelopes : [...proofs, ...envelopes];
  }
  const query = { commit: target.commit, limit: LIMITS.listPage };
  const listed = await connection.ask(listJobs, { params: { ns: connection.ns }, query });
  if (isFailure(listed)) return listed;
  const bundles: unknown[] = [];
  for (const { id } of listed.body.items) {
    const envelopes = await statementsOf(connection, id);
    if (isFailure(envelopes)) return envelopes;
    bundles.push(...envelopes);
  }
  return bundles;
}

async function statementsOf(connection: Connection, job: string): Promise<unknown[] | Failure> {
  const answer = await connection.ask(getStatements, { params: { ns: connection.ns, job } });
  return isFailure(answer) ? answer : ofText(await answer.response.text()).envelopes;
}
