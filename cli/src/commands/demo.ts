import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { playDemo } from "../demo/steps.ts";
import { endProcesses, removeFolder } from "../demo/tidy.ts";
import { aborted, takeSignals } from "../dev/signals.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { paint } from "../print.ts";

/** How long processes that were told to end may take to be gone, ms. */
const LEAVE_MS = 2_000;
/** How long an interrupted demo may take to notice, ms. */
const END_MS = 5_000;

/** `plumule demo`: a push becomes a signed result, on real parts, in one folder that is gone afterwards. */
export function demoCommand(): Command {
  return new Command("demo")
    .summary("show a push becoming a signed result, on real parts")
    .description(
      "Starts a broker and a runner, pushes a real git repository with a flake, builds it with Nix, replaces the build while it runs, cuts " +
        "and resumes the stream, and verifies the signed result. Where Radicle is installed the push goes to a node of its own, offline, and the result comes back as a job COB. Everything happens in a temporary folder, of which nothing is left.",
    )
    .action(act(demo));
}

async function demo({ terminal }: Context): Promise<ExitCode | Failure> {
  const startedAt = performance.now();
  const signals = takeSignals();
  const folder = await mkdtemp(join(tmpdir(), "plumule-demo-"));
  // Temporary files of everything that is started go there too, and whose environment names the folder is known to belong to it.
  process.env["TMPDIR"] = folder;
  // Radicle's programs, where there are any, have an empty home here and a key without a passphrase. The person's node, and their ssh-agent, to
  // which `rad auth` would add that key, are out of reach.
  Object.assign(process.env, { RAD_HOME: join(folder, "radicle"), RAD_PASSPHRASE: "" });
  for (const name of ["RAD_SOCKET", "SSH_AUTH_SOCK"]) delete process.env[name];
  const ends: (() => void | Promise<void>)[] = [];
  const tell = (lines: readonly string[]): void => {
    if (!terminal.json) for (const line of lines) terminal.out(`${paint.quiet("demo")}  ${line}`);
  };
  const play = playDemo({ folder, signal: signals.leave, tell, keep: (end) => void ends.unshift(end) }).catch(
    (error: Error) => failure(error.message),
  );
  const end = await Promise.race([play, aborted(signals.leave).then(() => EXIT.interrupted)]);
  for (const stop of ends) await stop();
  const isPlayed = typeof end === "object" && !isFailure(end);
  const killed = await endProcesses(folder, isPlayed ? LEAVE_MS : 0);
  // What was interrupted fails by itself now that its parts are gone; before that it could still write.
  await Promise.race([play, pause(END_MS, undefined, { ref: false })]);
  await removeFolder(folder);
  signals.close();
  if (end === EXIT.interrupted) terminal.note("interrupted; nothing is left of the demo");
  if (!isPlayed) return end;
  if (killed !== null && killed.length > 0)
    return failure(
      `leave nothing behind: ${killed.map(({ pid, command }) => `process ${pid} (${command.slice(0, 100)})`).join(", ")}`,
    );
  const tookMs = Math.round(performance.now() - startedAt);
  tell([`${killed === null ? "" : "no process left, "}folder removed; ${(tookMs / 1000).toFixed(1)} s in all`]);
  if (terminal.json) terminal.data({ ...end, tookMs });
  else terminal.out(`${paint.quiet("next")}  npm start, then open http://localhost:8787`);
  return EXIT.ok;
}

function failure(step: string): Failure {
  return {
    exit: EXIT.failed,
    what: `The demo failed at: ${step}`,
    next: "Nothing is left of it. Mend the cause and run it again.",
  };
}
