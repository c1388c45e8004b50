import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { followPushes, openJobCobs, type OwnWord, readDefaultBranch, readNodeId, writeOwnCobs } from "@plumule/bridge";
import {
  isRefusal,
  parseJson,
  parseRadicleUrl,
  type Plan,
  planJobs,
  type Push,
  type SubmitBody,
  type Trigger,
  type TriggersBody,
  triggersBodySchema,
  verifyStatement,
} from "@plumule/protocol";
import { type Desk, type LocalJob, type RunnerConfig, runnerConfigSchema } from "@plumule/runner";
import { explanationLines } from "./bridge-lines.ts";
import type { Context } from "./context.ts";
import { EXIT, type ExitCode } from "./exit-codes.ts";
import { type Failure, misuse } from "./failure.ts";
import type { RunnerSettings } from "./runner-settings.ts";

/** What a runner follows: repositories (`z…`) of a node, by which rules, and as which node (`z6Mk…`) it writes job COBs; null: none. */
export type Following = {
  config: RunnerConfig;
  repositories: readonly string[];
  rules: (push: Push) => Promise<Plan[]>;
  node: string | null;
};

/** Reads what a runner with these settings would follow; null for one that follows nothing, or would not start at all, which it says itself. */
export async function prepareFollowing(settings: RunnerSettings): Promise<Following | null | Failure> {
  const config = runnerConfigSchema.safeParse(settings).data;
  if (config === undefined || config.follow.length === 0) return null;
  const written = config.followRules === undefined ? null : await readRules(config.followRules);
  if (written !== null && "what" in written) return written;
  const node = config.followCobs ? await readNodeId(config.radHome) : null;
  if (config.followCobs && node === null)
    return misuse(
      `There is no node's key in ${join(config.radHome, "keys")}, in whose name job COBs could be written`,
      "Make one: `rad auth`, or do without: --follow-without-cobs.",
    );
  const rules = async (push: Push): Promise<Plan[]> => {
    const { triggers, ...beside } = written ?? { triggers: await defaultRules(config.radHome, push) };
    return planJobs(push, triggers, beside);
  };
  return { config, repositories: config.follow.map((rid) => rid.slice("rad:".length)), rules, node };
}

async function readRules(path: string): Promise<TriggersBody | Failure> {
  const next = "Give it the document of `plumule triggers set` (docs/triggers.md).";
  const bytes = await readFile(path).catch(() => null);
  if (bytes === null) return misuse(`${path} cannot be read`, next);
  const json = parseJson(bytes);
  if (isRefusal(json)) return misuse(`${path}: ${json.detail}`, next);
  // Hooks are how a broker knows its senders; there are none here.
  const parsed = triggersBodySchema.safeParse({ hooks: [], ...(json.value as object) });
  if (parsed.success) return parsed.data;
  const errors = parsed.error.issues.map(({ path: at, message }) => ({ pointer: `/${at.join("/")}`, detail: message }));
  return misuse(`${path} holds no rules`, next, errors);
}

/** The rule of whoever writes none: the default branch, as far as delegates move it, in a deployment of the repository's name. */
async function defaultRules(radHome: string, { repository }: Push): Promise<Trigger[]> {
  const branch = await readDefaultBranch(radHome, parseRadicleUrl(repository)?.id ?? "");
  return branch === null
    ? []
    : [{ name: "default-branch", refs: [branch], deployment: "{repository}", task: { kind: "repository" } }];
}

/** A job that a plan comes to here, or why none: what needs others, or a broker's secrets, is left to the broker. */
function workOf(plan: Plan): { deployment: string; spec: SubmitBody } | { why: string } {
  if (plan.deployment === null) return { why: plan.detail };
  const { deployment, body, stranger } = plan;
  if (stranger !== null) return { why: `${stranger.why}: nothing of strangers is run without a broker` };
  if (body.task.kind === "effect") return { why: "an effect changes the world, and is run under a lease alone" };
  if (body.hold === true) return { why: "the rule holds its jobs for an approval, which a broker takes" };
  const needs = (["quorum", "secrets", "locks"] as const).filter((name) => body[name] !== undefined);
  if (needs.length > 0) return { why: `the rule asks for ${needs.join(" and ")}, which a broker has` };
  return { deployment, spec: body };
}

