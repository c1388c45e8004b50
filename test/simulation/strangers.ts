import {
  cancelDeployment,
  createSession,
  getDeployment,
  heartbeatRun,
  receiveNamedHook,
  reportRunEvents,
  submitJob,
  utf8,
} from "@plumule/protocol";
import { type Answered, ask, type Client, rest, type Stage, type Tenant } from "./stage.ts";

/** A run that nobody ever had. */
const RUN = "019b8d2b-0000-7001-8000-000000000000";
const RUNNER = "did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX";

/**
 * Somebody without any right tries every door. The platform sees to it that no byte changes on its behalf (I15), and no door opens; where a
 * deployment of that name is not, none comes into being.
 */
export async function haunt(stage: Stage, client: Client, tenant: Tenant, over: () => boolean): Promise<void> {
  const { life } = stage.world;
  const params = { ns: tenant.ns, deployment: life.chance(0.5) ? tenant.deployments[0] : "made-up" };
  const body = { epoch: 1 };
  const events = {
    ...body,
    number: 1,
    events: [{ type: "phase" as const, phase: "setup" as const, at: "2026-01-05T08:00:00.000Z" }],
  };
  const task = { kind: "shell" as const, script: "true" };
  const hook = {
    params: { ns: tenant.ns, hook: "forge" },
    body: utf8("{}"),
    headers: { "x-hub-signature-256": "0".repeat(64) },
  };
  const doors: readonly [() => Promise<Answered | null>, ...(() => Promise<Answered | null>)[]] = [
    () => ask(client, submitJob, { params, body: { task } }),
    () => ask(client, cancelDeployment, { params, body: {} }),
    () => ask(client, getDeployment, { params }),
    () => ask(client, heartbeatRun, { params: { ...params, run: RUN }, body }),
    () => ask(client, reportRunEvents, { params: { ...params, run: RUN }, body: events }),
    () => ask(client, receiveNamedHook, hook),
    () => ask(client, createSession, { params: { ns: tenant.ns }, body: { runner: RUNNER } }),
  ];
  while (!over()) {
    await rest(client, life.next() * 4_000 * stage.pace);
    const answer = await life.pick(doors)();
    // To ask for a challenge is everybody's right.
    if (answer?.ok === true && answer.answer.status !== 200)
      stage.world.violate("I15", `a stranger was answered ${answer.answer.status}`);
  }
}
