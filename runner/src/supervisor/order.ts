import type { Assignment, JobLimits } from "@plumule/protocol";
import type { MachineFacts } from "../machine.ts";
import type { RadiclePolicy } from "../radicle.ts";
import type { SecretPlaces } from "../secrets/files.ts";

/**
 * What a runner tells its supervisor, as one line of JSON on standard input: everything that the work needs, and nothing with which
 * something could be said to the broker or be signed.
 */
export type SupervisorOrder = {
  assignment: Omit<Assignment, "leaseToken">;
  machine: MachineFacts;
  /** What the job asks for and this runner does not have, for a person; null when there is nothing. */
  unmet: string | null;
  /** Folders of all runs, workspaces, warm checkouts and mirrors. */
  runs: string;
  workspaces: string;
  warm: string;
  mirrors: string;
  /** Folder of the state files that effects have kept here. */
  effectStates: string;
  allowLocal: boolean;
  radicle: RadiclePolicy;
  /** Where the age identity lies, which this process reads itself when the job has secrets, and where it may put what it opens. */
  secrets: SecretPlaces;
  logLimitBytes: number;
  /** What the runner lets any job have. */
  limits: JobLimits;
  /** Derivations, and edges between them, that one batch of events may name. */
  derivationCount: number;
  edgeCount: number;
  /** Whether the work goes on when its runner is gone, until the lease ends. */
  outlives: boolean;
};
