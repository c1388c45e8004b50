import type { CobRun } from "@plumule/bridge";
import { getDerivations } from "@plumule/protocol";
import { timeBareNix } from "./bare-nix.ts";
import { askTheImpossible } from "./impossible.ts";
import { fetchEvidence, verifyEvidence } from "./proof.ts";
import { type Push, pushSlowly, replaceInTheDark, resume, watchFirstBuild } from "./replacement.ts";
import * as report from "./report.ts";
import { type Keep, makeRepository, NAMESPACE, type Stage, startParts } from "./stage.ts";

/** What the demo needs: a folder to itself, somebody who listens, and somebody who cleans up however it goes. */
export type DemoDeps = {
  folder: string;
  signal: AbortSignal;
  tell: (lines: readonly string[]) => void;
  keep: Keep;
};

/**
 * Plays a push becoming a signed result, on real parts: git, Nix, the broker in its engine, a runner, a WebSocket. Nothing is told that was not
 * measured or looked up. Throws at the first step that fails; the message names it.
 */
export async function playDemo({ folder, signal, tell, keep }: DemoDeps): Promise<report.Times> {
  const parts = await step("start broker and runner", () => startParts(folder, signal, keep));
  const garden = await step("make a repository", () => makeRepository({ folder, signal, keep }, parts));
  const stage: Stage = { ...parts, folder, garden, signal, keep };
  tell(report.describeParts(stage));

  const first = await step("push", () => pushSlowly(stage));
  tell(report.describePush(stage, first));
  const build = await step("watch the build", () => watchFirstBuild(stage, first));
  tell(report.describeBuild(first, build));

  tell(["cable pulled; a second push while nobody can watch"]);
  const replacement = await step("replace a running build", () => replaceInTheDark(stage, first, build));
  tell(report.describeReplacement(stage, replacement));
  const resumption = await step("resume the stream", () => resume(stage, build, replacement));
  tell(report.describeResumption(replacement, resumption));

  const second = replacement.push;
  const { body } = await step("read what was built", () =>
    stage.ask(getDerivations, { params: { ns: NAMESPACE, job: second.job } }),
  );
  tell(report.describeDerivations(body.nodes));
  tell(report.describeImpossible(await step("ask for a system that no runner has", () => askTheImpossible(stage))));

  const evidence = await step("fetch the signed result", () => fetchEvidence(stage, second));
  const cob = await step("read the job COB", () => readCob(stage, second));
  await step("stop broker and runner", () => stage.instance.stop(0, signal));
  const proof = await step("verify the signed result", () => verifyEvidence(stage, second, evidence));
  tell(report.describeProof(stage.runner, proof));
  if (cob !== null) tell(report.describeCob(cob));

  const bareNixMs = await step("build with Nix alone", () => timeBareNix(stage));
  const times = report.timesOf(first, build, evidence.run, bareNixMs);
  tell(report.describeTimes(times));
  return times;
}

/** What the bridge has written of a job, in the name of its node; null for a repository that is not on Radicle. */
async function readCob({ garden, broker }: Stage, { commit, job }: Push): Promise<CobRun | null> {
  const run = (await garden.cobRun?.(commit, `${broker.url}/j/${job}`)) ?? null;
  if (run !== null && run.status !== "succeeded") throw new Error(`it says that the job ${run.status}`);
  return run;
}

async function step<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}
