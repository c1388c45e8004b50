import { getCommitRuns, parseRadicleUrl } from "@plumule/protocol";
import { radHomeOf } from "./bridge-place.ts";
import { readCheckout } from "./checkout.ts";
import type { Connection } from "./connection.ts";
import type { Context } from "./context.ts";
import { EXIT } from "./exit-codes.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";
import { ageOf, paint, paintState, shortKey, tableLines } from "./print.ts";
import { inLine } from "./terminal-text.ts";

/** A run of a commit that a node (did:key) stands for: the runner at the broker, or whose job COB it is. `url` is where people see it; `at` in ms. */
export type NodeRun = {
  node: string;
  run: string;
  status: "started" | "succeeded" | "failed";
  url: string;
  at: number;
};

/** What radicle-job answers of one node: its runs by how they stand, and the latest. */
export type NodeRuns = Record<NodeRun["status"], NodeRun[]> & { node: string; latest: NodeRun };

/** Runs by node, the node with the latest run first; within a node the newest first. */
export function byNode(runs: readonly NodeRun[]): NodeRuns[] {
  const newestFirst = runs.toSorted((one, other) => other.at - one.at);
  return [...Map.groupBy(newestFirst, ({ node }) => node)].flatMap(([node, own]) => {
    const of = (status: NodeRun["status"]): NodeRun[] => own.filter((run) => run.status === status);
    const [latest] = own;
    if (latest === undefined) return [];
    return [{ node, latest, started: of("started"), succeeded: of("succeeded"), failed: of("failed") }];
  });
}

/** A table with a row for each node. */
export function byNodeTable(nodes: readonly NodeRuns[], now: number): string[] {
  const rows = nodes.map(({ node, started, succeeded, failed, latest }) => [
    paint.strong(shortKey(node)),
    String(started.length),
    String(succeeded.length),
    String(failed.length),
    latest.status === "started" ? paint.busy(latest.status) : paintState(latest.status),
    ageOf(new Date(latest.at).toISOString(), now),
    inLine(latest.url),
  ]);
  return tableLines(["NODE", "STARTED", "SUCCEEDED", "FAILED", "LATEST", "AGE", "SEE"], rows);
}

/** The runs of a commit that the broker knows. */
export async function runsAtBroker(connection: Connection, commit: string): Promise<NodeRun[] | Failure> {
  const answer = await connection.ask(getCommitRuns, { params: { ns: connection.ns, commit }, query: {} });
  if (isFailure(answer)) return answer;
  return answer.body.items.flatMap(({ job, node, run, status }) =>
    node === null || run === null
      ? []
      : [
          {
            node,
            run,
            status,
            url: `${connection.place.url}/j/${job.id}`,
            at: Date.parse(job.startedAt ?? job.createdAt),
          },
        ],
  );
}

/** The runs of a commit in the job COBs of the checkout's repository, as the node on this machine has them. Nobody is asked. */
export async function runsInCobs(
  { cwd, env }: Pick<Context, "cwd" | "env">,
  commit: string,
): Promise<NodeRun[] | Failure> {
  const checkout = await readCheckout(cwd);
  const name = checkout?.repository == null ? null : parseRadicleUrl(checkout.repository);
  if (name === null)
    return misuse("This is no checkout of a repository on Radicle", "Stand in one: it has a remote called `rad`.");
  try {
    const { openJobCobs } = await import("@plumule/bridge");
    const runs = await openJobCobs(name.id, radHomeOf(undefined, { cwd, env })).runsOf(commit);
    return (runs ?? []).map(({ node, run, status, log, recordedAt }) => ({
      node: `did:key:${node}`,
      run,
      status,
      url: log,
      at: recordedAt,
    }));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return {
      exit: EXIT.failed,
      what: "The job COBs cannot be read",
      why,
      next: "Install radicle-job, and see `rad .`.",
    };
  }
}
