import { randomUUID } from "node:crypto";
import { isRefusal, LIMITS, problemOf, refuse } from "@plumule/protocol";
import type * as z from "zod";
import type { OutputStream } from "../process.ts";
import { type ExecRequest, isWorkspaceRefusal, type OpenWorkspace } from "../workspace/provider.ts";
import { type CommandEvent, type DoorAnswer, type DoorRequest, endOf, refusalOf, tooBusy } from "./answers.ts";
import type { CommandBody, execBodySchema, stopBodySchema } from "./bodies.ts";
import { SERVER_LIMITS } from "./limits.ts";
import { keepOutput } from "./output.ts";

/** Something at work: its id, and how it is told to stop. */
type Work = { id: string; cancel: AbortSignal; kill: AbortSignal };

/** What is at work. Nothing waits for anything else; what is too much is refused. */
export type AtWork = {
  /** Does something that stops when whoever asked is `gone`, when it is told to, and with the server. */
  during(workspace: string | null, gone: AbortSignal, act: (work: Work) => Promise<DoorAnswer>): Promise<DoorAnswer>;
  /** Stops one, unless it has ended or is about another workspace. */
  stopOne(workspace: string, body: z.output<typeof stopBodySchema>): DoorAnswer;
  /** Stops everything, the second time without a grace; nothing new begins. */
  stop: () => void;
};

/** Nothing is at work yet. */
export function createAtWork(): AtWork {
  const all = new Map<string, { workspace: string | null; cancel: AbortController; kill: AbortController }>();
  let isStopping = false;
  return {
    async during(workspace, gone, act) {
      if (isStopping) return tooBusy("The server is stopping.");
      if (all.size >= SERVER_LIMITS.workCount)
        return tooBusy(`${SERVER_LIMITS.workCount} requests are at work, which is the limit.`);
      const id = randomUUID();
      const [cancel, kill] = [new AbortController(), new AbortController()];
      all.set(id, { workspace, cancel, kill });
      try {
        return await act({ id, cancel: AbortSignal.any([gone, cancel.signal]), kill: kill.signal });
      } finally {
        all.delete(id);
      }
    },
    stopOne(workspace, { command, kill }) {
      const found = all.get(command);
      if (found?.workspace !== workspace)
        return refuse("not-found", "No such command is at work in this workspace.", {
          next: "Take the id from the event `started` of `exec`; a command that has ended is gone.",
        });
      (kill === true ? found.kill : found.cancel).abort();
      return { value: { stopped: true } };
    },
    stop() {
      for (const { cancel, kill } of all.values()) (isStopping ? kill : cancel).abort();
      isStopping = true;
    },
  };
}

/** `cmd`: how the command ended. */
export function run(workspace: OpenWorkspace, body: CommandBody, work: Work): Promise<DoorAnswer> {
  return execute(workspace, body, work, { onOutput: () => {} }, (end) => end);
}

/** `cmd_with_output`: how it ended, and what it printed, of which the middle is left out when it is too long for the door. */
export function runWithOutput(
  workspace: OpenWorkspace,
  body: CommandBody,
  work: Work,
  answerBytes: number,
): Promise<DoorAnswer> {
  const limitBytes = Math.min(SERVER_LIMITS.outputBytes, answerBytes);
  const kept = keepOutput(limitBytes);
  return execute(workspace, body, work, { onOutput: (chunk) => kept.add(chunk) }, (end) => {
    // Control characters take six bytes of JSON each.
    for (let wantedBytes = limitBytes; ; wantedBytes /= 2) {
      const { output, omittedBytes } = kept.text(wantedBytes);
      const answer = { output, ...end, omitted_bytes: omittedBytes };
      if (Buffer.byteLength(JSON.stringify(answer)) <= answerBytes) return answer;
    }
  });
}

/** `exec`: what it prints is passed on as it comes; the command waits while it is not taken. */
export async function stream(
  workspace: OpenWorkspace,
  { split, binary, ...body }: z.output<typeof execBodySchema>,
  work: Work,
  emit: DoorRequest["emit"],
): Promise<DoorAnswer> {
  const decoders = new Map<OutputStream, InstanceType<typeof TextDecoder>>();
  const outputOf = (chunk: Uint8Array | undefined, name: OutputStream): CommandEvent => {
    if (binary === true) return { event: "output", stream: name, base64: Buffer.from(chunk ?? []).toString("base64") };
    const decoder = decoders.get(name) ?? new TextDecoder("utf-8", { ignoreBOM: true });
    decoders.set(name, decoder);
    return { event: "output", stream: name, text: decoder.decode(chunk, { stream: chunk !== undefined }) };
  };
  await emit({ event: "started", command: work.id });
  const ended = await execute(
    workspace,
    body,
    work,
    { merged: split !== true, onOutput: (chunk, name) => emit(outputOf(chunk, name)) },
    (end) => end,
  );
  // Half a character at the very end is said as what it is: no character.
  for (const name of decoders.keys()) {
    const rest = outputOf(undefined, name);
    if ("text" in rest && rest.text !== "") await emit(rest);
  }
  await emit(isRefusal(ended) ? { event: "problem", problem: problemOf(ended) } : { event: "exit", ...ended.value });
  return { streamed: true };
}

async function execute<T>(
  workspace: OpenWorkspace,
  { cmd, working_dir: cwd, env, timeout, stdin }: CommandBody,
  { cancel, kill }: Work,
  output: Pick<ExecRequest, "merged" | "onOutput">,
  answer: (end: ReturnType<typeof endOf>) => T,
): Promise<{ value: T } | ReturnType<typeof refusalOf>> {
  const ended = await workspace.exec({
    command: cmd,
    timeoutMs: timeout === undefined ? LIMITS.runMs : timeout * 1000,
    cancel,
    kill,
    ...output,
    ...(cwd === undefined ? {} : { cwd }),
    ...(env === undefined ? {} : { env }),
    ...(stdin === undefined ? {} : { stdin: Buffer.from(stdin) }),
  });
  return isWorkspaceRefusal(ended) ? refusalOf(ended) : { value: answer(endOf(ended)) };
}
