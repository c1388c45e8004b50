import { LIMITS } from "@plumule/protocol";

/** Bounds of the workspace server, each with unit and reason. What goes beyond is refused with a problem document that names the limit. */
export const SERVER_LIMITS = {
  /** Bytes of a request without a file in it: a script, its environment and its standard input. */
  bodyBytes: 1024 * 1024,
  /** Bytes of a request with a file, which comes in base64: the largest file that a workspace takes, and room for its path. */
  fileBodyBytes: Math.ceil(LIMITS.workspaceFileBytes / 3) * 4 + 64 * 1024,
  /**
   * Bytes of requests and of files on their way that are held at a time: one of the largest, and smaller ones beside it. Reading the largest as JSON takes
   * some 600 MB for a moment. Whoever comes next is asked to try again.
   */
  heldBytes: 128 * 1024 * 1024,
  /** Bytes of output in one answer of `cmd_with_output`: the first and the last half of them. `exec` streams without a bound. */
  outputBytes: 8 * 1024 * 1024,
  /** Set-ups, commands and whatever else works in a workspace at a time: each is a tree of processes, three pipes and a connection. */
  workCount: 64,
  /** Connections at a time: one for each of the above, and others for short questions. */
  connectionsCount: 256,
  /** How long the headers of a request may take, and all of it, ms: nobody on this machine needs longer for a file. */
  headersMs: 10_000,
  requestMs: 2 * 60_000,
  /** Bytes of a stream that its reader has not taken, before the command waits for it. */
  unreadBytes: 256 * 1024,
  /** How long a reader may take nothing of a stream before it counts as gone, ms: a person who thinks over a page of output may come back. */
  stallMs: 10 * 60_000,
  /** How often somebody who reads a silent stream over NATS is looked for, ms: nothing there tells that a client has gone. */
  aliveMs: 10_000,
} as const;
