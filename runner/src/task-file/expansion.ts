import { type Expansion, LIMITS, type RepositoryStep, type SubmitBody, stepName } from "@plumule/protocol";
import { ended, type TaskContext, type TaskEnd } from "../tasks/task.ts";
import { asksForItsOwn, type Step } from "./steps.ts";

/** The end of a run that has read a file whose steps are to be jobs of the lane: nothing is run here, and its deployment queues them. */
export function endOfReading(context: TaskContext, steps: readonly Step[], expansion: Expansion): TaskEnd {
  const fault = readingFault(context, steps);
  if (fault !== null) {
    context.log(`[plumule] ${fault}\n`);
    return ended("failed", null, { code: "task-invalid", detail: fault });
  }
  context.log(
    `[plumule] jobs of the file ask for something of their own: each of the ${steps.length} steps becomes a job\n`,
  );
  return { ...ended("succeeded", 0, null), expansion };
}

function readingFault({ assignment: { expands, spec, teardown } }: TaskContext, steps: readonly Step[]): string | null {
  const asking = steps.find(asksForItsOwn);
  const what = `\`${asking?.name ?? steps[0]?.name}\` asks for what only a job of its own can have (requires, locks, secrets, effect)`;
  if (spec.quorum !== undefined) return `${what}, and a quorum compares one run with another: submit without it.`;
  if (teardown) return `${what}, which a teardown cannot become: name the task of the teardown itself.`;
  if (expands !== true) return `${what}, which this broker does not know: update it, or give this with the submit.`;
  const characters = JSON.stringify(spec).length * steps.length;
  return characters > LIMITS.expandedCharacters
    ? `${steps.length} jobs, each with what was submitted, have ${characters} characters; at most ${LIMITS.expandedCharacters} are taken.`
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
