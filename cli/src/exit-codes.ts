import { type JobView, type Problem, wholeState } from "@plumule/protocol";

/** What `plumule` ends with. A contract with scripts: codes are added, never changed. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  authentication: 3,
  notFound: 4,
  conflict: 5,
  cancelled: 6,
  superseded: 7,
  unverified: 8,
  noRunner: 9,
  unreachable: 69,
  tryAgain: 75,
  outdated: 76,
  timeout: 124,
  neverRan: 125,
  interrupted: 130,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What each code means, as `plumule help exit-codes` prints it. */
export const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  ok: "done; of a job: it succeeded, or there was nothing to do",
  failed: "the job failed, or ended in a state that a person must resolve",
  usage: "wrong flags or wrong input",
  authentication: "no token, a wrong one, or one without the scope",
  notFound: "there is no such thing, or it is no longer kept",
  conflict: "busy, another revision, already ended, or in its apply phase",
  cancelled: "the job was cancelled",
  superseded: "a newer job took the job's place",
  unverified: "a check failed, or no key that you pinned has signed",
  noRunner: "no runner can do the job",
  unreachable: "the broker, a repository or NATS cannot be reached",
  tryAgain: "a rate or quota, or the broker is busy; try again later",
  outdated: "this plumule is too old for the broker",
  timeout: "the time given with --timeout is over; a job goes on, a command in a workspace is stopped",
  neverRan: "workspace exec: the command never ran; any other code but 124 and 130 is the command's own",
  interrupted: "Ctrl-C; a job that was submitted goes on",
};

/** The lines of `plumule help exit-codes`. */
export function exitCodeLines(): string[] {
  const names = Object.keys(EXIT) as (keyof typeof EXIT)[];
  return names.map((name) => `${String(EXIT[name]).padStart(4)}  ${EXIT_MEANINGS[name]}`);
}

/** The code for a job that ended. A job that nobody took in time failed for want of a runner. */
export function exitOfJob({ state, reason }: Pick<JobView, "state" | "reason">): ExitCode {
  switch (state) {
    case "succeeded":
    case "skipped":
      return EXIT.ok;
    case "cancelled":
      return EXIT.cancelled;
    case "superseded":
      return EXIT.superseded;
    case "failed":
      return reason?.code === "queue-timeout" ? EXIT.noRunner : EXIT.failed;
    case "held":
    case "queued":
    case "assigned":
    case "running":
    case "cancelling":
    case "unknown":
      return EXIT.failed;
  }
}

/** The code for a job together with the jobs that its task file became: of several ends the worst. */
export function exitOfWhole(
  job: Pick<JobView, "state" | "reason">,
  steps: readonly Pick<JobView, "state" | "reason">[],
): ExitCode {
  const state = wholeState(job, steps);
  return exitOfJob(steps.find((step) => step.state === state) ?? { ...job, state });
}

/** The code for a refusal of the broker. Answers that are not the broker's own (a proxy's error page) count as not reaching it. */
export function exitOfProblem({ status, code }: Pick<Problem, "status" | "code">): ExitCode {
  if (code === "idempotency-mismatch") return EXIT.conflict;
  if (code === "internal" && status !== 500) return EXIT.unreachable;
  if (code === "protocol-too-old") return EXIT.outdated;
  if (status === 401 || status === 403) return EXIT.authentication;
  if (status === 404 || status === 410) return EXIT.notFound;
  if (status === 409 || status === 412) return EXIT.conflict;
  return status === 429 || status >= 500 ? EXIT.tryAgain : EXIT.usage;
}
