import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { isRefusal, LIMITS, makeJobId, runIdOf } from "@plumule/protocol";
import type { Assignment, JobId, Offer, PollBody, Refusal, SubmitBody, Waiting } from "@plumule/protocol";
import { expect, it, vi } from "vitest";
import type { PollAnswer, PoolCalls, Ticket } from "../../durable-objects/pool/calls.ts";
import { deploymentObject, namespaceObject, poolObject } from "../../durable-objects/shared/names.ts";

type Stub = ReturnType<typeof poolObject>;

const KING = `did:key:z6Mk${"k".repeat(44)}`;
const QUEEN = `did:key:z6Mk${"q".repeat(44)}`;
const SHELL: SubmitBody = { task: { kind: "shell", script: "true" } };

let namespaces = 0;
/** A namespace of its own for every test: storage is shared within a run. */
const newNamespace = (): string => `pool-${++namespaces}-${crypto.randomUUID().slice(0, 8)}`;
const newPool = (): Stub => poolObject(env, newNamespace(), "default");
const newJob = (): JobId => makeJobId(Date.now(), crypto.getRandomValues(new Uint8Array(8)));

function ticketOf(over: Partial<Ticket> = {}): Ticket {
  return {
    deployment: "web",
    job: newJob(),
    number: 1,
    priority: "normal",
    needs: {},
    queuedAt: Date.now(),
    avoid: [],
    ...over,
  };
}

function bodyOf(over: Partial<PollBody> = {}, offer: Partial<Offer> = {}): PollBody {
  const plain = { name: "king", systems: ["x86_64-linux"], features: [], labels: [], version: "1", capacity: 1 };
  const full: Offer = { ...plain, isolation: "process-group", ...offer };
  return { requestKey: crypto.randomUUID(), protocol: 1, pool: "default", offer: full, busy: 0, ...over };
}

/** A namespace that takes part for real: its deployments publish to it. */
async function openNamespace(): Promise<{ namespace: string; pool: Stub }> {
  const namespace = newNamespace();
  await namespaceObject(env, namespace).open({ id: namespace });
  return { namespace, pool: poolObject(env, namespace, "default") };
}

/** Parks a poll and comes back when it is parked. */
async function park(pool: Stub, runner: string, body: PollBody): Promise<{ answer: ReturnType<PoolCalls["poll"]> }> {
  const answer = pool.poll({ runner, body });
  await vi.waitFor(async () =>
    expect((await pool.presence()).some((one) => one.runner === runner && one.parked)).toBe(true),
  );
  return { answer };
}

function assignmentOf(ticket: Ticket, requestKey: string): Assignment {
  const limits = { logBytes: 1, runMs: 1, silenceMs: 1, graceMs: 1 };
  const lease = { attempt: 1, epoch: 1, leaseToken: "t", leaseMs: 1, acknowledgeMs: 1, teardown: false, limits };
  const names = {
    namespace: "n",
    deployment: ticket.deployment,
    job: ticket.job,
    run: runIdOf(ticket.job, 1),
    requestKey,
  };
  const hashes = { taskSha256: "0".repeat(64), configurationSha256: null, brokerTime: new Date().toISOString() };
  return { ...names, ...lease, ...hashes, spec: SHELL };
}

/** Rows that a pool has written since it was made: every table is without rowid and index, so rows are changes. */
function rowsWritten(pool: Stub): Promise<number> {
  return runInDurableObject(
    pool,
    (_, state) => state.storage.sql.exec<{ rows: number }>("SELECT total_changes() AS rows").one().rows,
  );
}

async function submit(namespace: string, deployment: string, body: SubmitBody = SHELL): Promise<JobId> {
  const guard = { idempotencyKey: null, bodySha256: "0".repeat(64), ifMatch: null };
  const answer = await deploymentObject(env, namespace, deployment).submit({
    actor: "token:test",
    body,
    guard,
    dryRun: false,
  });
  if (isRefusal(answer)) throw new Error(answer.detail);
  return answer.job.id;
}

const queued = (pool: Stub): Promise<number> => pool.listQueue({ limit: 1 }).then(({ ticketCount }) => ticketCount);
const untilQueued = (pool: Stub, count: number): Promise<void> =>
  vi.waitFor(async () => expect(await queued(pool)).toBe(count), { timeout: 5_000 });

function taken(answer: PollAnswer): Assignment {
  if (answer !== null && ("drain" in answer || "exec" in answer)) throw new Error("an order instead of a job");
  if (answer === null || isRefusal(answer)) throw new Error(`no assignment: ${JSON.stringify(answer)}`);
  return answer;
}

function reasonOf(waiting: Waiting | Refusal | null): string | null {
  return waiting === null || isRefusal(waiting) ? null : waiting.reason;
}

