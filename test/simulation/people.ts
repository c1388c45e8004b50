import {
  approveJob,
  cancelDeployment,
  cancelJob,
  type CallAnswer,
  deleteDeployment,
  getDeployment,
  getJob,
  INTERRUPTS,
  type JobId,
  MODES,
  PRIORITIES,
  rerunJob,
  resolveJob,
  type SubmitAnswer,
  type SubmitBody,
  submitJob,
} from "@plumule/protocol";
import type { Book } from "./book.ts";
import { holdersOf, standingOf } from "./invariants.ts";
import { drawLocks } from "./lock-book.ts";
import type { Plan } from "./plan.ts";
import type { Random } from "./platform/random.ts";
import { type Answered, ask, type Client, newClient, rest, type Stage, type Tenant } from "./stage.ts";

/** Tries of one request before a person gives up. */
const TRIES = 6;

/** A person, or a panel: submits, cancels, approves, and asks again when no answer came. */
export class Person {
  readonly #stage: Stage;
  readonly #book: Book;
  readonly #client: Client;
  readonly #tenant: Tenant;
  readonly #life: Random;
  /** Jobs that it knows of, newest last. */
  readonly #known: { id: JobId; deployment: string }[] = [];

  constructor(stage: Stage, book: Book, client: Client, tenant: Tenant) {
    this.#stage = stage;
    this.#book = book;
    this.#client = client;
    this.#tenant = tenant;
    this.#life = stage.world.life;
  }

