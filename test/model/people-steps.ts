import { isRefusal, type Refusal } from "@plumule/protocol";
import { briefOf } from "#durable-objects/deployment/bodies.ts";
import { liveRuns } from "#durable-objects/deployment/core/model.ts";
import type { Submission } from "#durable-objects/deployment/core/submit.ts";
import type { Change } from "#durable-objects/deployment/core/work.ts";
import { always, commit } from "./always.ts";
import type { Core } from "./core.ts";
import { PoolStep } from "./pool.ts";
import { basisOf } from "./quorum.ts";
import type { Ask, Scope } from "./scopes.ts";
import { jobNamed, leaseOf, named, type Step, withPool } from "./step.ts";
import { type Call, jobId, leaseOffer, moment, NOW, type World } from "./world.ts";

const STRANGER = { author: null, why: "by a stranger", approvers: ["did:key:z6MkDelegate"] };

/** Submits, and what else people ask of a deployment. */
export function peopleSteps(core: Core, scope: Scope, world: World): Step[] {
  const steps: Step[] = [];
  const isUnderWay = world.calls.some(({ kind }) => kind === "submit");
  for (const body of isUnderWay ? [] : (scope.jobs[world.submittedCount] ?? []))
    steps.push({
      label: `submit ${JSON.stringify(body)}`,
      take: () => submitStep(core, scope, world, body),
    });
  if (world.peopleCount >= scope.peopleCount) return steps;
  const told = { ...world, peopleCount: world.peopleCount + 1 };
  const why = { code: "cancelled" as const, detail: "asked for" };
  const decide = (label: string, change: () => Refusal | Change): void => {
    steps.push({
      label,
      take: () => {
        const decided = change();
        if (!isRefusal(decided)) return commit(core, told, decided);
        scope.seen.add(`refused ${decided.refused}`).add(`${label.replace(/ \d+/, "")} refused ${decided.refused}`);
        return world;
      },
    });
  };
  for (const { id, state, brief, plan } of world.state.jobs) {
    if (scope.people.includes("cancel"))
      decide(`cancel ${jobNamed(id)}`, () =>
        core.cancel(world.state, { job: id, force: false, why, ifMatch: null }, moment()),
      );
    if (scope.people.includes("force"))
      decide(`cancel ${jobNamed(id)} by force`, () =>
        core.cancel(world.state, { job: id, force: true, why, ifMatch: null }, moment()),
      );
    if (state === "held" && brief.stranger === undefined)
      decide(`approve ${jobNamed(id)}`, () =>
        core.approve(world.state, { job: id, commit: null, plan: plan?.sha256 ?? null }, moment()),
      );
    if (plan !== undefined)
      decide(`approve ${jobNamed(id)} with another plan`, () =>
        core.approve(world.state, { job: id, commit: null, plan: "another" }, moment()),
      );
  }
  if (scope.people.includes("remove") && world.submittedCount > 0)
    decide("remove the deployment", () =>
      core.remove(world.state, { ifMatch: null, why: { ...why, code: "deleted" } }, moment()),
    );
  if (scope.people.includes("resolve"))
    for (const job of world.unknown ?? [])
      for (const outcome of ["succeeded", "failed"] as const)
        decide(`resolve ${jobNamed(job.id)}: ${outcome}`, () =>
          core.resolve(world.state, { job, outcome, detail: "seen" }, moment()),
        );
  if (scope.people.includes("mistake")) mistakes(core, world, decide);
  return steps;
}

/** What people ask for that cannot be had. */
function mistakes(core: Core, { state }: World, decide: (label: string, change: () => Refusal | Change) => void): void {
  const why = { code: "cancelled" as const, detail: "asked for" };
  const ifMatch = '"another"';
  decide("cancel what has changed", () => core.cancel(state, { job: null, force: false, why, ifMatch }, moment()));
  decide("remove what has changed", () => core.remove(state, { ifMatch, why }, moment()));
  for (const job of state.jobs) {
    const { id } = job;
    decide(`approve ${jobNamed(id)} as another commit`, () => core.approve(state, { job: id, commit: "0" }, moment()));
    if (job.state !== "held" || job.brief.stranger !== undefined)
      decide(`approve ${jobNamed(id)} without a key`, () => core.approve(state, { job: id, commit: null }, moment()));
    decide(`resolve ${jobNamed(id)} too early`, () =>
      core.resolve(state, { job, outcome: "failed", detail: "" }, moment()),
    );
  }
}

