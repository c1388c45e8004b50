import { constants } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import { EXEC_CHANNELS, type ExecCall, type ExecRunnerFrame } from "@plumule/protocol";
import type { ContainerPlace } from "../container.ts";
import type { Confinement, RunnerIsolationLevel } from "../isolation.ts";
import { runProcess } from "../process.ts";
import type { RedactedStream } from "../redact.ts";
import type { Shade } from "../shade.ts";
import { channelOf, type ExecSocket, openLine } from "./line.ts";
import { maskedOutput } from "./mask.ts";
import { inTerminal, resizeTerminal } from "./terminal.ts";

/** Where a command of a session runs, and what of its output has to be masked. */
export type ExecPlace = {
  workspace: "running" | "kept";
  cwd: string;
  env: Readonly<Record<string, string>>;
  level: RunnerIsolationLevel;
  enter: readonly string[];
  /** The container that is made for it, at that level. */
  container?: ContainerPlace;
  /** What it does not see, where it is not made in a run. */
  shade?: Shade;
  /** Words before the command line, in place of `enter` where nothing is inside that starts processes. */
  prefix: readonly string[];
  within: Confinement;
  /** What the person is told of how well it is kept apart. */
  isolation: string;
  mask: (() => RedactedStream) | null;
  /** Whether the run is over that it is in. */
  isGone: () => boolean;
};

/** What a process gets between a hang-up and the kill, ms. */
const GRACE_MS = 2_000;
const LOOK_MS = 50;
const RUN_ENDED = "the run has ended";

/** What a session needs of the runner. `find` says where it would be, or why nowhere; `terminals` whether there can be one; `say` is for the owner. */
export type SessionDeps = {
  find: () => Promise<ExecPlace | { refused: string }>;
  terminals: () => Promise<boolean>;
  stop: AbortSignal;
  say: (line: string) => void;
};

/**
 * Holds a session on a socket that is open: runs the command and passes on what is typed and written, until it ends, the person leaves, its
 * time is over, or `stop` is aborted with a sentence why. Resolves when no process of it is left.
 */
export async function holdSession(
  socket: ExecSocket,
  { exec, argv: asked, terminal: wanted, idleMs, endsMs }: ExecCall,
  { find, terminals, stop, say }: SessionDeps,
): Promise<void> {
  const over = new AbortController();
  const idle = setTimeout(() => over.abort("nothing was said for too long"), idleMs);
  const total = setTimeout(() => over.abort("its time was over"), endsMs);
  const trackingId = `exec-${exec}`;
  const line = openLine(socket, {
    stirred: () => void idle.refresh(),
    heard: (frame) => {
      if (frame.op === "resize") resizeTerminal(trackingId, frame).catch(() => {});
    },
  });
  await line.begun;
  const place = await find();
  const end = (frame: ExecRunnerFrame): void => {
    clearTimeout(idle);
    clearTimeout(total);
    line.say(frame);
    socket.close(1000);
  };
  if ("refused" in place) return end({ op: "refused", detail: place.refused });
  say(`somebody was let in (${place.workspace}): ${asked.join(" ") || "a shell"}`);
  // What makes terminals is in no image: into a container that runs it goes from here, and one that is made has none.
  const terminal = wanted !== null && place.container === undefined && (await terminals()) ? wanted : null;
  const command = [...place.prefix, ...(asked.length === 0 ? ["sh", "-c", LOGIN] : asked)];
  const masked = [EXEC_CHANNELS.output, EXEC_CHANNELS.error].map((channel) =>
    maskedOutput(place.mask?.() ?? null, (bytes) => line.send(channel, bytes)),
  );
  line.say({ op: "started", terminal: terminal !== null, isolation: place.isolation, workspace: place.workspace });
  const result = await runProcess({
    argv: terminal === null ? command : inTerminal(command, terminal),
    cwd: place.cwd,
    env: terminal === null ? place.env : { ...place.env, TERM: terminal.term },
    level: place.level,
    enter: place.enter,
    ...(place.container === undefined ? {} : { container: place.container }),
    ...(place.shade === undefined ? {} : { shade: place.shade }),
    within: place.within,
    trackingId,
    merged: terminal !== null,
    stdin: line.input,
    onOutput: (chunk, stream) => masked[channelOf(stream) - 1]?.push(Buffer.from(chunk)),
    cancel: AbortSignal.any([line.left, over.signal, stop]),
    firstSignal: "SIGHUP",
    graceMs: GRACE_MS,
  });
  for (const output of masked) await output.end();
  await line.settled(AbortSignal.any([over.signal, stop]));
  const why = [over.signal, stop].find(({ aborted }) => aborted)?.reason as string | undefined;
  const detail = why ?? (result.exitCode === KILLED && (await isSoonGone(place)) ? RUN_ENDED : result.detail);
  if (result.reason === "not-started") end({ op: "refused", detail: detail ?? "The command could not be started." });
  else end({ op: "exit", code: (result.exitCode ?? UNKNOWN_CODE) & 255, detail });
  say("whoever was let in has left");
}

/** The end of a namespace is seen in it before its run is known to have ended. */
async function isSoonGone({ isGone }: ExecPlace): Promise<boolean> {
  for (const until = performance.now() + GRACE_MS; !isGone() && performance.now() < until;) await pause(LOOK_MS);
  return isGone();
}

/** A login shell: bash where there is one. */
const LOGIN = "command -v bash >/dev/null && exec bash -l || exec sh -l";
/** What a command ends with that was killed, as with the namespace of its run. */
const KILLED = 128 + constants.signals.SIGKILL;
/** What a command ends with whose end nobody saw. */
const UNKNOWN_CODE = 255;
