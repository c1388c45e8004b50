/** A promise of the design that a history can show to be broken. */
export type Promised =
  | "P1 one live lease"
  | "P2 no submit lost"
  | "P3 sequences"
  | "P4 stopped is not green"
  | "P6 one final state"
  | "P7 watchers miss nothing"
  | "P8 idempotency"
  | "P9 logs"
  | "P14 bounded memory"
  | "P15 nothing is left"
  | "a 500 is a bug";

/** An answer that a client got: of a 2xx what it says, of a refusal its code. `digest` stands for the whole body. */
export type Answer = {
  status: number;
  digest: string;
  code: string | null;
  job: string | null;
  superseded: readonly string[];
};

/**
 * One wish to submit. All its tries had the same idempotency key, which is also a label of the job; `tryCount` counts those without an answer
 * too. `otherBody` is the status that the key got with another body after it was answered, or null.
 */
export type Submit = {
  key: string;
  deployment: string;
  joinable: boolean;
  tryCount: number;
  answers: readonly Answer[];
  otherBody: number | null;
};

/** A cancel that was answered 202: the jobs that it said are cancelled or being cancelled. */
export type Cancel = { jobs: readonly string[] };

/** An event as somebody saw it. `digest` stands for all of its JSON, `job` is the job that it is about. */
export type SeenEvent = { sequence: number; type: string; job: string | null; digest: string };

/** What a watcher was told, in order: where it began (`after`), events, and that it had to start over. */
export type Note = { kind: "begin"; after: number } | ({ kind: "event" } & SeenEvent) | { kind: "reset"; why: string };

/** A watcher of one stream, through all its connections. `states`: how jobs stand by its own reckoning, where it keeps one. */
export type Watch = {
  name: string;
  source: string;
  notes: readonly Note[];
  states: Readonly<Record<string, string>> | null;
};

/** A run's log as a watcher was sent it: pieces by offset, in order of arrival, a character for each byte, and how much it was told to read elsewhere. */
export type LogWatch = {
  name: string;
  run: string;
  pieces: readonly { offset: number; text: string }[];
  skippedBytes: number;
  endBytes: number | null;
};

/** A stream as the broker has it. */
export type StoredStream = { source: string; events: readonly SeenEvent[] };

/**
 * A run as the broker has it. `text` is its stored log. `signed` is what each of its statements, verified with the runner's key, says of the
 * log. All of what jobs print is ASCII, so that characters are bytes.
 */
export type StoredRun = {
  id: string;
  epoch: number;
  state: string;
  reason: string | null;
  log: { state: string; bytes: number };
  text: string;
  textSha256: string;
  signed: readonly { bytes: number; sha256: string }[];
};

/** A job as the broker has it. `printed` is what its script prints when nobody stops it. */
export type StoredJob = {
  id: string;
  deployment: string;
  key: string | null;
  state: string;
  printed: string;
  runs: readonly StoredRun[];
};

/** What a job or a daemon of it wrote to a file of its own, outside of everything that is tested, in the order of the file. */
export type Evidence = {
  deployment: string;
  job: string;
  run: string;
  what: "start" | "line" | "daemon" | "end";
  value: number;
};

/** All that was seen of one round of faults, from outside. */
export type History = {
  submits: readonly Submit[];
  cancels: readonly Cancel[];
  watches: readonly Watch[];
  logWatches: readonly LogWatch[];
  streams: readonly StoredStream[];
  jobs: readonly StoredJob[];
  evidence: readonly Evidence[];
  /** What the broker answered with a 500. */
  faults: readonly string[];
  /** Command lines of processes that should be gone. */
  leftovers: readonly string[];
  /** The broker's memory: the greatest ever measured, and what it may be. */
  memory: { maxBytes: number; limitBytes: number };
};

/** Something that must not have been. */
export type Finding = { promise: Promised; detail: string };
