import { cancelJob, getJob, submitJob, type Waiting } from "@plumule/protocol";
import { NAMESPACE, type Stage } from "./stage.ts";
import { until } from "./until.ts";

/** A job that nobody can do, and what the broker says about it. */
export type Impossible = { system: string; waiting: Waiting };

/** Asks for a system that the runner has not, reads why the job waits, and cancels it. */
export async function askTheImpossible({ ask, offer }: Stage): Promise<Impossible> {
  const system = ["aarch64-darwin", "x86_64-linux"].find((one) => !offer.systems.includes(one)) ?? "riscv64-linux";
  const { body } = await ask(submitJob, {
    params: { ns: NAMESPACE, deployment: "greenhouse" },
    body: { task: { kind: "shell", script: "uname -a" }, requires: { systems: [system] } },
  });
  const of = { ns: NAMESPACE, job: body.job.id };
  const waiting = await until("the reason why the job waits", 5_000, async () => {
    const { job } = (await ask(getJob, { params: of })).body;
    return job.waiting?.reason === "no-runner" ? job.waiting : null;
  });
  await ask(cancelJob, { params: of, body: { reason: "The demo has seen why it waits." } });
  return { system, waiting };
}
