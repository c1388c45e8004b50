import { randomUUID } from "node:crypto";
import {
  approveJob,
  type CancelAnswer,
  cancelDeployment,
  cancelJob,
  deleteDeployment,
  didKeyOf,
  type Envelope,
  type JobView,
  resolveJob as resolveUnknown,
  sha256Hex,
  signApproval,
  utf8,
} from "@plumule/protocol";
import { Argument, Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { findPersonKey, KEY_FLAG, type KeyFlags } from "../person-key.ts";
import { paintState, printDone, printFailure, shortId } from "../print.ts";
import { type FoundJob, resolveJob, resolveTarget } from "../resolve.ts";
import { inLine } from "../terminal-text.ts";

type ReasonFlags = { reason?: string };

/** `plumule cancel`: ends jobs, or all jobs of deployments. */
export function cancelCommand(): Command {
  return new Command("cancel")
    .summary("cancel jobs")
    .description(
      "Cancels jobs, or every job of a deployment that has not ended. What runs is stopped, with proof that nothing of it is left.",
    )
    .argument("<id...>", "jobs or deployments")
    .option("--reason <text>", "why, for those who look later")
    .option("--force", "even in the apply phase, where it may leave things half done")
    .action(act(cancel));
}

async function cancel(
  context: Context,
  ids: string[],
  flags: ReasonFlags & { force?: true },
): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const connection = await context.connect();
  if (isFailure(connection)) return connection;
  let worst: ExitCode = EXIT.ok;
  for (const id of ids) {
    const done = await cancelOne(connection, context, id, flags);
    if (!isFailure(done)) continue;
    printFailure(terminal, done);
    worst = done.exit;
  }
  return worst;
}

async function cancelOne(
  connection: Connection,
  { terminal, cwd }: Context,
  id: string,
  body: ReasonFlags & { force?: true },
): Promise<CancelAnswer | Failure> {
  const target = await resolveTarget(connection, id, cwd);
  if (isFailure(target)) return target;
  const headers = { "idempotency-key": randomUUID() };
  const { ns } = connection;
  if (target.kind === "commit")
    return { exit: EXIT.usage, what: `${id} is a commit`, next: `Name a job of it: plumule get ${id}` };
  const answer =
    target.kind === "deployment"
      ? await connection.ask(cancelDeployment, { params: { ns, deployment: target.deployment }, body, headers })
      : await connection.ask(cancelJob, { params: { ns, job: target.job }, body, headers });
  if (isFailure(answer)) return answer;
  const { cancelled, alreadyFinal, deployment } = answer.body;
  const of = (jobs: readonly string[]): string =>
    `${jobs.length === 1 ? "job" : "jobs"} ${jobs.map(shortId).join(", ")}`;
  const parts = [
    cancelled.length === 0 ? "" : `${of(cancelled)} cancelled`,
    alreadyFinal.length === 0 ? "" : `${of(alreadyFinal)} had ended`,
  ].filter((part) => part !== "");
  const line = parts.length === 0 ? `nothing to cancel in ${inLine(deployment.id)}` : parts.join(", ");
  const first = cancelled[0] ?? alreadyFinal[0];
  const next = first === undefined ? "plumule ls" : `plumule get ${shortId(first)}`;
  printDone(terminal, { line, next, id: cancelled.join("\n"), answer: answer.body });
  return answer.body;
}

/** `plumule delete`: tears a deployment down. */
export function deleteCommand(): Command {
  return new Command("delete")
    .summary("tear a deployment down")
    .description(
      "Removes a deployment once nothing runs in it; with --shell a script tears down first what it made. Its name is not used again.",
    )
    .argument("<deployment>", "name of the deployment")
    .option("--shell <script>", "what takes down what the deployment made; its success removes the deployment")
    .option("--reason <text>", "why, for those who look later")
    .action(act(remove));
}

