import type { SubmitBody } from "@plumule/protocol";
import type { Evidence } from "./history.ts";
import type { Random } from "./random.ts";

/** What a job of a round does. Its script prints the same text whenever it is let to its end, so that it is known what a log must hold. */
export type JobPlan = {
  key: string;
  /** Steps, what each prints, and how long it rests after each, ms. */
  stepCount: number;
  linesPerStep: number;
  restMs: number;
  exitCode: number;
  /** Leaves a process in a session of its own that goes on writing evidence, and one without an environment. */
  daemons: boolean;
  /** Takes no notice of a signal, so that it has to be killed. */
  stubborn: boolean;
  graceMs: number;
};

const LINE = 64;
/** The label of a job that names the wish that it came from. */
export const KEY_LABEL = "wish";

/** Draws what a job does. */
export function planJob(key: string, random: Random): JobPlan {
  const loud = random.chance(0.15);
  return {
    key,
    stepCount: random.between(1, random.chance(0.3) ? 40 : 12),
    linesPerStep: loud ? random.between(100, 600) : random.between(1, 3),
    restMs: random.between(10, 120),
    exitCode: random.chance(0.15) ? 3 : 0,
    daemons: random.chance(0.35),
    stubborn: random.chance(0.2),
    graceMs: random.between(100, 700),
  };
}

/** All that the job prints when nobody stops it. ASCII. */
export function printedBy({ key, stepCount, linesPerStep }: JobPlan): string {
  const lines = Array.from({ length: stepCount * linesPerStep }, (_, index) => lineOf(key, index + 1));
  return lines.join("");
}

function lineOf(key: string, number: number): string {
  return `${key} ${String(number).padStart(7, "0")} `.padEnd(LINE - 1, ".") + "\n";
}

/**
 * Its script. Every word of evidence is one write to a file that is opened to append, so that the file has what all jobs did in the order in
 * which they did it. `mark` is in the environment or the arguments of every process of it.
 */
export function scriptOf(plan: JobPlan, { evidence, mark }: { evidence: string; mark: string }): string {
  const { key, stepCount, linesPerStep, restMs, exitCode, daemons, stubborn } = plan;
  return `exec 2>/dev/null
export CHAOS_MARK='${mark}'
say() { printf '%s %s %s %s %s\\n' "$PLUMULE_DEPLOYMENT" "$PLUMULE_JOB" "$PLUMULE_RUN" "$1" "$2" >>'${evidence}'; }
say start 0
${stubborn ? "trap '' TERM INT" : ""}
${daemons ? DAEMONS : ""}
n=0 dots='${".".repeat(LINE - 1)}'
for ((step = 1; step <= ${stepCount}; step += 1)); do
  text=
  for ((line = 1; line <= ${linesPerStep}; line += 1)); do
    n=$((n + 1))
    printf -v one '${key} %07d ' "$n"
    text+="$one\${dots:\${#one}}"$'\\n'
  done
  printf '%s' "$text"
  say line "$n"
  sleep ${(restMs / 1000).toFixed(3)} || :
done
say end ${exitCode}
exit ${exitCode}
`;
}

const DAEMONS = `export -f say
setsid -f bash -c 'trap "" TERM HUP; for ((d = 1; ; d += 1)); do say daemon "$d"; sleep 0.05; done' </dev/null >/dev/null
env -i "PATH=$PATH" setsid -f bash -c 'exec -a "$0" sleep 600' "$CHAOS_MARK" </dev/null >/dev/null`;

/** The submit of a job. */
export function bodyOf(
  plan: JobPlan,
  place: { evidence: string; mark: string },
  how: Pick<SubmitBody, "mode" | "interrupt" | "dedupeKey">,
): SubmitBody {
  return {
    task: { kind: "shell", script: scriptOf(plan, place) },
    labels: { [KEY_LABEL]: plan.key },
    timeouts: { graceMs: plan.graceMs, acknowledgeMs: 8_000 },
    retry: { attempts: 8 },
    ...how,
  };
}

/** Reads the file of evidence. */
export function parseEvidence(text: string): Evidence[] {
  return text.split("\n").flatMap((line) => {
    const [deployment, job, run, what, value] = line.split(" ");
    return deployment === undefined || job === undefined || run === undefined || value === undefined
      ? []
      : [{ deployment, job, run, what: what as Evidence["what"], value: Number(value) }];
  });
}
