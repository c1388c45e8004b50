import {
  EXEC_FEATURE,
  type ExecCall,
  LIMITS,
  type Millis,
  refuse,
  type Refusal,
  type RunnerId,
} from "@plumule/protocol";
import type { Runner } from "./core/fleet.ts";

/** Calls into sessions that runners have not heard of yet. In memory only: a session that nobody joins is over within seconds. */
export class ExecCalls {
  readonly #waiting = new Map<RunnerId, { call: ExecCall; until: Millis }[]>();

  add(runner: RunnerId, call: ExecCall, now: Millis): void {
    this.#waiting.set(runner, [...this.#of(runner, now), { call, until: now + LIMITS.execJoinMs }]);
  }

  /** The next call of a runner, which is not told again; null when there is none. */
  take(runner: RunnerId, now: Millis): ExecCall | null {
    const [first, ...rest] = this.#of(runner, now);
    if (rest.length === 0) this.#waiting.delete(runner);
    else this.#waiting.set(runner, rest);
    return first?.call ?? null;
  }

  #of(runner: RunnerId, now: Millis): { call: ExecCall; until: Millis }[] {
    return (this.#waiting.get(runner) ?? []).filter(({ until }) => until > now).slice(-LIMITS.execSessions);
  }
}

/** Why a runner cannot be called into a session; null when it can. */
export function refuseCall(runner: Runner | undefined): Refusal | null {
  if (runner?.online !== true)
    return refuse("wrong-state", "The runner of this run is not connected, so that nobody can be let in.", {
      next: "Start it again: a run that works is followed, and a workspace that was kept is still there.",
    });
  if (runner.offer.features.includes(EXEC_FEATURE)) return null;
  return refuse("forbidden", `The owner of the runner ${runner.offer.name} lets nobody into its workspaces.`, {
    next: "Its owner may allow it: `plumule runner start --allow-exec`.",
  });
}
