import { randomUUID } from "node:crypto";
import {
  INTERRUPTS,
  ISOLATION_LEVELS,
  LIMITS,
  PRIORITIES,
  rerunJob,
  type SubmitAnswer,
  type SubmitBody,
  submitJob,
  workSha256,
} from "@plumule/protocol";
import { Command, Option } from "commander";
import { readCheckout } from "../checkout.ts";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { bytesOf, collect, collectPairs, msOf, quorumOf, wholeNumber } from "../flags.ts";
import { isLocalUrl, type JobFlags, type JobRequest, jobRequest } from "../job-request.ts";
import { paintState, paint, printDone, shortId, type Terminal } from "../print.ts";
import { resolveJob } from "../resolve.ts";
import { chooseRunners, sealAll, sealedLine, unpinnedAdvice } from "../sealing.ts";
import { readSecrets } from "../secret-input.ts";
import { inLine } from "../terminal-text.ts";
import { timeOf } from "../times.ts";
import { watch } from "../watching.ts";

type WaitFlags = { wait?: true; timeout?: number; idempotencyKey?: string };
type SecretFlags = { secret?: string[]; runner?: string[]; secretUntil?: string };
type SubmitFlags = JobFlags & WaitFlags & SecretFlags & { dryRun?: true; ifRevision?: number };

/** `plumule submit`: puts a job into a deployment's lane. */
export function submitCommand(): Command {
  const command = new Command("submit")
    .summary("submit a job")
    .description(
      "Puts a job into the lane of a deployment. In a git checkout the job is about its commit, and without a task the repository says what to do.",
    )
    .argument("[deployment]", "lane of the job; by default the name of the checkout's folder")
    .optionsGroup("What to do:")
    .option("--shell <script>", "run a script with bash; @FILE reads it from a file")
    .option("--build <installable>", "build with Nix, such as .#default; may be repeated", collect)
    .option(
      "--effect <installable>",
      "run an effect as for Hercules CI, such as .#effects.deploy; with --apply build it",
    )
    .option(
      "--apply <script>",
      "what applies what --effect has built, with network and secrets; @FILE reads it from a file",
    )
    .option(
      "--plan <script>",
      "prints what applying would do; the job is held until exactly that is approved; @FILE too",
    )
    .option("--move-state", "any runner may take the effect, also another one than keeps its state files")
    .option("--repository", "do what the task file at the commit says; the default in a checkout")
    .option("--task <name>", "one job of the repository's task file, with what it needs")
    .option("--schedule <name>", "the jobs of a schedule of the task file, without waiting for its time")
    .option("--effects", "the task file may ask for effects: whoever wrote the commit says which")
    .option("-c, --config <file>", "JSON configuration of the job; - reads it from stdin")
    .option("--env <name=value>", "an environment variable; may be repeated", collectPairs)
    .optionsGroup("With what secrets:")
    .option(
      "--secret <name=@file>",
      "a file that the job's scripts find in $PLUMULE_SECRETS, sealed on this machine; NAME=- reads stdin, NAME alone is a stored one; may be repeated",
      collect,
    )
    .option("--runner <key>", "a runner that may open them, by did:key or pinned name; may be repeated", collect)
    .option("--secret-until <time>", "when they end: days such as 1d, or an RFC 3339 time")
    .optionsGroup("About what:")
    .option("--source <url>", "repository, as a rad: or https: URL")
    .option("--commit <commit>", "commit, by any name that git knows here")
    .option("--ref <ref>", "branch, tag or patch that the commit is of")
    .option("--type <name>", "type of the job, for your own use")
    .option("--summary <text>", "one line for people")
    .option("--skip-unchanged", "build nothing when Nix evaluates to what the deployment's last success has built")
    .option(
      "--lock <name>",
      "what no two jobs of the namespace touch at the same time, such as host:king; may be repeated",
      collect,
    )
    .optionsGroup("When the deployment is busy (default: wait in line):")
    .option("--replace", "take the place of everything that waits, and stop what runs")
    .option("--latest", "let what runs end, take the place of what waits")
    .option("--reject", "fail")
    .addOption(new Option("--interrupt <when>", "whether --replace may stop what runs").choices([...INTERRUPTS]))
    .addOption(new Option("--priority <class>", "how urgent it is").choices([...PRIORITIES]));
  return addRunnerAndSubmitFlags(command).action(act(submit));
}

