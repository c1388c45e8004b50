import { type RunnerOptions, startRunner } from "@plumule/runner";
import { serveParent } from "./child.ts";

serveParent<RunnerOptions, string>(async (options, say) => {
  const runner = await startRunner(options, { fetch, say });
  return "refused" in runner ? runner : { started: runner.id, stop: () => runner.stop(), done: runner.done };
});
