import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type Expansion,
  type FileSchedules,
  jobsOfSchedule,
  LIMITS,
  readableJobs,
  taskFileFaults,
  taskFileSchema,
} from "@plumule/protocol";
import { variableFault } from "../environment.ts";
import { ambientSteps, type ForeignSteps, nativeSteps } from "./foreign.ts";
import { asksForItsOwn, expansionOf, type Step, stepsFor, stepsOf, TASK_FILES } from "./steps.ts";
import { type FileFault, type Place, readYaml } from "./yaml.ts";

type Found = (typeof TASK_FILES)[number] | "flake.nix";

/**
 * The work that a repository describes for itself: steps in order, where they were found, and when the clock asks for some of them. With an `expansion` they
 * are no steps of one run: each is to be a job of the lane.
 */
export type RepositorySteps = { found: Found; steps: Step[]; schedules: FileSchedules; expansion?: Expansion };

/** What of it is wanted: one job of plumule's own file by name, or the jobs of a schedule, with all that they need, or any one step; otherwise what is for a push. */
export type Wanted = { job?: string | undefined; schedule?: string | undefined; step?: boolean };

/** Why a repository's description cannot be used, for a person. */
export type TaskFileRefusal = { refused: "task-invalid" | "nothing-to-do"; detail: string };

/** What a text of a task file asks for, or everything that is wrong with it. */
export type TaskFileReading =
  | { steps: Step[]; schedules: FileSchedules; expansion?: Expansion }
  | { faults: FileFault[] };

/** What to do for a checkout: the first of {@link TASK_FILES}, else what its flake offers. */
export async function readRepositorySteps(
  checkout: string,
  wanted: Wanted,
): Promise<RepositorySteps | TaskFileRefusal> {
  for (const path of TASK_FILES) {
    const text = await readPlain(join(checkout, path));
    if (text === null) continue;
    if (typeof text !== "string") return invalid(path, text.refused);
    const reading = readTaskFile(path, text);
    if ("faults" in reading) return invalid(path, faultsText(reading.faults));
    return pick({ found: path, ...reading }, wanted);
  }
  if ((await lstat(join(checkout, "flake.nix")).catch(() => null)) !== null)
    return pick({ found: "flake.nix", steps: [{ name: "flake", task: { kind: "flake" } }], schedules: {} }, wanted);
  return {
    refused: "nothing-to-do",
    detail: `The commit has no ${TASK_FILES.join(", no ")} and no flake.nix, so there is nothing to run.`,
  };
}

/** Reads the text of a task file; the name of the file says whose it is: `native.yaml`, `ambient.yaml`, and any other is plumule's own. */
export function readTaskFile(path: string, text: string): TaskFileReading {
  const yaml = readYaml(text);
  if ("faults" in yaml) return yaml;
  const { content, locate } = yaml;
  const steps = /(?:^|\/)native\.yaml$/.test(path)
    ? nativeSteps(content)
    : /(?:^|\/)ambient\.yaml$/.test(path)
      ? ambientSteps(content)
      : ownSteps(content);
  return "steps" in steps
    ? { schedules: {}, ...steps }
    : { faults: inPlace(steps.faults.map((fault) => locate(fault, fault.detail))) };
}

/** A file that a repository holds: its text, null when there is none, and refused when it is none that can be read. */
export async function readPlain(path: string): Promise<string | null | { refused: string }> {
  // A link is not followed: it could lead out of the checkout.
  const file = await lstat(path).catch(() => null);
  if (file === null) return null;
  if (!file.isFile()) return { refused: "it is not a plain file" };
  if (file.size > LIMITS.taskFileBytes) return { refused: `it is longer than ${LIMITS.taskFileBytes} bytes` };
  return readFile(path, "utf8");
}

function ownSteps(content: unknown): ForeignSteps | { steps: Step[]; schedules: FileSchedules } {
  const faults = [...taskFileFaults(content), ...variableFaults(content)];
  const { data: file } = taskFileSchema.safeParse(content);
  if (file === undefined || faults.length > 0) return { faults };
  const expansion = expansionOf(file);
  const read = { steps: stepsOf(file), schedules: file.schedules ?? {} };
  if (expansion === null) return read;
  return JSON.stringify(expansion).length > LIMITS.expansionCharacters
    ? { faults: [{ path: ["jobs"], at: "name", detail: TOO_MUCH }] }
    : { ...read, expansion };
}

const TOO_MUCH = `needs, matrices, requires, locks and secrets of all jobs have more than ${LIMITS.expansionCharacters} characters as JSON`;

/** Names that the file of a commit cannot set, beyond those that no job can: they choose the programs that the runner itself calls. */
const PROGRAMS = /^(?:PATH|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|MATRIX_.*)$/;

function variableFaults(content: unknown): (Place & { detail: string })[] {
  return [...readableJobs(content)].flatMap(([name, { env = {} }]) =>
    Object.entries(env).flatMap(([variable, value]) => {
      const detail = PROGRAMS.test(variable) ? "this name is reserved for the runner" : variableFault(variable, value);
      if (detail === null) return [];
      const path = ["jobs", name, "env", variable];
      return [{ path, at: "name" as const, detail: `\`${variable}\`: ${detail}; the script can export it` }];
    }),
  );
}

function pick(all: RepositorySteps, { job, schedule, step }: Wanted): RepositorySteps | TaskFileRefusal {
  const { found, steps, schedules } = all;
  const lacks = (what: string, name: string, names: readonly string[]): TaskFileRefusal => ({
    refused: "task-invalid",
    detail: `${found} has no ${what} \`${name}\`; it has ${names.length === 0 ? "none" : names.join(", ")}.`,
  });
  if (step === true) return all;
  if (schedule !== undefined) {
    const wanted = new Map(Object.entries(schedules)).get(schedule);
    if (wanted === undefined) return lacks("schedule", schedule, Object.keys(schedules));
    const jobs = jobsOfSchedule(wanted);
    return jobs === null ? all : only(all, stepsFor(steps, jobs));
  }
  if (job === undefined)
    return only(
      all,
      steps.filter(({ on }) => on === undefined),
    );
  const chosen = stepsFor(steps, [job]);
  if (chosen.length > 0) return only(all, chosen);
  return lacks("job", job, [...new Set(steps.map((one) => one.job ?? one.name))]);
}

/** Some steps of a file, which are jobs of the lane when one of these asks for something of its own. */
function only({ expansion, ...all }: RepositorySteps, steps: Step[]): RepositorySteps {
  if (expansion === undefined || !steps.some(asksForItsOwn)) return { ...all, steps };
  const chosen = new Set(steps.map(({ job, name }) => job ?? name));
  const jobs = Object.entries(expansion.jobs).filter(([name]) => chosen.has(name));
  return { ...all, steps, expansion: { jobs: Object.fromEntries(jobs) } };
}

function inPlace(faults: FileFault[]): FileFault[] {
  return faults.toSorted((one, other) => one.line - other.line || one.column - other.column);
}

function faultsText([first, ...others]: FileFault[]): string {
  if (first === undefined) return "it is not valid";
  const more = others.length === 0 ? "" : ` (and ${others.length} more: \`plumule lint\` shows all)`;
  return `line ${first.line}, column ${first.column}: ${first.detail}${more}`;
}

function invalid(path: string, detail: string): TaskFileRefusal {
  return { refused: "task-invalid", detail: `${path} cannot be used: ${detail}`.slice(0, LIMITS.textCharacters) };
}