function addRunnerAndSubmitFlags(command: Command): Command {
  command
    .optionsGroup("Which runner:")
    .option("--system <system>", "such as x86_64-linux; may be repeated", collect)
    .option("--feature <feature>", "a feature that it must have; may be repeated", collect)
    .option("--label <label>", "a label that it must have; may be repeated", collect)
    .addOption(new Option("--isolation <level>", "how well it must keep the job apart").choices([...ISOLATION_LEVELS]))
    .option("--pool <name>", "pool of the runner")
    .optionsGroup("At most (below what the runner allows):")
    .option("--max-memory <size>", "memory of all its processes, such as 512MiB", bytesOf)
    .option("--max-tasks <number>", "processes and threads at a time", wholeNumber(1))
    .option("--max-workspace <size>", "what its workspace holds on disk", bytesOf)
    .option("--max-log <size>", "its log; beyond it head and tail are kept", bytesOf)
    .option("--keep-failed <time>", "how long its workspace is kept when it has failed: 2h, 0s for not at all", msOf)
    .optionsGroup("By how many runners:")
    .option(
      "--quorum <agree/replicas>",
      "such as 2/3: three runners do the work, two have to come to the same",
      quorumOf,
    )
    .addOption(new Option("--distinct <what>", "what has to differ between them").choices(["key", "operator"]))
    .optionsGroup("Submitting:")
    .option("--hold", "do not start before `plumule approve`")
    .option("--dry-run", "say what would happen, and change nothing")
    .option("--if-revision <number>", "only if the deployment has this revision", wholeNumber(0));
  return addWaitFlags(command);
}

function addWaitFlags(command: Command): Command {
  return command
    .option("--idempotency-key <key>", "same key, same job: makes it safe to submit again (default: a new key)")
    .option("-w, --wait", "watch the job; the exit code is its result")
    .addOption(new Option("--detach", "return at once; the default").conflicts("wait"))
    .option("--timeout <seconds>", "watch at most so long", wholeNumber(1));
}

async function submit(
  { terminal, cwd, env, connect }: Context,
  deployment: string | undefined,
  flags: SubmitFlags,
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const around = { cwd, checkout: await readCheckout(cwd), isLocal: isLocalUrl(connection.place.url) };
  const request = await jobRequest(deployment, flags, around);
  if (isFailure(request)) return request;
  const secrets = await sealSecrets({ cwd, env, connection }, request, flags);
  if (isFailure(secrets)) return secrets;
  for (const note of [...request.notes, ...secrets.notes]) terminal.note(`${paint.care("!")} ${note}`);
  const headers = idempotent(flags);
  if (flags.ifRevision !== undefined) headers["if-match"] = `"r${flags.ifRevision}"`;
  const answer = await connection.ask(submitJob, {
    params: { ns: connection.ns, deployment: request.deployment },
    query: flags.dryRun === true ? { dryRun: "1" } : {},
    body: { ...request.body, ...secrets.body },
    headers,
  });
  return isFailure(answer) ? answer : afterSubmit(connection, terminal, answer.body, flags);
}