async function remove(
  { terminal, connect }: Context,
  deployment: string,
  { shell, reason }: ReasonFlags & { shell?: string },
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const answer = await connection.ask(deleteDeployment, {
    params: { ns: connection.ns, deployment },
    body: { reason, ...(shell === undefined ? {} : { task: { kind: "shell" as const, script: shell } }) },
    headers: { "idempotency-key": randomUUID() },
  });
  if (isFailure(answer)) return answer;
  const name = inLine(deployment);
  if (answer.status === 202) {
    const { job } = answer.body;
    const line = `${name} is torn down by job ${shortId(job.id)}`;
    printDone(terminal, { line, next: `plumule watch ${shortId(job.id)}`, id: job.id, answer: answer.body });
  } else {
    const gone = answer.body.state === "idle";
    const line = gone ? `${name} is removed` : `${name} is removed when its jobs have ended`;
    printDone(terminal, { line, next: "plumule ls deployments", id: deployment, answer: answer.body });
  }
  return EXIT.ok;
}

type ApproveFlags = KeyFlags & { commit?: string; plan?: string };

/** `plumule approve`: lets a held job start. */
export function approveCommand(): Command {
  return new Command("approve")
    .summary("let a held job start")
    .description(
      "Lets a held job start. The job of a stranger (neither a delegate of the repository nor named by the rule) needs the signature of a delegate: it is made here, for this job, commit and task alone.",
    )
    .argument("[id]", "job; by default the job of HEAD")
    .option("--commit <commit>", "only if the job is about this commit")
    .option("--plan <sha256>", "exactly this plan, of an effect that has made one (plumule get shows it)")
    .option(...KEY_FLAG)
    .action(
      act(async (context: Context, id: string | undefined, flags: ApproveFlags) =>
        actOnJob(context, id, "approved", async (connection, found) => {
          const approval = await signFor(context, connection, found, flags);
          if (isFailure(approval)) return approval;
          const { commit, plan } = flags;
          return connection.ask(approveJob, {
            params: { ns: connection.ns, job: found.job.id },
            body: {
              ...(commit === undefined ? {} : { commit }),
              ...(plan === undefined ? {} : { plan }),
              ...(approval === null ? {} : { approval }),
            },
          });
        }),
      ),
    );
}

/** The approval of a stranger's job, signed; null for a job that needs none. What is signed is what the broker shows, and said aloud. */
async function signFor(
  { terminal, env, cwd }: Context,
  { place, ns }: Connection,
  { job, spec }: FoundJob,
  flags: ApproveFlags,
): Promise<Envelope | null | Failure> {
  if (job.stranger === undefined || job.source === null) return null;
  const signer = await findPersonKey(flags, { env, cwd });
  if (isFailure(signer)) return signer;
  const { commit, repository } = job.source;
  terminal.note(
    `approving commit ${commit} of ${inLine(repository)} by ${inLine(job.stranger.author ?? "nobody who is named")}, as ${didKeyOf(signer.publicKey)}`,
  );
  const taskSha256 = await sha256Hex(utf8(JSON.stringify(spec.task)));
  const audience = `${place.url}/v1/${ns}`;
  return signApproval({ audience, namespace: ns, deployment: job.deployment, job: job.id, commit, taskSha256 }, signer);
}

/** `plumule resolve`: says how a job ended of which nobody knows. */
export function resolveCommand(): Command {
  return new Command("resolve")
    .summary("say how a job ended whose runner vanished while it applied")
    .argument("<id>", "job")
    .addArgument(new Argument("<outcome>", "how it ended").choices(["succeeded", "failed", "cancelled"]))
    .option("--reason <text>", "how you know")
    .action(
      act(async (context: Context, id: string, outcome: "succeeded" | "failed" | "cancelled", flags: ReasonFlags) =>
        actOnJob(context, id, "resolved", (connection, { job }) =>
          connection.ask(resolveUnknown, { params: { ns: connection.ns, job: job.id }, body: { outcome, ...flags } }),
        ),
      ),
    );
}

async function actOnJob(
  { terminal, cwd, connect }: Context,
  id: string | undefined,
  done: string,
  ask: (connection: Connection, found: FoundJob) => Promise<{ body: JobView } | Failure>,
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, id, cwd);
  if (isFailure(found)) return found;
  const answer = await ask(connection, found);
  if (isFailure(answer)) return answer;
  const job = answer.body;
  const line = `job ${shortId(job.id)} ${done}, now ${paintState(job.state)}`;
  printDone(terminal, { line, next: `plumule watch ${shortId(job.id)}`, id: job.id, answer: job });
  return EXIT.ok;
}
