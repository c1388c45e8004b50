import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  didKeyOf,
  draftJobResult,
  isRefusal,
  PROTOCOL_VERSION,
  sha256Hex,
  signEnvelope,
  signerFromSeed,
  STATEMENT_PAYLOAD_TYPE,
  toBase64,
  utf8,
  type Assignment,
  type Event,
  type Expansion,
  type Offer,
  type Outcome,
  type Output,
  type Refusal,
  type ResultBody,
  type Signer,
  type SubmitAnswer,
  type SubmitBody,
} from "@plumule/protocol";
import { expect, vi } from "vitest";
import { deploymentObject, namespaceObject, poolObject } from "../../durable-objects/shared/names.ts";

export type Deployment = ReturnType<typeof deploymentObject>;
export type Pool = ReturnType<typeof poolObject>;

/** A namespace of its own, with one deployment and its pool: storage is shared within a run of tests. */
export type House = { namespace: string; deployment: Deployment; pool: Pool };

export async function newHouse(): Promise<House> {
  const namespace = `dep-${crypto.randomUUID().slice(0, 8)}`;
  await namespaceObject(env, namespace).open({ id: namespace });
  return {
    namespace,
    deployment: deploymentObject(env, namespace, "web"),
    pool: poolObject(env, namespace, "default"),
  };
}

/** The value, or a failed test that shows the refusal. */
export function ok<T>(answer: T): Exclude<T, Refusal> {
  if (isRefusal(answer)) throw new Error(`${answer.refused}: ${answer.detail}`);
  return answer as Exclude<T, Refusal>;
}

/** The code of a refusal; "answered" when there was none. */
export function codeOf(answer: unknown): string {
  return isRefusal(answer) ? answer.refused : "answered";
}

export function guardOf(
  key: string | null = null,
  ifMatch: string | null = null,
  bodySha256 = "0".repeat(64),
): { idempotencyKey: string | null; bodySha256: string; ifMatch: string | null } {
  return { idempotencyKey: key, bodySha256, ifMatch };
}

export async function submit(
  { deployment }: House,
  body: Partial<SubmitBody> = {},
  key: string | null = null,
): Promise<SubmitAnswer> {
  const spec: SubmitBody = { task: { kind: "shell", script: "true" }, ...body };
  return ok(await deployment.submit({ actor: "token:test", body: spec, guard: guardOf(key), dryRun: false }));
}

/** A runner as the broker sees it, with a real key. */
export class Runner {
  readonly id: string;
  readonly #signer: Signer;
  readonly #house: House;
  readonly #labels: string[];
  readonly #features: string[];

  constructor(house: House, signer: Signer, labels: string[] = [], features = ["nix", "effects", "expansion"]) {
    this.#house = house;
    this.#labels = labels;
    this.#features = features;
    this.#signer = signer;
    this.id = didKeyOf(signer.publicKey);
  }

  static async in(house: House, labels: string[] = [], features?: string[]): Promise<Runner> {
    return new Runner(house, await signerFromSeed(crypto.getRandomValues(new Uint8Array(32))), labels, features);
  }

