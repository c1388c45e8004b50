import { LIMITS, type Problem, refuse, type Refusal } from "@plumule/protocol";
import type { OutputStream } from "../process.ts";
import type { ExecEnd, WorkspaceRefusal } from "../workspace/provider.ts";

/** A request as a door hands it over. */
export type DoorRequest = {
  /** JSON; nothing is an empty object. */
  body: Uint8Array;
  /** Aborts when whoever asked has gone: the work is stopped then. */
  cancel: AbortSignal;
  /** The longest answer that can be passed on. */
  answerBytes: number;
  /** Passes an event of `exec` on; settles when it was taken, or when there is nobody to take it. */
  emit: (event: CommandEvent) => Promise<void>;
};

/** An answer for a door to pass on: JSON, the bytes of a file, or nothing more after what was emitted. */
export type DoorAnswer =
  | { value: unknown }
  /** A workspace that there is now. */
  | { value: object; established: string }
  | { bytes: Uint8Array }
  | { streamed: true }
  | Refusal;

/** How a command ended, on the wire. */
export type CommandEnd = {
  /** 124 for a command that took too long, which is what `timeout` of coreutils ends with; 128 + n after signal n. */
  exit_code: number;
  reason: ExecEnd["reason"];
  signal: string | null;
};

/** What `exec` says: `started` first, `exit` or `problem` last. */
export type CommandEvent =
  | { event: "started"; command: string }
  | { event: "output"; stream: OutputStream; text: string }
  | { event: "output"; stream: OutputStream; base64: string }
  | ({ event: "exit" } & CommandEnd)
  | { event: "problem"; problem: Problem };

/** How a command ended, in the words of the wire. */
export function endOf({ reason, exitCode, signal }: ExecEnd): CommandEnd {
  return { exit_code: reason === "timeout" ? 124 : (exitCode ?? 137), reason, signal };
}

/** What a provider refuses, in the words of the wire. */
export function refusalOf({ refused, detail }: WorkspaceRefusal): Refusal {
  switch (refused) {
    case "invalid":
      return refuse("invalid-body", detail, { next: "Correct the request." });
    case "not-found":
      return refuse("not-found", detail, { next: "Look at the list of workspaces, or at what is in this one." });
    case "busy":
      return refuse("conflict", detail, { next: "Try again when that has ended." });
    case "setup-failed":
      return refuse("invalid-configuration", detail, { next: "Correct `setup_script` of the configuration." });
    case "too-large":
      return refuse("payload-too-large", detail, {
        next: `Let a command move what is larger than ${LIMITS.workspaceFileBytes} bytes.`,
      });
    case "unreachable":
      return refuse("unavailable", detail, { next: "Look at the repository's URL and credential, then try again." });
    case "unavailable":
      return refuse("unavailable", detail, { next: "Install what is missing, or serve with another provider." });
    case "cancelled":
    case "failed":
      return refuse("unavailable", detail);
  }
}

/** Refused because of how much is at work, not for what was asked. */
export function tooBusy(detail: string): Refusal {
  return refuse("unavailable", detail, { headers: { "retry-after": "1" } });
}
