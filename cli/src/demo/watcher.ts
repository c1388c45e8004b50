import {
  type Event,
  followDeployment,
  initialWatch,
  type JobView,
  type LogSink,
  type RunId,
  streamOpener,
  waitMs,
  type WatchState,
} from "@plumule/protocol";

/** Somebody who watches a deployment over one WebSocket that reconnects by itself. */
export type Watcher = {
  /** What is known now. */
  state(): WatchState;
  /** Every event that came, in the order in which it came. */
  events(): readonly Event[];
  /** Follows a run's log on the same socket. */
  log(run: RunId, sink: LogSink): void;
  /** Resolves with what `pick` finds in the state, now or later; rejects after `limitMs` with `what` was waited for. */
  until<T>(what: string, limitMs: number, pick: (state: WatchState) => T | null | undefined): Promise<T>;
  close: () => void;
};

/** Watches a deployment at `url`, which may be reached over a cable that breaks. */
export function watch(
  broker: { url: string; namespace: string; token: string },
  deployment: string,
  signal: AbortSignal,
): Watcher {
  const seen: Event[] = [];
  const waiters = new Set<(state: WatchState) => void>();
  const leave = new AbortController();
  let current = initialWatch();
  let refusal: string | null = null;
  const client = { fetch, baseUrl: broker.url, bearer: broker.token };
  const open = streamOpener(client, WebSocket, { ns: broker.namespace, deployment });
  const follower = followDeployment(
    { open, random: Math.random, wait: waitMs },
    {
      signal: AbortSignal.any([signal, leave.signal]),
      onState(state, events) {
        current = state;
        seen.push(...events);
        for (const waiter of waiters) waiter(state);
      },
    },
  );
  void follower.done.then((end) => {
    if (end.ended !== "refused") return;
    refusal = `the stream was refused: ${end.detail}`;
    for (const waiter of waiters) waiter(current);
  });
  return {
    state: () => current,
    events: () => seen,
    log: (run, sink) => void follower.log(run, sink),
    until(what, limitMs, pick) {
      return new Promise((resolve, reject) => {
        const settle = (act: () => void): void => {
          waiters.delete(look);
          clearTimeout(timer);
          act();
        };
        const look = (state: WatchState): void => {
          const found = pick(state);
          if (found !== null && found !== undefined) settle(() => resolve(found));
          else if (refusal !== null) settle(() => reject(new Error(refusal ?? what)));
        };
        const fail = (why: string): void => settle(() => reject(new Error(`${why} while waiting for ${what}`)));
        const timer = setTimeout(() => fail(`${limitMs / 1000} s passed`), limitMs);
        signal.addEventListener("abort", () => fail("interrupted"), { once: true });
        waiters.add(look);
        look(current);
      });
    },
    close: () => leave.abort(),
  };
}

/** The newest job of a commit, when the watcher knows one. */
export function jobOfCommit(state: WatchState, commit: string): JobView | undefined {
  return Object.values(state.jobs)
    .filter(({ source }) => source?.commit === commit)
    .toSorted((a, b) => (a.id < b.id ? 1 : -1))[0];
}
