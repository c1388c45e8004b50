import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { aborted } from "./signals.ts";

// Broker and runner are processes of their own: a crash of one is not the other's, and a Ctrl-C in the terminal reaches neither
// before their parent has decided in which order they end.

type ToChild<Options> = { kind: "start"; options: Options } | { kind: "stop" };
type FromChild<Started> =
  | { kind: "said"; line: string }
  | { kind: "started"; started: Started }
  | { kind: "refused"; detail: string };

/** What a child does: `started` is what its parent gets to know, every `stop` is one step of leaving, `done` is its exit code. */
export type Service<Started> = { started: Started; stop(): void; done: Promise<number> };

/** A process that was started. */
export type Child<Started> = {
  started: Started;
  pid: number;
  /** Its exit code; 137 when it was killed. */
  done: Promise<number>;
  /** Asks for the next step of leaving. */
  stop(): void;
  /** Resolves to true when it has ended, to false when it has not after so many ms or when `hurry` aborts. */
  hasEnded(ms: number, hurry?: AbortSignal): Promise<boolean>;
  /** Kills it and every process of its group. */
  kill(): Promise<void>;
};

/** Starts `module` as a process that calls `serveParent`. `say` gets its lines. A refusal is a sentence for a person. */
export async function startChild<Options, Started>(
  module: string,
  options: Options,
  say: (line: string) => void,
): Promise<Child<Started> | { refused: string }> {
  const child = fork(module, { detached: true, stdio: ["ignore", "ignore", "pipe", "ipc"] });
  const { pid } = child;
  if (pid === undefined) return { refused: `${module} could not be started.` };
  const send = (message: ToChild<Options>): void => void (child.connected && child.send(message));
  const done = once(child, "exit").then(([code]) => (code as number | null) ?? 137);
  let faults = "";
  child.stderr?.on("data", (chunk: Buffer) => (faults = `${faults}${chunk.toString()}`.slice(-2_000)));
  const answer = new Promise<{ started: Started } | { refused: string }>((resolve) => {
    child.on("message", (message: FromChild<Started>) => {
      if (message.kind === "said") say(message.line);
      else resolve(message.kind === "started" ? { started: message.started } : { refused: message.detail });
    });
    void done.then((code) => resolve({ refused: `${module} ended with code ${code}. ${faults}`.trim() }));
  });
  send({ kind: "start", options });
  const begun = await answer;
  if ("refused" in begun) return begun;
  return {
    started: begun.started,
    pid,
    done,
    stop: () => send({ kind: "stop" }),
    hasEnded: (ms, hurry) => {
      const ways = [done.then(() => true), pause(ms, false, { ref: false })];
      return Promise.race(hurry === undefined ? ways : [...ways, aborted(hurry).then(() => false)]);
    },
    async kill() {
      try {
        process.kill(-pid, "SIGKILL");
      } catch {
        // It has just ended by itself.
      }
      await done;
    },
  };
}

/** The child's side. It leaves at once when its parent is gone, so that no broken parent leaves an orphan. */
export function serveParent<Options, Started>(
  start: (options: Options, say: (line: string) => void) => Promise<Service<Started> | { refused: string }>,
): void {
  const tell = (message: FromChild<Started>): void => void (process.connected && process.send?.(message));
  const running = Promise.withResolvers<Service<Started>>();
  const run = async (options: Options): Promise<number> => {
    const service = await start(options, (line) => tell({ kind: "said", line }));
    if ("refused" in service) {
      tell({ kind: "refused", detail: service.refused });
      return 1;
    }
    tell({ kind: "started", started: service.started });
    running.resolve(service);
    return service.done;
  };
  process.on("message", (message: ToChild<Options>) => {
    if (message.kind === "stop") void running.promise.then((service) => service.stop());
    else void run(message.options).then((code) => process.exit(code));
  });
  process.on("disconnect", () => process.exit(1));
}