/** A submit: decided, and its pool asked for a parked runner; when there is one, others may be served before it is decided again. */
function submitStep(core: Core, scope: Scope, world: World, ask: Ask): World {
  const { teardown = false, guarded = false, stranger = false, ...body } = ask;
  const index = world.submittedCount;
  const counted = { ...world, submittedCount: index + 1 };
  const task = { kind: "shell" as const, script: "true" };
  const brief = briefOf({ task, ...body, retry: { attempts: scope.attempts, ...body.retry } });
  const submission: Submission = {
    ...submissionOf(stranger ? { ...brief, stranger: STRANGER } : brief, index),
    teardown,
    ifMatch: guarded ? `"r${world.state.lane.revision}"` : null,
    basis: body.quorum === undefined ? null : basisOf(world),
  };
  const planned = core.submit(world.state, submission, moment());
  if (isRefusal(planned)) {
    scope.seen.add(`refused ${planned.refused}`).add(`submit refused ${planned.refused}`);
    return notAccepted(counted, index);
  }
  checkInterrupts(world, submission.brief.interrupt ?? "before-apply", planned.answer.superseded);
  const { offer } = planned.answer;
  const pool = new PoolStep(world.pool);
  const poll = offer === null ? null : pool.reserve(offer.ticket);
  if (poll === null) return commit(core, withPool(counted, pool), planned);
  const call: Call = { kind: "submit", submission, poll, head: world.head };
  return { ...withPool(counted, pool), calls: [...counted.calls, call] };
}

/** A submit of the n-th job, from 0. */
export function submissionOf(brief: Submission["brief"], index: number): Submission {
  return {
    receivedAt: NOW + index,
    random: new Uint8Array(8),
    brief,
    taskSha256: "",
    configurationSha256: null,
    rerunOf: null,
    teardown: false,
    ifMatch: null,
    lease: null,
  };
}

/** A submit whose pool has set a runner aside is decided again, with that runner's lease. */
export function submitSteps(core: Core, scope: Scope, world: World, call: Extract<Call, { kind: "submit" }>): Step[] {
  const { submission, poll, head } = call;
  const index = submission.receivedAt - NOW;
  const decide = (isDelivered: boolean): World => {
    const lease = { ...leaseOffer(world, poll), job: jobId(index) };
    const decided = core.submit(world.state, { ...submission, lease }, moment());
    const { ifMatch } = submission;
    const isSeen = ifMatch === null || ifMatch === `"r${world.state.lane.revision}"`;
    always(isSeen || isRefusal(decided), "a guarded decision is about the revision that was seen", `${ifMatch}`);
    const pool = new PoolStep(world.pool);
    if (isRefusal(decided)) {
      scope.seen.add(`submit refused ${decided.refused} after its pool had answered`);
      pool.release(poll);
      return notAccepted(withPool(world, pool), index);
    }
    checkInterrupts(world, submission.brief.interrupt ?? "before-apply", decided.answer.superseded);
    const { granted } = decided.answer;
    if (granted === null) pool.release(poll);
    else {
      scope.seen.add("granted at submit");
      if (isDelivered) pool.deliver(poll, leaseOf(granted));
    }
    return commit(core, withPool(world, pool), decided, head);
  };
  const label = `the submit of job ${index + 1} is decided with the reserved ${named(poll.runner)}`;
  return [
    { label, take: () => decide(true) },
    { label: `${label}, what it was granted is lost`, take: () => decide(false) },
  ];
}

/** A job that was refused was never accepted: its number goes to nobody, so that the next one is told apart. */
function notAccepted(world: World, index: number): World {
  const told = [...world.told];
  told[index] = { state: null, finalCount: 1, stopped: false, unseen: false };
  return { ...world, told };
}

/** The calls of a deployment are lost with its memory: a submit under way is not accepted, and its caller hears of a fault. */
export function withoutCalls(world: World): World {
  let after: World = { ...world, calls: [] };
  for (const call of world.calls)
    if (call.kind === "submit") after = notAccepted(after, call.submission.receivedAt - NOW);
  return after;
}

function checkInterrupts(world: World, how: string, superseded: readonly string[]): void {
  for (const job of world.state.jobs) {
    if (liveRuns(job).length === 0 || !superseded.includes(job.id)) continue;
    always(how !== "never", "interrupt: `never` leaves the running job alone", jobNamed(job.id));
    always(
      how === "always" || job.phase !== "applying",
      "interrupt: a job that applies is not interrupted",
      jobNamed(job.id),
    );
  }
}
