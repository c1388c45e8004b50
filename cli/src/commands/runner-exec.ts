import {
  EXEC_CHANNELS,
  EXEC_SUBPROTOCOL,
  execBytes,
  type ExecPersonFrame,
  type ExecSession,
  execRunnerFrameSchema,
  joinExec,
  LIMITS,
  openExec,
  pathOf,
} from "@plumule/protocol";
import { Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { paint, shortId } from "../print.ts";
import { resolveJob } from "../resolve.ts";
import { inLine } from "../terminal-text.ts";

/** Ctrl-], as in telnet: leaves a session in which nothing else is heard. */
const LEAVE = 0x1d;

/** `plumule runner exec`. */
export function execCommand(): Command {
  return new Command("exec")
    .summary("run a command, or a shell, in the workspace of a run")
    .description(
      "Goes through the runner's own connection to the broker; needs the scope operate, a runner with --allow-exec, and a run that works or whose workspace was kept (--keep-failed). Ends with the exit code of the command. Ctrl-] leaves.",
    )
    .requiredOption("--run <run>", "the run, or a job or deployment for its newest run")
    .argument("[command...]", "command and arguments, after --; by default a login shell")
    .action(act(exec));
}

async function exec(
  { terminal, cwd, connect }: Context,
  argv: string[],
  { run: asked }: { run: string },
): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const found = await resolveJob(connection, asked, cwd);
  if (isFailure(found)) return found;
  const run = found.run ?? found.job.run;
  if (run === null)
    return {
      exit: EXIT.notFound,
      what: `The job ${shortId(found.job.id)} has no run yet`,
      next: `plumule why ${shortId(found.job.id)}`,
    };
  const { stdin, stdout } = process;
  const isScreen = stdin.isTTY && stdout.isTTY;
  const size = isScreen ? { terminal: { ...sizeOf(), term: process.env["TERM"] ?? "xterm" } } : {};
  const body = { ...(argv.length === 0 ? {} : { argv }), ...size };
  const answer = await connection.ask(openExec, { params: { ns: connection.ns, run }, body });
  if (isFailure(answer)) return answer;
  return attend(connection, answer.body, (line) => terminal.note(paint.quiet(line)));
}

/** Joins a session with this terminal until it ends. The exit code is that of the command. */
async function attend(
  connection: Connection,
  session: ExecSession,
  note: (line: string) => void,
): Promise<ExitCode | Failure> {
  const path = pathOf(joinExec, { ns: connection.ns, deployment: session.deployment, run: session.run });
  const url = connection.place.url.replace(/^http/, "ws") + path;
  const socket = new WebSocket(url, [EXEC_SUBPROTOCOL, `exec.${session.token}`]);
  socket.binaryType = "arraybuffer";
  const say = (frame: ExecPersonFrame): void => {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
  };
  const { promise: ended, resolve: end } = Promise.withResolvers<ExitCode | Failure>();
  const typed = takeTyping(socket, say, () => socket.close(1000));
  socket.addEventListener("message", ({ data }) => {
    if (typeof data !== "string") return show(new Uint8Array(data as ArrayBuffer), say);
    const frame = execRunnerFrameSchema.safeParse(JSON.parse(data)).data;
    if (frame?.op === "started") {
      const where = frame.workspace === "kept" ? "the workspace that was kept" : "the run that works";
      note(`in ${where}, isolation ${frame.isolation}${frame.terminal ? "; Ctrl-] leaves" : ", no terminal"}`);
      typed.begin(frame.terminal);
    } else if (frame?.op === "ack") typed.confirmed(frame.bytes);
    else if (frame?.op === "refused") end(refused(frame.detail));
    else if (frame?.op === "exit") {
      if (frame.detail !== null) note(`the session ended: ${inLine(frame.detail)}`);
      end(frame.code as ExitCode);
    }
  });
  socket.addEventListener("close", ({ reason }) =>
    end({
      exit: EXIT.tryAgain,
      what: "The session has ended",
      why: inLine(reason) || "the connection was lost",
      next: "Open another one.",
    }),
  );
  try {
    return await ended;
  } finally {
    typed.finish();
    socket.close(1000);
  }
}

/** Writes what came, and confirms it once the screen or the pipe has taken it. */
function show(frame: Uint8Array, say: (frame: ExecPersonFrame) => void): void {
  const stream = frame[0] === EXEC_CHANNELS.error ? process.stderr : process.stdout;
  const bytes = frame.subarray(1);
  stream.write(bytes, () => say({ op: "ack", bytes: bytes.length }));
}

type Typing = { begin(terminal: boolean): void; confirmed(bytes: number): void; finish(): void };

/** Passes on what is typed, as it comes where there is a terminal, and never more than the other side has taken. */
function takeTyping(socket: WebSocket, say: (frame: ExecPersonFrame) => void, leave: () => void): Typing {
  const { stdin, stdout } = process;
  let unconfirmed = 0;
  let isRaw = false;
  const resized = (): void => say({ op: "resize", ...sizeOf() });
  const typed = (chunk: Buffer): void => {
    if (isRaw && chunk.includes(LEAVE)) return leave();
    for (let from = 0; from < chunk.length; from += LIMITS.execFrameBytes)
      socket.send(execBytes(EXEC_CHANNELS.input, chunk.subarray(from, from + LIMITS.execFrameBytes)));
    unconfirmed += chunk.length;
    // One read is at most 64 KiB.
    if (unconfirmed > LIMITS.execWindowBytes / 2) stdin.pause();
  };
  const over = (): void => say({ op: "end-of-input" });
  return {
    begin(terminal) {
      isRaw = terminal && stdin.isTTY;
      if (isRaw) {
        stdin.setRawMode(true);
        stdout.on("resize", resized);
        resized();
      }
      stdin.on("data", typed).once("end", over);
    },
    confirmed(bytes) {
      unconfirmed -= bytes;
      if (unconfirmed <= LIMITS.execWindowBytes / 2) stdin.resume();
    },
    finish() {
      stdin.off("data", typed).off("end", over).pause();
      stdout.off("resize", resized);
      if (isRaw) stdin.setRawMode(false);
    },
  };
}

function sizeOf(): { columns: number; rows: number } {
  const { columns, rows } = process.stdout;
  return { columns: Math.min(Math.max(columns, 1), 1_000), rows: Math.min(Math.max(rows, 1), 1_000) };
}

function refused(detail: string): Failure {
  return {
    exit: EXIT.conflict,
    what: "The runner lets nobody in",
    why: inLine(detail),
    next: "`plumule why` and `plumule logs` need no session.",
  };
}
