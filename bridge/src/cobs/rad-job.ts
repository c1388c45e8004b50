import { execFile } from "node:child_process";
import { promisify } from "node:util";
import * as z from "zod";

const run = promisify(execFile);

/** A run in a job COB, as `rad-job` 0.6 shows it: `log` is its URL. */
const cobRunSchema = z.looseObject({
  run_id: z.uuid(),
  status: z.union([z.literal("Started"), z.looseObject({ Finished: z.enum(["Succeeded", "Failed"]) })]),
  log: z.string(),
  /** ms since 1970. */
  timestamp: z.number(),
});
const cobSchema = z.looseObject({
  job_id: z.string(),
  oid: z.string(),
  runs: z.array(z.looseObject({ node_id: z.string(), runs: z.array(cobRunSchema) })),
});
const listSchema = z.looseObject({ jobs: z.array(cobSchema) });

/** One run of a commit that a node (`z6Mk…`) vouches for. `status` in the broker's words for runs of a commit. */
export type CobRun = {
  node: string;
  run: string;
  status: "started" | "succeeded" | "failed";
  log: string;
  recordedAt: number;
};

/** The job COBs of one repository (`z…`), through the command `rad-job`. Everything rejects with what it said. */
export interface JobCobs {
  /** Every run of a commit, of all its job COBs; null when it has none. */
  runsOf(commit: string): Promise<CobRun[] | null>;
  /** Makes the job COB of a commit (Request). */
  request(commit: string): Promise<void>;
  /** Adds a run that has started, with the URL of its log; answers its UUID, which `rad-job` makes. */
  start(commit: string, log: string): Promise<string>;
  finish(commit: string, run: string, status: "succeeded" | "failed"): Promise<void>;
  /** Has seeds fetch what is new; rejects when none has it. Says nothing to nobody when they have it already. */
  announce(): Promise<void>;
}

/** A writer that hangs must not stop the others, ms. `rad-job` reads every job COB of the repository. */
const COMMAND_MS = 120_000;
const ANNOUNCE_SECONDS = 15;
const OUTPUT_BYTES = 64 * 1024 * 1024;

/** Opens the job COBs of a repository in the storage of the node whose home is `radHome`, and with its key. */
export function openJobCobs(repository: string, radHome: string): JobCobs {
  const command = async (program: string, args: readonly string[]): Promise<string> => {
    const options = {
      env: { ...process.env, RAD_HOME: radHome },
      timeout: COMMAND_MS,
      maxBuffer: OUTPUT_BYTES,
    };
    return run(program, args, options).then(
      ({ stdout }) => stdout,
      (error: Error & { stderr?: string; code?: unknown }) => {
        const said = error.code === "ENOENT" ? "there is no such command on PATH" : error.stderr?.trim();
        throw new Error(`${program} ${args.at(-1) ?? ""}: ${said === undefined || said === "" ? error.message : said}`);
      },
    );
  };
  // Announcing has its own retries; `rad-job` tries once, for 5 s.
  const radJob = (...args: string[]): Promise<string> =>
    command("rad-job", ["--no-sync", "--repository", repository, ...args]);
  return {
    async runsOf(commit) {
      const { jobs } = listSchema.parse(JSON.parse(await radJob("list")));
      const cobs = jobs.filter(({ oid }) => oid === commit);
      return cobs.length === 0 ? null : cobs.flatMap(runsOfCob);
    },
    request: async (commit) => void (await radJob("new", commit)),
    start: async (commit, log) => (await radJob("run", commit, log)).trim(),
    finish: async (commit, uuid, status) => void (await radJob(status, commit, uuid)),
    announce: async () =>
      void (await command("rad", ["sync", "--announce", "--timeout", `${ANNOUNCE_SECONDS}s`, `rad:${repository}`])),
  };
}

function runsOfCob({ runs }: z.output<typeof cobSchema>): CobRun[] {
  return runs.flatMap(({ node_id: node, runs: own }) =>
    own.map(({ run_id, status, log, timestamp }) => ({
      node,
      run: run_id,
      status:
        status === "Started"
          ? ("started" as const)
          : status.Finished === "Succeeded"
            ? ("succeeded" as const)
            : ("failed" as const),
      log,
      recordedAt: timestamp,
    })),
  );
}
