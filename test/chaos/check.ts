import type { Evidence, Finding, History, Promised, StoredJob } from "./history.ts";
import { checkLogs } from "./check-logs.ts";
import { checkStreams } from "./check-streams.ts";

const FINAL = new Set(["succeeded", "failed", "cancelled", "superseded", "skipped", "unknown"]);

/** Replays a history. Every finding is a broken promise; an empty list says that what was seen is what was promised. */
export function checkHistory(history: History): Finding[] {
  return [
    ...checkSubmits(history),
    ...checkAnswers(history),
    ...checkLeases(history),
    ...checkStopped(history),
    ...checkFinal(history),
    ...checkStreams(history),
    ...checkLogs(history),
    ...checkLeftovers(history),
  ];
}

const finding =
  (promise: Promised) =>
  (detail: string): Finding => ({ promise, detail });

/** Every submit that was answered 2xx is a job, one that was refused is none, and no wish became two. */
function checkSubmits({ submits, jobs }: History): Finding[] {
  const broken = finding("P2 no submit lost");
  const byId = new Map(jobs.map((job) => [job.id, job]));
  const byKey = Map.groupBy(jobs, (job) => job.key);
  return submits.flatMap(({ key, deployment, joinable, answers, tryCount }) => {
    const made = byKey.get(key) ?? [];
    const accepted = answers.find(({ job }) => job !== null);
    if (accepted?.job === undefined || accepted.job === null) {
      if (answers.length === 0)
        return [broken(`submit ${key} got no answer in ${tryCount} tries, faults having stopped`)];
      return made.map((job) => broken(`submit ${key} was refused (${answers.at(-1)?.code}), and is job ${job.id}`));
    }
    const job = byId.get(accepted.job);
    if (job === undefined) return [broken(`submit ${key} was answered with job ${accepted.job}, which is not there`)];
    if (job.deployment !== deployment) return [broken(`job ${job.id} of ${deployment} is in ${job.deployment}`)];
    if (job.key !== key && !joinable) return [broken(`submit ${key} was answered with job ${job.id} of ${job.key}`)];
    const others = made.filter(({ id }) => id !== job.id);
    return others.map(({ id }) => broken(`submit ${key} became job ${job.id} and also job ${id}`));
  });
}

/** One key, one answer; with another body 422. */
function checkAnswers({ submits }: History): Finding[] {
  const broken = finding("P8 idempotency");
  return submits.flatMap(({ key, answers, otherBody }) => {
    const first = answers.findIndex(({ job }) => job !== null);
    const later = first === -1 ? [] : answers.slice(first + 1);
    const other = later.find(({ digest }) => digest !== answers[first]?.digest);
    return [
      ...(other === undefined ? [] : [broken(`key ${key} was answered ${other.status} otherwise than before`)]),
      ...(otherBody === null || otherBody === 422
        ? []
        : [broken(`key ${key} with another body was answered ${otherBody}`)]),
    ];
  });
}

/**
 * What the jobs of a deployment wrote is one run after another: from the first word of a run on, none that was granted before says anything,
 * neither it nor a daemon that it left.
 */
function checkLeases({ evidence, jobs }: History): Finding[] {
  const broken = finding("P1 one live lease");
  const runs = new Map(jobs.flatMap((job) => job.runs.map((run) => [run.id, run] as const)));
  return [...Map.groupBy(evidence, ({ deployment }) => deployment).values()].flatMap((lines) => {
    // One word too many is enough to know of a run.
    const found = new Map<string, Finding>();
    const started = new Set<string>();
    let at: { run: string; epoch: number } | null = null;
    for (const { run, what, value } of lines) {
      const epoch = runs.get(run)?.epoch;
      const wrong = (detail: string): unknown => found.has(run) || found.set(run, broken(`run ${run} ${detail}`));
      if (epoch === undefined) wrong("worked, and the broker does not know it");
      else if (what === "start" && started.has(run)) wrong("was started twice");
      else if (at !== null && epoch < at.epoch)
        wrong(`(epoch ${epoch}) wrote ${what} ${value} after run ${at.run} (epoch ${at.epoch}) had started`);
      else at = { run, epoch };
      if (what === "start") started.add(run);
    }
    return [...found.values()];
  });
}

/** A job that somebody was told is superseded or cancelled is never green; and what is green has done its work. */
function checkStopped({ submits, cancels, jobs, evidence }: History): Finding[] {
  const broken = finding("P4 stopped is not green");
  const acknowledged = new Set([
    ...submits.flatMap(({ answers }) => answers.flatMap(({ superseded }) => superseded)),
    ...cancels.flatMap((cancel) => cancel.jobs),
  ]);
  const ends = Map.groupBy(
    evidence.filter(({ what }) => what === "end"),
    ({ run }) => run,
  );
  return jobs
    .filter(({ state }) => state === "succeeded")
    .flatMap((job) => [
      ...(acknowledged.has(job.id) ? [broken(`job ${job.id} succeeded after it was acknowledged as stopped`)] : []),
      ...(hasWorked(job, ends) ? [] : [broken(`job ${job.id} succeeded, and none of its runs came to the end with 0`)]),
    ]);
}

function hasWorked({ runs }: StoredJob, ends: ReadonlyMap<string, readonly Evidence[]>): boolean {
  return runs.some(({ id, state }) => state === "succeeded" && ends.get(id)?.some(({ value }) => value === 0));
}

/** Once faults have stopped every job is final, and its runs are; it became so once, in every stream that tells of it, and stays. */
function checkFinal({ jobs, streams }: History): Finding[] {
  const broken = finding("P6 one final state");
  const told = streams.map(({ source, events }) => ({
    source,
    byJob: Map.groupBy(
      events.filter(({ type }) => FINAL.has(type.replace(/^job\./, ""))),
      ({ job }) => job,
    ),
  }));
  return jobs.flatMap(({ id, deployment, state, runs }) => {
    if (!FINAL.has(state)) return [broken(`job ${id} of ${deployment} is still ${state}`)];
    const open = runs.filter((run) => run.state === "assigned" || run.state === "running");
    const wrong = told
      .filter(({ source }) => !source.includes("/deployments/") || source.endsWith(`/deployments/${deployment}`))
      .map(({ source, byJob }) => ({ source, types: (byJob.get(id) ?? []).map(({ type }) => type) }))
      .filter(({ types }) => types.length !== 1 || types[0] !== `job.${state}`);
    return [
      ...open.map((run) => broken(`job ${id} is ${state}, and its run ${run.id} is ${run.state}`)),
      ...wrong.map(({ source, types }) =>
        broken(`job ${id} is ${state}, and ${source} tells ${types.join(", ") || "nothing"}`),
      ),
    ];
  });
}

function checkLeftovers({ faults, leftovers, memory }: History): Finding[] {
  const { maxBytes, limitBytes } = memory;
  return [
    ...faults.map(finding("a 500 is a bug")),
    ...leftovers.map((command) => finding("P15 nothing is left")(`still alive: ${command}`)),
    ...(maxBytes <= limitBytes
      ? []
      : [finding("P14 bounded memory")(`the broker took ${maxBytes} bytes, and may take ${limitBytes}`)]),
  ];
}
