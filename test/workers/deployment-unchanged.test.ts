import {
  type Assignment,
  digestsOf,
  type Output,
  signApproval,
  type SubmitBody,
  submitBodySchema,
} from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { rerunBody } from "../../durable-objects/deployment/bodies.ts";
import { guardOf, type House, newHouse, ok, Runner, submit } from "./deployment-harness.ts";
import { newSigner } from "./namespace-fixtures.ts";

const BUILD = {
  task: { kind: "repository" },
  source: { repository: "https://example.org/garden.git", commit: "a".repeat(40) },
} as const satisfies SubmitBody;
const LATER = { ...BUILD, skipUnchanged: true, source: { ...BUILD.source, commit: "b".repeat(40) } };

function output(name: string, drv = name): Output {
  const [path, drvPath] = [`/nix/store/${"0".repeat(32)}-${name}`, `/nix/store/${"1".repeat(32)}-${drv}.drv`];
  return { name: "out", path, drvPath, narHash: "a".repeat(64), narSize: 1, references: [], signatures: [] };
}

/** A deployment whose last success has built some derivations. */
async function built(
  body: SubmitBody,
  names: readonly string[],
): Promise<{ house: House; runner: Runner; job: string }> {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house, body);
  const assignment = await runner.start();
  const outputs = names.map((name) => output(name));
  ok(await runner.send(assignment, await runner.resultOf(assignment, "succeeded", { outputs })));
  return { house, runner, job: job.id };
}

async function next({ house, runner }: { house: House; runner: Runner }, body: SubmitBody): Promise<Assignment> {
  await submit(house, body);
  return runner.start();
}

describe("a job that need not be done again", () => {
  it("is given with the last success of equal work, and what that built, when it asks", async () => {
    const stage = await built(BUILD, ["b", "a"]);
    const drvs = ["a", "b"].map((name) => output(name).drvPath);
    const assignment = await next(stage, LATER);
    expect(assignment.lastSuccess).toEqual({ job: stage.job, drvs });
    ok(await stage.runner.finish(assignment, "skipped"));
    expect(ok(await stage.house.deployment.job(assignment.job)).job).toMatchObject({ state: "skipped" });
    const { deployment } = ok(await stage.house.deployment.read());
    expect(deployment).toMatchObject({ currentJob: stage.job, lastResult: { job: assignment.job, state: "skipped" } });
    // What was skipped has built nothing: the next is compared with the same success.
    expect((await next(stage, LATER)).lastSuccess).toEqual({ job: stage.job, drvs });
  });

  it("is compared with its own step, where a task file became jobs", async () => {
    const house = await newHouse();
    const runner = await Runner.in(house);
    const matrix = { host: ["king", "queen"] };
    const expansion = { jobs: { site: { kind: "nix-build" as const, matrix }, docs: { kind: "shell" as const } } };
    const read = async (): Promise<void> => {
      const reading = await next({ house, runner }, LATER);
      ok(await runner.send(reading, await runner.resultOf(reading, "succeeded", { expansion })));
    };
    const known: Assignment["lastSuccess"][] = [];
    const steps: string[] = [];
    for (let round = 0; round < 2; round += 1) {
      await read();
      for (const name of ["king", "queen", "docs"]) {
        const step = await runner.start();
        steps.push(step.job);
        known.push(step.lastSuccess);
        const outputs = name === "docs" ? [] : [output(name)];
        ok(await runner.send(step, await runner.resultOf(step, "succeeded", { outputs })));
      }
    }
    expect(known.slice(3)).toEqual([
      { job: steps[0], drvs: [output("king").drvPath] },
      { job: steps[1], drvs: [output("queen").drvPath] },
      undefined,
    ]);
  });

  it("gets it on the fast path too", async () => {
    const stage = await built(BUILD, ["a"]);
    const { answer } = await stage.runner.park();
    await submit(stage.house, LATER);
    expect((await answer)?.lastSuccess?.job).toBe(stage.job);
  });

  it.each<[string, SubmitBody, SubmitBody]>([
    ["does not ask", BUILD, { ...LATER, skipUnchanged: false }],
    ["has another task", BUILD, { ...LATER, task: { kind: "repository", task: "docs" } }],
    ["has another configuration", { ...BUILD, configuration: 1 }, { ...LATER, configuration: 2 }],
  ])("is not compared when it %s", async (_, first, second) => {
    expect(await next(await built(first, ["a"]), second)).not.toHaveProperty("lastSuccess");
  });

  it("is not compared with a success that built nothing, or with what failed since", async () => {
    expect(await next(await built(BUILD, []), LATER)).not.toHaveProperty("lastSuccess");

    const stage = await built(BUILD, ["a"]);
    await stage.runner.finish(await next(stage, BUILD), "failed");
    expect((await next(stage, LATER)).lastSuccess?.job).toBe(stage.job);
  });

  it("is done when it is done again by hand", () => {
    expect(rerunBody(LATER)).not.toHaveProperty("skipUnchanged");
  });

  it.each<[string, Partial<SubmitBody>]>([
    ["a script", { task: { kind: "shell", script: "true" } }],
    ["a quorum", { ...BUILD, quorum: { replicas: 1, agree: 1 } }],
  ])("cannot be %s", (_, body) => {
    const parsed = submitBodySchema.safeParse({ ...body, skipUnchanged: true });
    expect(parsed.error?.issues.map(({ path }) => path)).toEqual([["skipUnchanged"]]);
  });
});

it("is not compared with a stranger's success, which proves nothing to others", async () => {
  const house = await newHouse();
  const [runner, delegate] = [await Runner.in(house), await newSigner()];
  const stranger = { author: "did:key:stranger", why: "a stranger", approvers: [delegate.did] };
  const held = await house.deployment.submit({
    actor: "hook:h",
    body: BUILD,
    guard: guardOf(),
    dryRun: false,
    stranger,
  });
  const { id, deployment } = ok(held).job;
  const audience = `https://broker.test/v1/${house.namespace}`;
  const { taskSha256 } = await digestsOf(BUILD);
  const about = { audience, namespace: house.namespace, deployment, job: id, commit: BUILD.source.commit, taskSha256 };
  const approval = { envelope: await signApproval(about, delegate), audience };
  ok(await house.deployment.approve({ actor: "token:operator", job: id, commit: null, approval }));
  const assignment = (await runner.poll())!;
  ok(await runner.beat(assignment));
  ok(await runner.send(assignment, await runner.resultOf(assignment, "succeeded", { outputs: [output("a")] })));
  expect(ok(await house.deployment.read()).deployment.currentJob).toBe(id);
  expect(await next({ house, runner }, LATER)).not.toHaveProperty("lastSuccess");
});
