/**
 * What a runner leaves with. A contract with whoever watches over the process: codes are added, never changed. `tryAgain`: what is wrong may pass, so
 * start it again; after the last four of them a start changes nothing before a person has done something.
 */
export const RUNNER_EXIT = {
  ok: 0,
  failed: 1,
  tryAgain: 2,
  /** Another process has the state folder. */
  conflict: 5,
  /** Too old for the broker. */
  outdated: 7,
  /** `EX_USAGE` of sysexits.h. */
  misconfigured: 64,
  /** The broker does not know this runner, or has revoked it: `EX_NOPERM` of sysexits.h. */
  refused: 77,
} as const;
export type RunnerExit = (typeof RUNNER_EXIT)[keyof typeof RUNNER_EXIT];

/** Why a runner did not start, what to do, and the code that says so. */
export type StartRefusal = { refused: string; exit: RunnerExit };
