import type { Reason } from "@plumule/protocol";
import type { StopOrder } from "../core/model.ts";
import type { Step } from "../task-file/steps.ts";
import type { TaskContext, TaskEnd } from "./task.ts";

/**
 * Does the work of one step, and stops it for its own time-outs: as the run would be stopped, but the run goes on. Those of the run stay, so that
 * a step's can only be shorter.
 */
export async function withStepTime(
  context: TaskContext,
  { runMs, silenceMs }: NonNullable<Step["timeouts"]>,
  work: (context: TaskContext) => Promise<TaskEnd>,
): Promise<TaskEnd> {
  if (runMs === undefined && silenceMs === undefined) return work(context);
  const stop = new AbortController();
  const kill = new AbortController();
  const timers: NodeJS.Timeout[] = [];
  const end = (code: Reason["code"], detail: string): void => {
    if (stop.signal.aborted) return;
    stop.abort({ reason: { code, detail }, graceMs: null, leaseLost: false } satisfies StopOrder);
    timers.push(setTimeout(() => kill.abort(), context.assignment.limits.graceMs));
  };
  if (runMs !== undefined)
    timers.push(setTimeout(() => end("run-timeout", `The step took longer than ${runMs} ms.`), runMs));
  const silence =
    silenceMs === undefined
      ? null
      : setTimeout(() => end("silence-timeout", `The step was silent for ${silenceMs} ms.`), silenceMs);
  try {
    return await work({
      ...context,
      log: (chunk) => {
        silence?.refresh();
        context.log(chunk);
      },
      stop: AbortSignal.any([context.stop, stop.signal]),
      kill: AbortSignal.any([context.kill, kill.signal]),
      silenceMs: Math.min(silenceMs ?? context.silenceMs, context.silenceMs),
    });
  } finally {
    for (const timer of timers) clearTimeout(timer);
    clearTimeout(silence ?? undefined);
  }
}
