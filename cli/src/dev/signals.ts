/** The wishes of a person who wants a command to end: `leave` with the first signal, `hurry` with the second. */
export type Signals = { leave: AbortSignal; hurry: AbortSignal; close(): void };

const NAMES = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Takes the signals of this process until `close`. */
export function takeSignals(): Signals {
  const leave = new AbortController();
  const hurry = new AbortController();
  const take = (): void => (leave.signal.aborted ? hurry : leave).abort();
  for (const name of NAMES) process.on(name, take);
  const close = (): void => NAMES.forEach((name) => process.off(name, take));
  return { leave: leave.signal, hurry: hurry.signal, close };
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  if (signal.aborted) resolve();
  return promise;
}
