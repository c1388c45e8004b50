import type { CobRun } from "@plumule/bridge";
import { type Derivation, jobCreatedAt, type RunView } from "@plumule/protocol";
import { fit, paint, shortId, shortKey } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import type { Impossible } from "./impossible.ts";
import type { Proof } from "./proof.ts";
import type { FirstBuild, Push, Replacement, Resumption } from "./replacement.ts";
import type { Stage } from "./stage.ts";

/** Columns of a line of a log. */
const LOG_COLUMNS = 100;
/** Lines of the log that are shown; it has more. */
const LOG_LINES = 8;

/** Where the time went, ms. `own` is what a build took beyond Nix alone. */
export type Times = {
  pushToQueuedMs: number;
  queuedToAssignedMs: number;
  assignedToFirstLogMs: number;
  runMs: number;
  bareNixMs: number;
  ownMs: number;
};

/** The times of the first push until its log came, and of the second's build. All clocks are this machine's. */
export function timesOf(first: Push, build: FirstBuild, second: RunView, bareNixMs: number): Times {
  const queuedAt = jobCreatedAt(first.job);
  const assignedAt = Date.parse(build.run.assignedAt);
  const runMs = Date.parse(second.finishedAt ?? "") - Date.parse(second.assignedAt);
  return {
    pushToQueuedMs: queuedAt - first.startedAt,
    queuedToAssignedMs: assignedAt - queuedAt,
    assignedToFirstLogMs: build.firstLogAt - assignedAt,
    runMs,
    bareNixMs: Math.round(bareNixMs),
    ownMs: Math.round(runMs - bareNixMs),
  };
}

/** What was started. */
export function describeParts({ instance, runner, offer, folder, garden }: Stage): string[] {
  return [
    `broker ${instance.url}, runner ${shortKey(runner)} (${offer.systems.join(", ")}, isolation ${offer.isolation})`,
    `a Nix store of its own; everything in ${folder}`,
    `pushes go to ${garden.described}`,
  ];
}

/** A push, and what was said to the person who pushed. */
export function describePush({ garden }: Stage, { commit, message, said }: Push): string[] {
  const lines = said.map((line) => paint.quiet(inLine(line).trimEnd()));
  return [`${garden.command}: commit ${commit.slice(0, 7)} "${message}"`, ...lines];
}

/** The first build at work, with the end of its log. */
export function describeBuild({ job }: Push, { run, processes, log }: FirstBuild): string[] {
  const queuedToAssignedMs = Date.parse(run.assignedAt) - jobCreatedAt(job);
  const lines = log().trimEnd().split("\n");
  const shown = lines.slice(-LOG_LINES).map((line) => `${paint.quiet("│")} ${fit(line, LOG_COLUMNS)}`);
  const count = processes === null ? "" : `, ${processes.length} processes`;
  return [
    `job ${shortId(job)} queued, assigned to the local runner in ${queuedToAssignedMs} ms`,
    `building as run ${shortId(run.id)}${count}; its log:`,
    ...shown,
  ];
}

/** What the second push did while the cable was out. */
export function describeReplacement(
  stage: Stage,
  { push, replaced, stoppedProcessCount, cutMs }: Replacement,
): string[] {
  const gone = stoppedProcessCount === null ? "" : `; its ${stoppedProcessCount} processes are gone`;
  return [
    ...describePush(stage, push),
    `second push replaced the first: ${shortId(replaced.id)} ${replaced.state} by ${shortId(push.job)}${gone}`,
    `cable back after ${(cutMs / 1000).toFixed(1)} s`,
  ];
}

/** How the watcher came back. */
export function describeResumption(
  { cutAt }: Replacement,
  { recoveredCount, lostCount, eventCount }: Resumption,
): string[] {
  return [
    `resumed at event ${cutAt}: ${recoveredCount} recovered, ${lostCount} lost (all ${eventCount} events equal the broker's history)`,
  ];
}

/** What became of each derivation, in the order in which they were built. */
export function describeDerivations(derivations: readonly Derivation[]): string[] {
  const inOrder = derivations.toSorted((a, b) => ((a.startedAt ?? "") < (b.startedAt ?? "") ? -1 : 1));
  const signs = inOrder.map(({ name, state }) => `${name} ${signOf(state)}`);
  return [`${signs.join("  ")}   (${derivations.length} derivations)`];
}

function signOf(state: Derivation["state"]): string {
  if (state === "built") return paint.good("✔");
  return state === "cached" || state === "substituted" ? paint.quiet("= there already") : paint.bad(state);
}

/** Why a job waits that nobody can do. */
export function describeImpossible({ system, waiting }: Impossible): string[] {
  return [`a job for ${system} waits: ${inLine(waiting.detail)}`];
}

/** What verifying found. */
export function describeProof(runner: string, { statementCount, checkCount, failedCheck }: Proof): string[] {
  return [
    `signed by ${shortKey(runner)}: ${paint.good("✔")} ${statementCount} statements, ${checkCount} checks, with the broker stopped`,
    `one byte changed: ${paint.bad("✘")} fails at ${inLine(failedCheck)}`,
  ];
}

/** What the job COB of a commit says. */
export function describeCob({ node, run, status }: CobRun): string[] {
  return [
    `job COB, as rad-job reads it: ${paint.good("✔")} run ${run.slice(0, 8)} ${status}, by node ${shortKey(`did:key:${node}`)}`,
  ];
}

/** Where the time went. */
export function describeTimes(times: Times): string[] {
  const { pushToQueuedMs, queuedToAssignedMs, assignedToFirstLogMs, runMs, bareNixMs, ownMs } = times;
  return [
    `times: push → queued ${pushToQueuedMs} ms, queued → assigned ${queuedToAssignedMs} ms, assigned → first log line ${assignedToFirstLogMs} ms`,
    `       second build: ${runMs} ms from assignment to signed result; Nix alone ${bareNixMs} ms; plumule's own ${ownMs} ms`,
  ];
}
