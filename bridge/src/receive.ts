import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { HookConfig } from "./config.ts";
import { withChangedPaths } from "./changed-paths.ts";
import { deliver, type DeliverDeps, describeEnd } from "./deliver.ts";
import { audienceOf, isDeletion, parseRefUpdate, pushOf, type RefUpdate } from "./push.ts";
import { type DeliveryQueue, type QueuedDelivery } from "./queue.ts";

const run = promisify(execFile);

/** What handling a push needs. `say` gets one line per ref, for the person who pushes. */
export type ReceiveDeps = Omit<DeliverDeps, "budgetMs"> & { queue: DeliveryQueue; say: (line: string) => void };

/** How long a push may be held up by the broker, ms. */
const BUDGET_MS = 5_000;

/**
 * Handles the input of a `post-receive` hook: every ref update goes into the queue first, then the queue is delivered, older pushes before newer
 * ones. Nothing here fails the push, which has happened already; what could not be delivered goes out with the next one.
 */
export async function receivePush(
  input: string,
  config: HookConfig,
  gitDirectory: string,
  deps: ReceiveDeps,
): Promise<void> {
  const labels = new Map<string, string>();
  for (const line of input.split("\n").filter((text) => text !== "")) {
    const update = parseRefUpdate(line);
    if (update === null) {
      deps.say(`not a ref update: ${line.slice(0, 100)}`);
      continue;
    }
    const label = labelOf(update);
    const queued = await enqueue(update, config, gitDirectory, deps);
    if (typeof queued === "string") deps.say(`${label}: ${queued}`);
    else labels.set(queued.id, label);
  }
  const until = deps.now().getTime() + BUDGET_MS;
  for (const queued of await deps.queue.list()) {
    const budgetMs = Math.max(until - deps.now().getTime(), 0);
    const result = await deliver(queued, { ...deps, budgetMs });
    if (result.end !== "kept") await deps.queue.settle(queued.id);
    const label = labels.get(queued.id) ?? `an earlier push (${queued.createdAt})`;
    for (const line of describeEnd(label, result, queued, "kept for the next push")) deps.say(line);
  }
}

async function enqueue(
  update: RefUpdate,
  config: HookConfig,
  gitDirectory: string,
  { queue, now }: ReceiveDeps,
): Promise<QueuedDelivery | string> {
  const after = isDeletion(update) ? update.after : await commitOf(gitDirectory, update.after);
  const push = pushOf(
    { ...update, after },
    {
      audience: audienceOf(config.url, config.namespace),
      repository: config.repository,
      number: await queue.nextNumber(now()),
      message: isDeletion(update) ? null : await subjectOf(gitDirectory, update.after),
    },
  );
  if (!push.ok) return `starts no job (${push.detail})`;
  const { url, namespace, hook } = config;
  const added = await queue.add(
    { url, namespace, hook },
    JSON.stringify(await withChangedPaths(push.value, gitDirectory)),
    now(),
  );
  return added.ok ? added.value : `not sent: ${added.detail}`;
}

/** The commit that an annotated tag leads to: runners build commits. What is none stays as it is. */
async function commitOf(gitDirectory: string, oid: string): Promise<string> {
  return run("git", ["--git-dir", gitDirectory, "rev-parse", "--quiet", "--verify", `${oid}^{commit}`]).then(
    ({ stdout }) => stdout.trim(),
    () => oid,
  );
}

/** The first line of the commit's message, for people who read the list of jobs; null when git cannot tell. */
async function subjectOf(gitDirectory: string, commit: string): Promise<string | null> {
  const args = ["--git-dir", gitDirectory, "log", "-1", "--format=%s", commit, "--"];
  return run("git", args).then(
    ({ stdout }) => stdout.trim() || null,
    () => null,
  );
}

function labelOf(update: RefUpdate): string {
  return isDeletion(update) ? `${update.ref} deleted` : `${update.ref} ${update.after.slice(0, 7)}`;
}
