import { stat } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import {
  branchesOf,
  type Expansion,
  type FileSchedules,
  formatTime,
  jobsOfSchedule,
  LIMITS,
  type Millis,
  nextFiring,
  readCron,
} from "@plumule/protocol";
import { type FileFault, loadTaskFileReading, type Step, TASK_FILES } from "@plumule/runner";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { paint, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { needsText } from "./get.ts";

/** `plumule lint`: what a task file asks for, or everything that is wrong with it. */
export function lintCommand(): Command {
  return new Command("lint")
    .summary("check a task file, and show what would be run in which order")
    .description(
      `Reads FILE, or what a runner would find in the folder DIR: ${TASK_FILES.join(", ")}, or the flake. Asks no broker. Ends with 1 when something is wrong.`,
    )
    .argument("[path]", "FILE or DIR; by default this folder", ".")
    .action(act(lint));
}

async function lint({ terminal, cwd }: Context, path: string): Promise<ExitCode | Failure> {
  const found = await findFile(resolve(cwd, path));
  if (isFailure(found)) return found;
  const file = relative(cwd, found.path) || found.path;
  const faults = "faults" in found ? found.faults : [];
  const steps = "steps" in found ? found.steps : [];
  const schedules = scheduledFor("schedules" in found ? found.schedules : {}, Date.now());
  const expands = "expansion" in found && found.expansion !== undefined;
  if (terminal.json) terminal.data({ file, faults, steps, schedules, expands });
  else if (faults.length === 0)
    for (const line of [...stepLines(file, steps, expands), ...scheduleLines(schedules)]) terminal.out(line);
  else for (const line of faultLines(file, faults)) terminal.out(line);
  return faults.length === 0 ? EXIT.ok : EXIT.failed;
}

type Found = { path: string } & (
  | { steps: Step[]; schedules: FileSchedules; expansion?: Expansion }
  | { faults: FileFault[] }
);

async function findFile(path: string): Promise<Found | Failure> {
  const there = await stat(path).catch(() => null);
  if (there === null) return misuse(`there is no ${path}`, "Name a task file, or a folder with one.");
  if (!there.isDirectory()) return (await readFound(path)) ?? misuse(`${path} is gone`, "Try again.");
  for (const name of TASK_FILES) {
    const found = await readFound(join(path, name));
    if (found !== null) return found;
  }
  const flake = join(path, "flake.nix");
  if ((await stat(flake).catch(() => null)) !== null)
    return { path: flake, steps: [{ name: "flake", task: { kind: "flake" } }], schedules: {} };
  return misuse(
    `${path} has no ${TASK_FILES.join(", no ")} and no flake.nix: a runner would have nothing to do`,
    "Write .radicle/plumule.yaml; docs/task-file.md shows how.",
  );
}

async function readFound(path: string): Promise<Found | null> {
  const { readPlain, readTaskFile } = await loadTaskFileReading();
  const text = await readPlain(path);
  if (text === null) return null;
  if (typeof text !== "string") return { path, faults: [{ line: 1, column: 1, pointer: "", detail: text.refused }] };
  return { path, ...readTaskFile(path, text) };
}

/** Faults as editors read them, `file:line:column: text`, and how many there are. */
export function faultLines(file: string, faults: readonly FileFault[]): string[] {
  const lines = faults.map(
    ({ line, column, detail }) => `${paint.strong(`${inLine(file)}:${line}:${column}:`)} ${inLine(detail)}`,
  );
  const count = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  return [...lines, `${paint.bad("✗")} ${faults.length < LIMITS.taskFileFaults ? count : `the first ${count}`}`];
}

/** What would be run, in its order; with `expands` each step as a job of the lane, with what it asks for. */
export function stepLines(file: string, steps: readonly Step[], expands = false): string[] {
  const jobs = new Map(steps.map(({ name, job }) => [name, job ?? name]));
  const timed = steps.some(({ on }) => on !== undefined);
  const rows = steps.map(({ name, task, needs = [], on, requires, locks = [], secrets = [] }, index) => [
    String(index + 1),
    paint.strong(inLine(name)),
    inLine(whatOf(task)),
    inLine([...new Set(needs.map((need) => jobs.get(need) ?? need))].join(", ")),
    ...(timed ? [on ?? ""] : []),
    ...(expands ? [needsText(requires) ?? "", inLine(locks.join(", ")), inLine(secrets.join(", "))] : []),
  ]);
  const count = steps.length === 1 ? "1 step" : `${steps.length} steps`;
  const head = `${paint.good("✓")} ${inLine(file)}: ${count}, ${expands ? "each a job of the lane, in this order" : "run in this order"}`;
  const columns = [...(timed ? ["ON"] : []), ...(expands ? ["REQUIRES", "LOCKS", "SECRETS"] : [])];
  return [head, ...tableLines(["", "STEP", "DOES", "NEEDS", ...columns], rows)];
}

/** A schedule with when it fires next, RFC 3339 in UTC. */
export type Scheduled = { name: string; cron: string; jobs: string[] | null; branches: string[]; next: string[] };

/** How many firings of a schedule are shown: enough to see a step or a weekday at work. */
const SHOWN_FIRINGS = 3;

/** The schedules of a file without faults, with their firings after `now`. */
export function scheduledFor(schedules: FileSchedules, now: Millis): Scheduled[] {
  return Object.entries(schedules).map(([name, schedule]) => {
    const cron = readCron(schedule.cron);
    const next: Millis[] = [];
    while (cron.ok && next.length < SHOWN_FIRINGS) next.push(nextFiring(cron.value, next.at(-1) ?? now));
    const jobs = jobsOfSchedule(schedule);
    return {
      name,
      cron: schedule.cron,
      jobs: jobs === null ? null : [...jobs],
      branches: [...branchesOf(schedule)],
      next: next.map(formatTime),
    };
  });
}

/** What the clock asks for, on which branches, and when. */
export function scheduleLines(schedules: readonly Scheduled[]): string[] {
  if (schedules.length === 0) return [];
  const rows = schedules.map(({ name, cron, jobs, branches, next }) => [
    paint.strong(inLine(name)),
    inLine(cron),
    inLine(jobs?.join(", ") ?? "all jobs"),
    inLine(branches.join(", ")),
    next.map((time) => time.slice(0, "2026-01-01T00:00".length).replace("T", " ")).join(", "),
  ]);
  return ["", ...tableLines(["SCHEDULE", "CRON", "RUNS", "ON", "NEXT, IN UTC"], rows)];
}

/** Characters of a script that are shown of it. */
const SCRIPT_CHARACTERS = 50;

function whatOf(task: Step["task"]): string {
  switch (task.kind) {
    case "shell": {
      const [first = "", ...more] = task.script.trim().split("\n");
      return more.length === 0 && first.length <= SCRIPT_CHARACTERS ? first : `${first.slice(0, SCRIPT_CHARACTERS)} …`;
    }
    case "nix-build":
      return `nix build ${task.installables.join(" ")}`;
    case "effect":
      return `effect ${task.installable}`;
    case "flake":
      return "the flake's checks and default package";
  }
}