  /** Polls; null when nothing came in time. */
  async poll(
    waitMs = 5_000,
    requestKey: string = crypto.randomUUID(),
    protocol = PROTOCOL_VERSION,
  ): Promise<Assignment | null> {
    const plain = {
      name: "king",
      systems: ["x86_64-linux"],
      features: this.#features,
      labels: this.#labels,
      version: "1",
      capacity: 4,
    };
    const offer: Offer = { ...plain, isolation: "process-group" };
    const body = { requestKey, protocol, pool: "default", offer, busy: 0, waitMs };
    const answer = ok(await this.#house.pool.poll({ runner: this.id, body }));
    if (answer !== null && !("leaseToken" in answer)) throw new Error("an order, which nobody asked for");
    return answer;
  }

  /** Parks a poll and comes back when it is parked. */
  async park(waitMs = 20_000): Promise<{ answer: Promise<Assignment | null> }> {
    const answer = this.poll(waitMs);
    await vi.waitFor(async () =>
      expect((await this.#house.pool.presence()).some((one) => one.runner === this.id && one.parked)).toBe(true),
    );
    return { answer };
  }

  /** Takes the job that is there, and acknowledges it. */
  async start(): Promise<Assignment> {
    const assignment = await this.poll();
    if (assignment === null) throw new Error("no assignment came");
    ok(await this.beat(assignment));
    return assignment;
  }

  beat(
    { run, leaseToken, epoch }: Assignment,
    over: { seenCommand?: number; waitMs?: number } = {},
  ): ReturnType<Deployment["heartbeat"]> {
    return this.#house.deployment.heartbeat({ run, leaseToken, body: { epoch, ...over } });
  }

  /** A signed result of a run whose whole log is `log`; with `inline` the log rides on it. */
  async resultOf(
    assignment: Assignment,
    outcome: Outcome = "succeeded",
    {
      log = "",
      inline = true,
      outputs = [] as Output[],
      untrusted = assignment.untrusted,
      plan = undefined as { sha256: string; text?: string } | undefined,
      schedules = undefined as { name: string; cron: string }[] | undefined,
      expansion = undefined as Expansion | undefined,
    } = {},
  ): Promise<ResultBody> {
    const { spec } = assignment;
    const bytes = utf8(log);
    const signedLog = { bytes: bytes.length, sha256: await sha256Hex(bytes), truncated: false };
    const finishedAt = new Date().toISOString();
    const exitCode = outcome === "succeeded" ? 0 : outcome === "failed" ? 1 : null;
    const drafted = draftJobResult({
      source: spec.source === undefined ? null : { repository: spec.source.repository, commit: spec.source.commit },
      namespace: assignment.namespace,
      deployment: assignment.deployment,
      job: assignment.job,
      run: assignment.run,
      epoch: assignment.epoch,
      kind: spec.task.kind,
      result: outcome,
      exitCode,
      reason: null,
      taskSha256: assignment.taskSha256,
      configurationSha256: assignment.configurationSha256,
      startedAt: finishedAt,
      finishedAt,
      runner: { did: this.id, version: "1", isolation: "process-group", system: "x86_64-linux", untrusted },
      log: signedLog,
      outputs,
      plan,
      schedules,
      expansion,
    });
    if (!drafted.ok) throw new Error(drafted.detail);
    const statement = await signEnvelope(STATEMENT_PAYLOAD_TYPE, drafted.value.bytes, this.#signer);
    return {
      epoch: assignment.epoch,
      outcome,
      exitCode,
      reason: null,
      finishedAt,
      isolation: "process-group",
      survivorsKilled: 0,
      log: signedLog,
      ...(inline && log !== "" ? { logTail: { offset: 0, base64: toBase64(bytes) } } : {}),
      outputs,
      statements: [statement],
    };
  }

  send({ run, leaseToken }: Assignment, body: ResultBody): ReturnType<Deployment["result"]> {
    return this.#house.deployment.result({ run, leaseToken, body });
  }

  async finish(assignment: Assignment, outcome: Outcome = "succeeded", log = ""): ReturnType<Deployment["result"]> {
    return this.send(assignment, await this.resultOf(assignment, outcome, { log }));
  }
}

/** Every event of the deployment, oldest first. */
export async function eventsOf({ deployment }: House): Promise<Event[]> {
  return ok(await deployment.history({ since: null, limit: 500, waitMs: 0 })).events;
}

/** Rows that the deployment has written since its instance was made. */
export function rowsWritten({ deployment }: House): Promise<number> {
  return runInDurableObject(
    deployment,
    (_, state) => state.storage.sql.exec<{ rows: number }>("SELECT total_changes() AS rows").one().rows,
  );
}

/** When the deployment wakes up next, or null. */
export function alarmOf({ deployment }: House): Promise<number | null> {
  return runInDurableObject(deployment, (_, state) => state.storage.getAlarm());
}

/** Moves the clock that the objects read. Their own timers keep running in real time. */
export function advance(ms: number): void {
  const now = Date.now() + ms;
  vi.useFakeTimers({ toFake: ["Date"], now });
}