/** Follows until the signal aborts: pushes become jobs of the desk, and what becomes of these stands in job COBs. */
export async function follow(
  { config, repositories, rules, node, desk, runner }: Following & { desk: Desk; runner: string },
  { say, signal }: { say: (line: string) => void; signal: AbortSignal },
): Promise<void> {
  const { radHome, url, namespace } = config;
  const take = async (push: Push): Promise<void> => {
    for (const plan of await rules(push)) {
      const work = workOf(plan);
      if ("why" in work) continue;
      const job = await desk.offer(work);
      if (job !== null) say(`${push.ref} ${push.after.slice(0, 7)} → job ${job.job} of ${job.deployment}`);
    }
  };
  const options = { radHome, state: join(config.state, "follow"), repositories, dryRun: false };
  const wordOf = (job: LocalJob): Promise<OwnWord | null> => ownWordOf(job, { url, namespace, runner });
  await Promise.all([
    followPushes(options, { now: () => new Date(), say, take, signal }),
    node === null
      ? null
      : writeOwnCobs({
          node,
          openCobs: (repository) => openJobCobs(repository, radHome),
          due: async () => (await Promise.all(desk.list().map(wordOf))).filter((word) => word !== null),
          written: ({ job, word }) => desk.note(job, { said: word === "started" ? "started" : "ended" }),
          change: () => desk.change(),
          say,
          signal,
        }),
  ]);
}

/** What has still to be said of a job, from what its runner has signed. Null: nothing. */
async function ownWordOf(
  { job, run, deployment, spec, state, result, said, identity }: LocalJob,
  { url, namespace, runner }: { url: string | undefined; namespace: string; runner: string },
): Promise<OwnWord | null> {
  const repository = parseRadicleUrl(spec.source?.repository ?? "")?.id;
  const commit = spec.source?.commit;
  if (repository === undefined || commit === undefined || said === "ended") return null;
  // The page that the broker has of it as soon as it is told; without one a name that leads nowhere and is this job's alone.
  const log = url === undefined ? `urn:uuid:${job}` : `${url}/j/${job}`;
  const about = { job, repository, commit, log };
  if (state === "running" && said === "nothing") return { ...about, word: "started" };
  if (state !== "ended" || result === null) return null;
  const expected = { namespace, deployment, job, run, epoch: 0, identity, commit };
  const checked = await verifyStatement(result.statements[0], { signers: [runner], expected });
  const succeeded = checked.ok && (checked.claims.result === "succeeded" || checked.claims.result === "skipped");
  return { ...about, word: succeeded ? "succeeded" : "failed" };
}

/** Says what each push since the last start would begin, and why not. */
export async function explainFollowing(
  { terminal }: Context,
  following: Following | null,
): Promise<ExitCode | Failure> {
  if (following === null) return misuse("This runner follows no repository", "Name one: --follow rad:z….");
  const { config, repositories, rules } = following;
  const say = terminal.json ? (): void => {} : terminal.out;
  const take = async (push: Push): Promise<void> => {
    const plans = await rules(push);
    for (const plan of plans) {
      const work = workOf(plan);
      if (terminal.json) terminal.data({ push, rule: plan.trigger, ...work });
      else
        say(
          `${push.ref} ${push.after.slice(0, 7)}, rule ${plan.trigger}: ${"why" in work ? `nothing: ${work.why}` : `a job of ${work.deployment}`}`,
        );
    }
    if (plans.length === 0) say(`${push.ref}: nothing: the repository names no default branch`);
  };
  const options = { radHome: config.radHome, state: join(config.state, "follow"), repositories, dryRun: true };
  await followPushes(options, {
    now: () => new Date(),
    say,
    take,
    signal: AbortSignal.timeout(60_000),
    explain: (what) => {
      if (what.kind === "look")
        for (const line of explanationLines({
          ...what,
          look: { ...what.look, why: null, findings: what.look.findings.filter(({ push }) => push === null) },
        }))
          say(line);
    },
  });
  return EXIT.ok;
}
