import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { admitDidKey, type Expected, getStatements, type RunView, sha256Hex, utf8 } from "@plumule/protocol";
import { Command } from "commander";
import { findCommit } from "../checkout.ts";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";
import { readLog } from "../log-reading.ts";
import { paint, shortId, type Terminal } from "../print.ts";
import { type FoundJob, resolveJob } from "../resolve.ts";
import { inLine } from "../terminal-text.ts";
import { type PinnedKey, readPinned } from "../trust-store.ts";
import { examine, type Examined, examinedLines, exitOfOutcome, outcomeOf, readUnverified } from "../verification.ts";

type VerifyFlags = { trust?: string[]; offline?: true; commit?: string };

/** Statements to look at, and what each must agree with. `next` is what one would do after a success. */
type Evidence = { envelopes: unknown[]; expectedOf: (envelope: unknown) => Expected; notes: string[]; next: string };

/** `plumule verify`: checks signed results against keys that the reader chose. */
export function verifyCommand(): Command {
  return new Command("verify")
    .summary("check the signed result of a job, or of a file")
    .description(
      "Checks signatures, and that what is signed is what the broker shows: job, commit, task, log and outputs. Only keys that you pinned count: `plumule key trust`.",
    )
    .argument("[what]", "job, run, deployment or commit; or a file or URL with statements; by default the job of HEAD")
    .option("--trust <did>", "a key to believe this once; may be repeated", collect)
    .option("--commit <commit>", "the commit that it must be about, by any name that git knows here")
    .option("--offline", "ask nobody: only for files")
    .action(act(verify));
}

async function verify(
  { terminal, cwd, env, connect }: Context,
  what: string | undefined,
  flags: VerifyFlags,
): Promise<ExitCode | Failure> {
  const pinned = await trustedKeys(env, flags.trust ?? []);
  if (isFailure(pinned)) return pinned;
  const commit = flags.commit === undefined ? undefined : await findCommit(cwd, flags.commit);
  if (commit === null) return misuse(`git knows no commit ${flags.commit}`, "Give the full commit id.");
  const evidence = await findEvidence(what, { cwd, connect, offline: flags.offline === true });
  if (isFailure(evidence)) return evidence;
  const examined: Examined[] = [];
  for (const envelope of evidence.envelopes) {
    const expected = evidence.expectedOf(envelope);
    examined.push(await examine(envelope, pinned, commit === undefined ? expected : { ...expected, commit }));
  }
  report(terminal, examined, evidence);
  return exitOfOutcome(outcomeOf(examined));
}

async function trustedKeys(env: Context["env"], given: readonly string[]): Promise<PinnedKey[] | Failure> {
  const kept = await readPinned(env);
  if (isFailure(kept)) return kept;
  const pinnedAt = new Date().toISOString();
  for (const key of given) {
    const admitted = admitDidKey(key);
    if (!admitted.ok)
      return misuse(`${key} cannot be trusted: ${admitted.detail}`, "Give the did:key of an Ed25519 key.");
  }
  return [...given.map((key) => ({ key, name: "--trust", pinnedAt })), ...kept];
}

async function findEvidence(
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
  return {
    envelopes: whole === null ? lines.map(parseOrNull) : [whole].flat(),
    expectedOf: () => ({}),
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
  return { ...evidence, notes, expectedOf, next: `plumule get ${shortId(job.id)}` };
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

function report(terminal: Terminal, examined: readonly Examined[], { notes, next }: Evidence): void {
  const outcome = outcomeOf(examined);
  if (terminal.json) {
    const statements = examined.map(({ signer, pinned, verification: { ok, checks, claims } }) => ({
      signer,
      pinned: pinned !== null,
      ok,
      checks,
      claims: claims ?? null,
    }));
    return terminal.data({ outcome, statements, notes });
  }
  for (const line of examined.flatMap(examinedLines)) terminal.out(line);
  for (const note of notes) terminal.note(`${paint.care("!")} ${inLine(note)}`);
  terminal.note(verdictLine(examined, next));
}

/** The last word: what holds, and what to do where it does not. */
export function verdictLine(examined: readonly Examined[], next: string): string {
  const count = `${examined.length} ${examined.length === 1 ? "statement" : "statements"}`;
  switch (outcomeOf(examined)) {
    case "verified":
      return `${paint.good("✓")} ${count} verified under keys that you pinned  ${paint.quiet(`→ ${next}`)}`;
    case "unpinned": {
      const keys = [
        ...new Set(examined.flatMap(({ signer, pinned }) => (pinned === null && signer !== null ? [signer] : []))),
      ];
      const command = keys.map((key) => `plumule key trust ${inLine(key)}`).join("  ");
      return `${paint.care("!")} the signatures are valid, but you have not pinned the key: anyone can make one. If you know it, then ${paint.quiet(`→ ${command}`)}`;
    }
    case "failed": {
      const failed = examined.flatMap(({ verification }) =>
        verification.checks.filter(({ ok }) => !ok).map(({ name }) => name),
      );
      const which = failed.length === 0 ? "there is no statement" : `wrong: ${[...new Set(failed)].join(", ")}`;
      return `${paint.bad("✗")} not verified, ${which}. Do not rely on this result`;
    }
  }
}