/** The secrets of a job, sealed for this very work, and what the submitter should know of who can open them. */
async function sealSecrets(
  { cwd, env, connection }: Pick<Context, "cwd" | "env"> & { connection: Connection },
  { deployment, body }: JobRequest,
  flags: SubmitFlags,
): Promise<{ body: Pick<SubmitBody, "secrets">; notes: string[] } | Failure> {
  const named = flags.runner ?? [];
  if (flags.secret === undefined)
    return named.length === 0
      ? { body: {}, notes: [] }
      : misuse("--runner says who may open secrets, and there are none", "Add --secret, or choose by --label.");
  const inputs = await readSecrets(flags.secret, cwd);
  if (isFailure(inputs)) return inputs;
  const expiresAt = flags.secretUntil === undefined ? null : timeOf(flags.secretUntil, Date.now());
  if (flags.secretUntil !== undefined && expiresAt === null)
    return misuse(`${flags.secretUntil} is no time`, "Give days such as 1d, or a time such as 2027-01-31T00:00:00Z.");
  const given = inputs.filter(({ value }) => value !== null).map(({ name }) => name);
  const runners = given.length === 0 ? [] : await chooseRunners(connection, env, { named, requires: body.requires });
  if (isFailure(runners)) return runners;
  const namespace = connection.ns;
  const work = await workSha256({ namespace, deployment, teardown: false, spec: body });
  const binding = { namespace, workSha256: work, condition: { and: [] }, expiresAt };
  const secrets = await sealAll(inputs, runners, binding);
  if (isFailure(secrets)) return secrets;
  const advice = unpinnedAdvice(runners, named);
  const notes = given.length === 0 ? [] : [sealedLine(given, runners), ...(advice === null ? [] : [advice])];
  return { body: { secrets }, notes };
}

/** `plumule rerun`: the same job once more. */
export function rerunCommand(): Command {
  const command = new Command("rerun")
    .summary("submit the same job again")
    .description(
      "Submits the same work once more, as a new job behind what is there. A step of a task file takes its place again, with those that were not run because of it.",
    )
    .argument("[id]", "job, run, deployment or commit; by default the job of HEAD");
  return addWaitFlags(command).action(act(rerun));
}

async function rerun(
  { terminal, cwd, connect }: Context,
  id: string | undefined,
  flags: WaitFlags,
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, id, cwd);
  if (isFailure(found)) return found;
  const params = { ns: connection.ns, job: found.job.id };
  const answer = await connection.ask(rerunJob, { params, headers: idempotent(flags) });
  return isFailure(answer) ? answer : afterSubmit(connection, terminal, answer.body, flags);
}

/** The headers of a submit. There is always a key, so that a lost answer can be asked for again without a second job. */
function idempotent({ idempotencyKey }: WaitFlags): Record<string, string> {
  return { "idempotency-key": (idempotencyKey ?? randomUUID()).slice(0, LIMITS.keyCharacters) };
}

async function afterSubmit(
  connection: Connection,
  terminal: Terminal,
  answer: SubmitAnswer,
  flags: WaitFlags,
): Promise<ExitCode | Failure> {
  const { job, cursor, dryRun } = answer;
  const waits = flags.wait === true && !dryRun;
  const next = dryRun ? "the same without --dry-run" : waits ? "watching" : `plumule watch ${shortId(job.id)}`;
  if (!waits || !terminal.json)
    printDone(terminal, { line: submittedLine(answer), next, id: waits ? null : job.id, answer });
  if (!waits) return EXIT.ok;
  const timeoutMs = flags.timeout === undefined ? undefined : flags.timeout * 1000;
  return watch(connection, terminal, { deployment: job.deployment, job, since: cursor, timeoutMs });
}

/** What a submit did, in one line. */
export function submittedLine({ job, position, superseded, joined, dryRun, followers = [] }: SubmitAnswer): string {
  const would = dryRun ? "would be " : joined ? "is already " : "";
  const isInLine = job.waiting?.reason === "position" && job.waiting.lock === undefined;
  const waits = job.waiting === null || isInLine ? "" : `: ${inLine(job.waiting.detail)}`;
  const place =
    job.state === "queued" && position > 0 && waits === ""
      ? `, behind ${position} ${position === 1 ? "other" : "others"}`
      : "";
  const replaced = superseded.length === 0 ? "" : ` in place of ${superseded.map(shortId).join(", ")}`;
  const behind =
    followers.length === 0 ? "" : `, with ${followers.length} ${followers.length === 1 ? "step" : "steps"} behind it`;
  return `job ${paint.strong(shortId(job.id))} in ${inLine(job.deployment)} ${would}${paintState(job.state)}${replaced}${place}${behind}${waits}`;
}
