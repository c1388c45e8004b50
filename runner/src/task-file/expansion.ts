import { type Expansion, LIMITS, type RepositoryStep, type SubmitBody, stepName } from "@plumule/protocol";
import { ended, type TaskContext, type TaskEnd } from "../tasks/task.ts";
import { asksForItsOwn, type Step } from "./steps.ts";

/**
 * The end of a run that has read a file whose steps are to be jobs of the lane: nothing is run here, and its deployment queues them. Where nobody would, the
 * run is refused, and left to a broker that does.
 */
export function endOfReading(context: TaskContext, steps: readonly Step[], expansion: Expansion): TaskEnd {
  const { assignment, log } = context;
  const asking = steps.find(asksForItsOwn);
  const what = `\`${asking?.name ?? ""}\` asks for what only a job of its own can have (requires, locks, secrets, effect)`;
  const fault = readingFault(assignment, steps.length);
  const isLost = fault === null && assignment.expands !== true;
  const why = fault ?? (isLost ? "only a broker that knows of it makes jobs of a task file" : null);
  if (why === null) {
    log(`[plumule] jobs of the file ask for something of their own: each of the ${steps.length} steps becomes a job\n`);
    return { ...ended("succeeded", 0, null), expansion };
  }
  const detail = `${what}: ${why}.`;
  log(`[plumule] ${detail}\n`);
  return isLost
    ? ended("refused", null, { code: "refused", detail })
    : ended("failed", null, { code: "task-invalid", detail });
}

/** Why a job cannot become others, whoever has given it, or null. */
function readingFault({ spec, teardown }: TaskContext["assignment"], stepCount: number): string | null {
  if (spec.quorum !== undefined) return "a quorum compares one run with another; submit without it";
  if (teardown) return "a teardown cannot become jobs; name the task of the teardown itself";
  const characters = JSON.stringify(spec).length * stepCount;
  return characters > LIMITS.expandedCharacters
    ? `${stepCount} jobs, each with what was submitted, have ${characters} characters, and at most ${LIMITS.expandedCharacters} are taken`
    : null;
}

/**
 * The step that a job of the lane is, when the file says the same of it as the job: its kind, the locks that it holds, what it requires, and no secret more
 * than the file gives it. The file is read again at the commit, so that nobody on the way can change what is run.
 */
export function stepFor(
  { assignment: { spec } }: Pick<TaskContext, "assignment">,
  steps: readonly Step[],
  wanted: RepositoryStep,
): Step | { refused: string } {
  const name = stepName(wanted.job, wanted.matrix ?? {});
  const step = steps.find((one) => one.name === name);
  if (step === undefined) return { refused: `The task file has no step \`${name}\`.` };
  const fault = differenceOf(spec, step, wanted);
  return fault === null
    ? step
    : { refused: `The task file says something else of \`${name}\` than the job: ${fault}.` };
}

function differenceOf(spec: SubmitBody, step: Step, wanted: RepositoryStep): string | null {
  const { task, requires = {}, locks = [], secrets = [] } = step;
  const planned = task.kind === "effect" && task.plan !== undefined;
  const movesState = task.kind === "effect" && task.moveState === true;
  if (task.kind !== wanted.kind || planned !== (wanted.planned === true) || movesState !== (wanted.movesState === true))
    return "what kind of work it is";
  if (task.kind === "effect" && (spec.task.kind !== "repository" || spec.task.effects !== true))
    return "it is an effect, which the job was not submitted for";
  const extra = spec.secrets?.find((secret) => !secrets.includes(secret.name));
  if (extra !== undefined) return `it names no secret ${extra.name}`;
  const secret = secrets.find((one) => spec.secrets?.some((given) => given.name === one) !== true);
  if (secret !== undefined) return `it names the secret ${secret}`;
  const lock = locks.find((one) => spec.locks?.includes(one) !== true);
  if (lock !== undefined) return `it names the lock ${lock}`;
  const lacks = (["systems", "features", "labels"] as const).flatMap((list) =>
    (requires[list] ?? []).filter((one) => spec.requires?.[list]?.includes(one) !== true),
  );
  return lacks.length === 0 ? null : `it requires ${lacks.join(", ")}`;
}
