import * as z from "zod";
import { utf8 } from "./bytes.ts";
import { isRefusal } from "./errors.ts";
import { deploymentIdSchema, runIdSchema, timeSchema, uuidSchema } from "./ids.ts";
import { parseJson } from "./json.ts";
import { LIMITS } from "./limits.ts";

/** A runner whose owner lets people into the workspaces of its runs offers this; nobody else may give the word to a runner. */
export const EXEC_FEATURE = "exec";

/** WebSocket subprotocol of both ends of a session. The credential travels beside it, as `exec.<token>`. */
export const EXEC_SUBPROTOCOL = "plumule.exec.v1";

const dimension = z.int().min(1).max(1_000);
const sizeSchema = z.strictObject({ columns: dimension, rows: dimension });
/** A terminal as the person has it. */
export const terminalSchema = sizeSchema.extend({
  term: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$/, "the name of a terminal type"),
});
export type TerminalSize = z.output<typeof sizeSchema>;

const argument = z
  .string()
  .max(LIMITS.execArgumentCharacters)
  .refine((text) => !text.includes("\0"), "no NUL character");

/** A command to run in the workspace of a run: a login shell without `argv`. With `terminal` it gets one, where the runner can make it. */
export const execBodySchema = z
  .strictObject({ argv: z.array(argument).max(LIMITS.execArguments).optional(), terminal: terminalSchema.optional() })
  .meta({ id: "ExecBody" });
export type ExecBody = z.output<typeof execBodySchema>;

/** A session that waits for both its ends: connect to `deployments/{deployment}/runs/{run}/exec` with the subprotocol and the token. */
export const execSessionSchema = z
  .object({
    session: uuidSchema,
    run: runIdSchema,
    deployment: deploymentIdSchema,
    token: z.string(),
    /** Until both ends have to be there, and when it is over whatever happens. */
    joinBefore: timeSchema,
    endsBefore: timeSchema,
  })
  .meta({ id: "ExecSession" });
export type ExecSession = z.output<typeof execSessionSchema>;

/** What a runner is called with, as the answer to its poll: somebody who may is waiting for it in a session about one of its runs. */
export const execCallSchema = z
  .object({
    exec: uuidSchema,
    deployment: deploymentIdSchema,
    run: runIdSchema,
    token: z.string(),
    argv: z.array(z.string()),
    terminal: terminalSchema.nullable(),
    idleMs: z.int(),
    endsMs: z.int(),
  })
  .meta({ id: "ExecCall" });
export type ExecCall = z.output<typeof execCallSchema>;

/**
 * Text frames of a session; binary frames carry bytes behind one byte that names their channel. `ack` confirms bytes that were read and passed on:
 * neither side sends more than `LIMITS.execWindowBytes` unconfirmed. `begin` is the broker's: both ends are there, and nothing was said before it.
 */
export const execPersonFrameSchema = z
  .discriminatedUnion("op", [
    z.strictObject({ op: z.literal("begin") }),
    z.strictObject({ op: z.literal("resize"), ...sizeSchema.shape }),
    z.strictObject({ op: z.literal("end-of-input") }),
    z.strictObject({ op: z.literal("ack"), bytes: z.int().min(1).max(LIMITS.execWindowBytes) }),
  ])
  .meta({ id: "ExecPersonFrame" });
export type ExecPersonFrame = z.output<typeof execPersonFrameSchema>;

/**
 * From a runner. `started`: whether there is a terminal, how the command is kept apart, and whether the run works or its workspace was kept.
 * `refused` and `exit` are the last.
 */
export const execRunnerFrameSchema = z
  .discriminatedUnion("op", [
    z.strictObject({
      op: z.literal("started"),
      terminal: z.boolean(),
      isolation: z.string().max(64),
      workspace: z.enum(["running", "kept"]),
    }),
    z.strictObject({ op: z.literal("ack"), bytes: z.int().min(1).max(LIMITS.execWindowBytes) }),
    z.strictObject({ op: z.literal("refused"), detail: z.string().max(LIMITS.textCharacters) }),
    z.strictObject({
      op: z.literal("exit"),
      code: z.int().min(0).max(255),
      detail: z.string().max(LIMITS.textCharacters).nullable(),
    }),
  ])
  .meta({ id: "ExecRunnerFrame" });
export type ExecRunnerFrame = z.output<typeof execRunnerFrameSchema>;

/** Channels of binary frames: what the person types, and what the command writes. */
export const EXEC_CHANNELS = { input: 0, output: 1, error: 2 } as const;

/** An end of a session. */
export type ExecSide = "person" | "runner";

/**
 * Reads a frame of one side: what it says, or the bytes of a channel that this side may use. `fault` says in a few words what else it is, and
 * ends the session.
 */
export function readExecFrame(
  side: ExecSide,
  data: string | ArrayBuffer,
): ExecPersonFrame | ExecRunnerFrame | { channel: number; payload: Uint8Array } | { fault: string } {
  if (typeof data !== "string") {
    const [channel = -1] = new Uint8Array(data, 0, Math.min(1, data.byteLength));
    if (data.byteLength > LIMITS.execFrameBytes + 1) return { fault: "a frame that is too large" };
    const isInput = channel === EXEC_CHANNELS.input;
    if (data.byteLength < 2 || channel > EXEC_CHANNELS.error || isInput !== (side === "person"))
      return { fault: "bytes of no channel of its own" };
    return { channel, payload: new Uint8Array(data, 1) };
  }
  const json = data.length > LIMITS.execFrameBytes ? null : parseJson(utf8(data));
  if (json === null || isRefusal(json)) return { fault: "a frame that is not JSON" };
  const frame = (side === "person" ? execPersonFrameSchema : execRunnerFrameSchema).safeParse(json.value);
  return frame.success ? frame.data : { fault: "a frame that is not known" };
}

/** The bytes of a frame: its channel, then what it carries. */
export function execBytes(channel: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(bytes.length + 1);
  frame[0] = channel;
  frame.set(bytes, 1);
  return frame;
}