it("holds a poll no longer than it asks for, and answers with nothing", async () => {
  const pool = newPool();
  const from = Date.now();
  expect(await pool.poll({ runner: KING, body: bodyOf({ waitMs: 80 }) })).toBeNull();
  expect(Date.now() - from).toBeGreaterThanOrEqual(75);
  expect(Date.now() - from).toBeLessThan(2_000);
  expect(await pool.presence()).toMatchObject([{ runner: KING, parked: false, drained: false }]);
});

it("lets a second poll with the same key take the place of the first", async () => {
  const pool = newPool();
  const body = bodyOf();
  const first = await park(pool, KING, body);
  const second = pool.poll({ runner: KING, body: { ...body, waitMs: 60 } });
  expect(await first.answer).toBeNull();
  expect((await pool.listQueue({ limit: 1 })).parkedCount).toBe(1);
  expect(await second).toBeNull();
});

it("fills a reserved poll, repeats the answer to the same key, and writes no row for it", async () => {
  const pool = newPool();
  const body = bodyOf();
  expect(await pool.poll({ runner: KING, body: bodyOf({ waitMs: 0 }) })).toBeNull();
  const before = await rowsWritten(pool);
  const { answer } = await park(pool, KING, body);
  const ticket = ticketOf();
  const reservation = await pool.reserve({ ticket });
  expect(reservation).toMatchObject({ runner: KING, requestKey: body.requestKey, offer: { name: "king" } });
  expect(await pool.reserve({ ticket: ticketOf() })).toBeNull();
  const assignment = assignmentOf(ticket, body.requestKey);
  const delivery = { reservation: reservation!.id, runner: KING, assignment };
  expect(await pool.deliver(delivery)).toBe(true);
  expect(await answer).toEqual(assignment);
  expect(await pool.poll({ runner: KING, body })).toEqual(assignment);
  expect(await pool.deliver(delivery)).toBe(true);
  expect(await rowsWritten(pool)).toBe(before);
});

it("frees a reserved poll when it is released", async () => {
  const pool = newPool();
  const { answer } = await park(pool, KING, bodyOf({ waitMs: 300 }));
  for (let round = 0; round < 3; round++) {
    const reservation = await pool.reserve({ ticket: ticketOf() });
    await pool.release({ reservation: reservation!.id });
    await pool.release({ reservation: reservation!.id });
  }
  expect(await answer).toBeNull();
});

it("frees a reserved poll that nobody fills, and answers it if its hold has ended meanwhile", async () => {
  const pool = newPool();
  const { answer } = await park(pool, KING, bodyOf({ waitMs: 300 }));
  const from = Date.now();
  expect(await pool.reserve({ ticket: ticketOf() })).not.toBeNull();
  expect(await answer).toBeNull();
  expect(Date.now() - from).toBeGreaterThanOrEqual(LIMITS.reservationMs - 50);
  expect(Date.now() - from).toBeLessThan(LIMITS.reservationMs + 2_000);
});

it("fills a poll that came again with the same key after its reservation was lost", async () => {
  const pool = newPool();
  const body = bodyOf({ waitMs: 2_000 });
  const { answer } = await park(pool, KING, body);
  const assignment = assignmentOf(ticketOf(), body.requestKey);
  expect(await pool.deliver({ reservation: "lost", runner: QUEEN, assignment })).toBe(false);
  expect(
    await pool.deliver({
      reservation: "lost",
      runner: KING,
      assignment: assignmentOf(ticketOf(), crypto.randomUUID()),
    }),
  ).toBe(false);
  expect(await pool.deliver({ reservation: "lost", runner: KING, assignment })).toBe(true);
  expect(await answer).toEqual(assignment);
});

it("explains a ticket that no runner fits, and takes it out up to its number", async () => {
  const pool = newPool();
  const { answer } = await park(pool, KING, bodyOf({ waitMs: 400 }));
  const ticket = ticketOf({ number: 3, needs: { systems: ["aarch64-linux"] } });
  const waiting = await pool.put({ ticket });
  expect(waiting).toMatchObject({
    reason: "no-runner",
    position: 0,
    nearest: { runner: KING, lacks: ["system aarch64-linux"] },
  });
  expect(await pool.put({ ticket })).toEqual(waiting);
  expect(await pool.explain(ticket.job)).toEqual(waiting);
  expect(await pool.listQueue({ limit: 10 })).toMatchObject({
    ticketCount: 1,
    parkedCount: 1,
    tickets: [{ job: ticket.job, waiting }],
  });
  await pool.put({ ticket: { ...ticket, number: 2, needs: {} } });
  await pool.drop({ deployment: "web", job: ticket.job, number: 2 });
  await pool.drop({ deployment: "another", job: ticket.job, number: 9 });
  expect(await queued(pool)).toBe(1);
  await pool.drop({ deployment: "web", job: ticket.job, number: 3 });
  await pool.drop({ deployment: "web", job: ticket.job, number: 3 });
  expect(await queued(pool)).toBe(0);
  expect(await pool.explain(ticket.job)).toBeNull();
  expect(await answer).toBeNull();
});