  /** Acts again and again until `over`. */
  async live(over: () => boolean): Promise<void> {
    while (!over()) {
      await rest(this.#client, this.#life.next() ** 3 * 12_000 * this.#stage.pace);
      if (!over()) await this.#act();
    }
  }

  async #act(): Promise<void> {
    const dice = this.#life.next();
    const known = this.#known.at(-1 - this.#life.between(0, 4));
    if (known === undefined || dice < 0.55) return this.#submit();
    if (dice < 0.68) return this.#cancel(known);
    if (dice < 0.72) return this.#cancelAll(known.deployment);
    if (dice < 0.8) return this.#approve(known.id);
    if (dice < 0.87) return this.#rerun(known.id);
    if (dice < 0.9) return this.#remove(known.deployment);
    if (dice < 0.93) return this.#resolve(known.id);
    await ask(this.#client, getDeployment, { params: { ns: this.#tenant.ns, deployment: known.deployment } });
    await ask(this.#client, getJob, { params: { ns: this.#tenant.ns, job: known.id } });
  }

  async #submit(): Promise<void> {
    const deployment = this.#life.pick(this.#tenant.deployments);
    const params = { ns: this.#tenant.ns, deployment };
    const headers = { "idempotency-key": this.#key() };
    const { world, lockShare } = this.#stage;
    const body = { ...drawJob(this.#life, this.#tenant), ...drawLocks(world.locks, lockShare) };
    const answer = await this.#insist(() => ask(this.#client, submitJob, { params, body, headers }));
    if (answer === null || !answer.ok) return;
    this.#note(answer.answer.body, deployment);
    await this.#repeat(answer.answer.body, () => ask(this.#client, submitJob, { params, body, headers }));
    if (!this.#life.chance(0.1)) return;
    const other = await ask(this.#client, submitJob, { params, body: { ...body, summary: "another" }, headers });
    if (other !== null && (other.ok || (other.status !== 422 && isAnswer(other.status))))
      this.#stage.world.violate("I9", `a key was good for two requests: ${other.ok ? "accepted" : other.problem.code}`);
  }

  /** The same key gets the same answer, however often and however late (I8). */
  async #repeat(first: unknown, again: () => Promise<Answered | null>): Promise<void> {
    if (!this.#life.chance(0.25)) return;
    await rest(this.#client, this.#life.next() * 20_000);
    const answer = await again();
    if (answer === null || (!answer.ok && !isAnswer(answer.status))) return;
    const second = answer.ok ? answer.answer.body : answer.problem;
    if (JSON.stringify(second) !== JSON.stringify(first))
      this.#stage.world.violate("I8", `a key got two answers: ${JSON.stringify(first)} and ${JSON.stringify(second)}`);
  }

  async #cancel({ id }: { id: JobId }): Promise<void> {
    const params = { ns: this.#tenant.ns, job: id };
    const [headers, body] = [{ "idempotency-key": this.#key() }, { force: this.#life.chance(0.2) }];
    const again = (): Promise<CallAnswer<typeof cancelJob> | null> =>
      ask(this.#client, cancelJob, { params, body, headers });
    const answer = await this.#insist(again);
    if (answer?.ok !== true) return;
    this.#stop(answer.answer.body.cancelled, "cancelled");
    await this.#repeat(answer.answer.body, again);
  }

  async #cancelAll(deployment: string): Promise<void> {
    const headers = { "idempotency-key": this.#key() };
    const params = { ns: this.#tenant.ns, deployment };
    const answer = await this.#insist(() => ask(this.#client, cancelDeployment, { params, body: {}, headers }));
    if (answer?.ok === true) this.#stop(answer.answer.body.cancelled, "cancelled with its deployment");
  }

  async #approve(job: JobId): Promise<void> {
    await this.#insist(() => ask(this.#client, approveJob, { params: { ns: this.#tenant.ns, job }, body: {} }));
  }

  async #resolve(job: JobId): Promise<void> {
    const body = { outcome: "failed" as const };
    await this.#insist(() => ask(this.#client, resolveJob, { params: { ns: this.#tenant.ns, job }, body }));
  }

  async #rerun(job: JobId): Promise<void> {
    const headers = { "idempotency-key": this.#key() };
    const answer = await this.#insist(() =>
      ask(this.#client, rerunJob, { params: { ns: this.#tenant.ns, job }, headers }),
    );
    if (answer?.ok === true) this.#note(answer.answer.body, answer.answer.body.job.deployment);
  }

  async #remove(deployment: string): Promise<void> {
    const headers = { "idempotency-key": this.#key() };
    const plan: Plan = { steps: [{ ms: 500, characters: 10 }], outcome: "succeeded", stopMs: 100 };
    const task = { kind: "shell" as const, script: JSON.stringify(plan) };
    const body = this.#life.chance(0.6) ? { task } : {};
    const params = { ns: this.#tenant.ns, deployment };
    const answer = await this.#insist(() => ask(this.#client, deleteDeployment, { params, body, headers }));
    if (answer?.ok === true && answer.answer.status === 202) this.#note(answer.answer.body, deployment);
  }

  #note(answer: SubmitAnswer, deployment: string): void {
    if (answer.dryRun) return;
    this.#book.accepted.set(answer.job.id, { tenant: this.#tenant, deployment });
    this.#known.push({ id: answer.job.id, deployment });
    this.#stop(answer.superseded, `superseded by ${answer.job.id}`);
  }

  #stop(jobs: readonly JobId[], why: string): void {
    for (const job of jobs)
      if (!this.#book.stopped.has(job)) this.#book.stopped.set(job, { at: this.#stage.world.clock.now, why });
  }

  /** Asks again until an answer comes that is one: what was asked for may have happened without one. */
  async #insist<A extends Answered>(once: () => Promise<A | null>): Promise<A | null> {
    for (let count = 1; count <= TRIES; count += 1) {
      const answer = await once();
      if (answer !== null && (answer.ok || isAnswer(answer.status))) return answer;
      await rest(this.#client, this.#life.next() * 1_000 * 2 ** count);
    }
    return null;
  }

  #key(): string {
    return `key-${this.#client.context.owner.name}-${this.#life.between(0, 2 ** 31)}`;
  }
}

/** Somebody who looks how effects have ended that nobody saw, and says so: until then they keep their locks. */
export function resolveUnseen({ edge, hosts, tenants }: Stage): void {
  for (const tenant of tenants)
    for (const host of hosts.all.values()) {
      if (host.className !== "Deployment" || !host.name.startsWith(`${tenant.ns}/`) || standingOf(host) === null)
        continue;
      const client = newClient(edge, `resolver-${tenant.marker}`, { tenant, bearer: tenant.token });
      for (const { id } of holdersOf(host).filter(({ state }) => state === "unknown"))
        void ask(client, resolveJob, { params: { ns: tenant.ns, job: id }, body: { outcome: "failed" } });
    }
}

/** Whether a problem is the broker's decision: a fault may pass, and the page of a proxy comes with 200. */
function isAnswer(status: number): boolean {
  return status >= 400 && status < 500;
}

/** What a job does: most are short, some take long or say much, some have a phase that must not be cut. */
export function drawPlan(life: Random): Plan {
  const pace = life.pick([100, 2_000, 2_000, 20_000, 60_000] as const);
  const applies = life.chance(0.2);
  const steps = Array.from({ length: life.between(1, 5) }, (_, index) => ({
    ms: life.next() * pace,
    characters: life.chance(0.05) ? 90_000 : life.between(0, 200),
    ...(applies && index > 0 ? { phase: "applying" as const } : {}),
  }));
  return {
    steps,
    outcome: life.chance(0.75) ? "succeeded" : "failed",
    stopMs: life.next() * (life.chance(0.2) ? 20_000 : 500),
  };
}

/** What somebody asks for. Waits are short, so that a world can come to rest. */
function drawJob(life: Random, { marker, voterCount }: Tenant): SubmitBody {
  const replicas = voterCount > 1 && life.chance(0.2) ? life.between(2, voterCount + 1) : 1;
  const plan: Plan = { ...drawPlan(life), ...(replicas > 1 ? { replicated: true } : {}) };
  return {
    task: { kind: "shell", script: JSON.stringify(plan) },
    ...(replicas > 1 ? { quorum: { replicas, agree: life.between(1, replicas + 1) } } : {}),
    labels: { marker },
    summary: `work of ${marker}`,
    mode: life.pick(["queue", ...MODES] as const),
    interrupt: life.pick(INTERRUPTS),
    priority: life.pick(PRIORITIES),
    timeouts: {
      queueMs: life.between(20_000, 120_000),
      runMs: life.chance(0.1) ? 5_000 : 120_000,
      silenceMs: 60_000,
      graceMs: life.between(0, 10_000),
      ...(life.chance(0.2) ? { acknowledgeMs: life.between(1_000, 10_000) } : {}),
    },
    ...(life.chance(0.3) ? { retry: { attempts: life.between(1, 5), onFailure: life.chance(0.5) } } : {}),
    ...(life.chance(0.15) ? { dedupeKey: `same-${life.between(0, 3)}` } : {}),
    ...(life.chance(0.15) ? { debounce: { quietMs: life.between(100, 5_000), maxMs: 20_000 } } : {}),
    ...(life.chance(0.1) ? { hold: true } : {}),
    ...(life.chance(0.1) ? { configuration: { marker, deep: [1, { two: null }] } } : {}),
  };
}