it("keeps tickets, runners and drains over an eviction", async () => {
  const pool = newPool();
  await pool.poll({ runner: KING, body: bodyOf({ waitMs: 0 }) });
  const [one, two] = [ticketOf({ avoid: [QUEEN], priority: "high" }), ticketOf({ needs: { features: ["kvm"] } })];
  expect(reasonOf(await pool.put({ ticket: one }))).toBe("runners-busy");
  expect(reasonOf(await pool.put({ ticket: two }))).toBe("no-runner");
  await pool.setDrained({ runner: KING, drained: true });
  const before = await pool.listQueue({ limit: 10 });
  await evictDurableObject(pool);
  expect(await pool.listQueue({ limit: 10 })).toEqual(before);
  expect(reasonOf(await pool.explain(one.job))).toBe("runners-drained");
  await pool.setDrained({ runner: KING, drained: false });
  await evictDurableObject(pool);
  expect(reasonOf(await pool.explain(one.job))).toBe("runners-busy");
  expect(await pool.explain(two.job)).toMatchObject({ reason: "no-runner", nearest: { runner: KING } });
});

it("does not take a runner that left minutes ago for one that is online, however often it is evicted", async () => {
  const pool = newPool();
  await pool.poll({ runner: KING, body: bodyOf({ waitMs: 0 }) });
  const leftAt = Date.now() - 3 * 60_000;
  await runInDurableObject(pool, (_, state) => {
    state.storage.sql.exec("UPDATE runners SET seen_at = ?", leftAt);
  });
  await evictDurableObject(pool);
  expect(reasonOf(await pool.put({ ticket: ticketOf() }))).toBe("no-runner");
});

it("gives a drained runner nothing until it is let back", async () => {
  const { namespace, pool } = await openNamespace();
  await pool.setDrained({ runner: KING, drained: true });
  const { answer } = await park(pool, KING, bodyOf());
  const job = await submit(namespace, "web");
  await untilQueued(pool, 1);
  expect(await pool.explain(job)).toMatchObject({ reason: "runners-drained", nearest: { runner: KING } });
  await pool.setDrained({ runner: KING, drained: false });
  expect(taken(await answer).job).toBe(job);
  await untilQueued(pool, 0);
});

it("ends the polls of a runner that is forgotten", async () => {
  const pool = newPool();
  const { answer } = await park(pool, KING, bodyOf());
  await pool.forget({ runner: KING });
  expect(await answer).toBeNull();
  expect(await pool.presence()).toEqual([]);
  await evictDurableObject(pool);
  expect(await pool.presence()).toEqual([]);
});

it("refuses what goes beyond its limit of tickets, and stores nothing of it", async () => {
  const pool = newPool();
  await pool.listQueue({ limit: 1 });
  await runInDurableObject(pool, (_, state) => {
    state.storage.sql.exec(
      `INSERT INTO tickets (job, deployment, number, priority, needs, queued_at, avoid)
       WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       SELECT 'job-' || i, 'of-' || i, 1, 'normal', '{"systems":["none"]}', i, '[]' FROM n`,
      LIMITS.poolTickets,
    );
  });
  await evictDurableObject(pool);
  const ticket = ticketOf();
  expect(await pool.put({ ticket })).toMatchObject({ refused: "quota-exceeded" });
  expect(await queued(pool)).toBe(LIMITS.poolTickets);
  await pool.drop({ deployment: "of-7", job: "job-7", number: 1 });
  expect(reasonOf(await pool.put({ ticket }))).toBe("no-runner");
}, 30_000);

it("hands a queued job to the next runner that fits, for two rows", async () => {
  const { namespace, pool } = await openNamespace();
  await pool.poll({ runner: KING, body: bodyOf({ waitMs: 0 }) });
  const before = await rowsWritten(pool);
  const job = await submit(namespace, "web");
  await untilQueued(pool, 1);
  const body = bodyOf({ waitMs: 5_000 });
  const assignment = taken(await pool.poll({ runner: KING, body }));
  expect(assignment).toMatchObject({ namespace, deployment: "web", job, requestKey: body.requestKey });
  expect(taken(await pool.poll({ runner: KING, body })).run).toBe(assignment.run);
  await untilQueued(pool, 0);
  await vi.waitFor(async () => expect(await rowsWritten(pool)).toBe(before + 2));
});

it("gives a poll that comes after an eviction the job whose ticket was kept", async () => {
  const { namespace, pool } = await openNamespace();
  const job = await submit(namespace, "web");
  await untilQueued(pool, 1);
  await evictDurableObject(pool);
  expect(taken(await pool.poll({ runner: KING, body: bodyOf({ waitMs: 5_000 }) })).job).toBe(job);
});

it("drops a ticket that its deployment does not know, and takes the next one", async () => {
  const { namespace, pool } = await openNamespace();
  await pool.put({ ticket: ticketOf({ priority: "urgent", queuedAt: 0 }) });
  const job = await submit(namespace, "api");
  await untilQueued(pool, 2);
  expect(taken(await pool.poll({ runner: KING, body: bodyOf({ waitMs: 5_000 }) })).job).toBe(job);
  await untilQueued(pool, 0);
});

it("keeps a ticket whose deployment cannot be reached, and lets the poll take other work", async () => {
  const { namespace, pool } = await openNamespace();
  // A name beyond 1,024 bytes is not handed to the object, so that its constructor throws: a deployment that fails for real.
  const broken = ticketOf({ deployment: "x".repeat(1_100), priority: "urgent" });
  await pool.put({ ticket: broken });
  const { answer } = await park(pool, KING, bodyOf({ waitMs: 8_000 }));
  const job = await submit(namespace, "web");
  expect(taken(await answer).job).toBe(job);
  expect((await pool.listQueue({ limit: 10 })).tickets.map((one) => one.job)).toEqual([broken.job]);
});

it("does not let a job overtake an older one that the same runner could take", async () => {
  const { namespace, pool } = await openNamespace();
  const [first, second] = [await submit(namespace, "one"), await submit(namespace, "two")];
  await untilQueued(pool, 2);
  expect(await pool.explain(second)).toMatchObject({ position: 1 });
  const polls = [await pool.poll({ runner: KING, body: bodyOf() }), await pool.poll({ runner: KING, body: bodyOf() })];
  expect(polls.map((answer) => taken(answer).job)).toEqual([first, second]);
});

it("tells a deployment when the reason of its job changes", async () => {
  const { namespace, pool } = await openNamespace();
  const deployment = deploymentObject(env, namespace, "web");
  const job = await submit(namespace, "web", { ...SHELL, requires: { labels: ["host:king"] } });
  const becomes = (reason: string): Promise<void> =>
    vi.waitFor(async () => expect(await deployment.job(job)).toMatchObject({ job: { waiting: { reason } } }), {
      timeout: 5_000,
    });
  await becomes("no-runner");
  await pool.poll({ runner: KING, body: bodyOf({ busy: 1, waitMs: 0 }, { labels: ["host:king"] }) });
  await becomes("runners-busy");
  await pool.setDrained({ runner: KING, drained: true });
  await becomes("runners-drained");
  await pool.forget({ runner: KING });
  await becomes("no-runner");
});

it("wakes up once to notice that the last runner fell silent, and then sleeps", async () => {
  const { namespace, pool } = await openNamespace();
  await pool.poll({ runner: KING, body: bodyOf({ busy: 1, waitMs: 0 }) });
  const job = await submit(namespace, "web");
  await untilQueued(pool, 1);
  expect(reasonOf(await pool.explain(job))).toBe("runners-busy");
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 2 * LIMITS.pollHoldMs + 1 });
  try {
    expect(await runDurableObjectAlarm(pool)).toBe(true);
    expect(await pool.explain(job)).toMatchObject({ reason: "no-runner", nearest: { runner: KING } });
    expect(await runDurableObjectAlarm(pool)).toBe(false);
  } finally {
    vi.useRealTimers();
  }
});

it("delivers each of 200 jobs exactly once to 50 runners that poll at the same time", async () => {
  const { namespace, pool } = await openNamespace();
  const delivered: JobId[] = [];
  const work = async (index: number): Promise<void> => {
    const runner = `did:key:z6Mk${String(index + 11).repeat(22)}`;
    while (delivered.length < 200) {
      const answer = await pool.poll({ runner, body: bodyOf({ waitMs: 1_000 }, { name: `r${index}` }) });
      if (answer !== null) delivered.push(taken(answer).job);
    }
  };
  const runners = Array.from({ length: 50 }, (_, index) => work(index));
  const jobs = await Promise.all(Array.from({ length: 200 }, (_, index) => submit(namespace, `d${index}`)));
  await Promise.all(runners);
  expect(delivered.toSorted()).toEqual(jobs.toSorted());
  await untilQueued(pool, 0);
}, 60_000);
