import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { zstdCompressSync } from "node:zlib";
import {
  isRefusal,
  LIMITS,
  parseUtf8,
  sha256Hex,
  utf8,
  type Assignment,
  type ResultBody,
  type RunnerEvent,
  type RunView,
} from "@plumule/protocol";
import { expect, it, vi } from "vitest";
import { codeOf, eventsOf, guardOf, newHouse, ok, Runner, submit, type House } from "./deployment-harness.ts";

type Started = { house: House; runner: Runner; assignment: Assignment };

async function started(): Promise<Started> {
  const house = await newHouse();
  const runner = await Runner.in(house);
  await submit(house);
  return { house, runner, assignment: await runner.start() };
}

const append = (
  { house, assignment: { run, leaseToken, epoch } }: Started,
  offset: number,
  text: string | Uint8Array,
): ReturnType<House["deployment"]["appendLog"]> =>
  house.deployment.appendLog({ run, leaseToken, epoch, offset, bytes: typeof text === "string" ? utf8(text) : text });
const appendPacked = (
  { house, assignment: { run, leaseToken, epoch } }: Started,
  offset: number,
  bytes: Uint8Array,
): ReturnType<House["deployment"]["appendLog"]> =>
  house.deployment.appendLog({ run, leaseToken, epoch, offset, packed: zstdCompressSync(bytes) });
const logOf = async ({ house, assignment }: Started): Promise<RunView["log"]> =>
  ok(await house.deployment.run(assignment.run)).log;
const report = (
  { house, assignment: { run, leaseToken, epoch } }: Started,
  number: number,
  events: RunnerEvent[],
): ReturnType<House["deployment"]["report"]> =>
  house.deployment.report({ run, leaseToken, body: { epoch, number, events } });

it("appends a log by offset: the same bytes again are fine, other bytes and holes are not", async () => {
  const one = await started();
  expect(ok(await append(one, 0, "first\n"))).toEqual({ bytes: 6 });
  expect(ok(await append(one, 6, "second\n"))).toEqual({ bytes: 13 });
  await evictDurableObject(one.house.deployment);
  expect(ok(await append(one, 0, "first\n"))).toEqual({ bytes: 13 });
  expect(ok(await append(one, 4, "t\nsecond\nthird\n"))).toEqual({ bytes: 19 });
  expect(codeOf(await append(one, 0, "FIRST\n"))).toBe("log-conflict");
  const gap = await append(one, 20, "late\n");
  expect(gap).toMatchObject({ refused: "log-gap", headers: { "Plumule-Log-Size": "19" } });
  expect(codeOf(await append(one, 19, new Uint8Array(LIMITS.logUnpackedBytes + 1)))).toBe("payload-too-large");
  const { run } = one.assignment;
  const slice = ok(await one.house.deployment.readLog({ run, offset: 2, limit: 8 }));
  expect(parseUtf8(slice.bytes)).toBe("rst\nseco");
  expect(slice).toMatchObject({ offset: 2, size: 19, complete: false });
  expect(codeOf(await one.house.deployment.readLog({ run, offset: 20, limit: 1 }))).toBe("log-gap");
});

it("reads a log of many chunks from any offset", async () => {
  const one = await started();
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  for (let offset = 0; offset < bytes.length; offset += 7_000)
    ok(await append(one, offset, bytes.subarray(offset, offset + 7_000)));
  for (const [offset, limit] of [
    [0, 60_000],
    [6_999, 2],
    [7_000, 7_000],
    [59_999, 10],
    [60_000, 10],
    [13_001, 20_000],
  ] as const) {
    const slice = ok(await one.house.deployment.readLog({ run: one.assignment.run, offset, limit }));
    expect(slice.bytes).toEqual(bytes.slice(offset, offset + limit));
  }
});

it("compares the log with what the runner signed", async () => {
  const cases: [string, (one: Started, body: ResultBody) => Promise<ResultBody>, string][] = [
    ["complete", async (one, body) => (ok(await append(one, 0, "all of it")), body), "complete"],
    ["nothing arrived", async (_, body) => body, "truncated"],
    ["some arrived", async (one, body) => (ok(await append(one, 0, "all")), body), "truncated"],
    ["other bytes arrived", async (one, body) => (ok(await append(one, 0, "ALL of it")), body), "mismatch"],
    ["more arrived", async (one, body) => (ok(await append(one, 0, "all of it!")), body), "mismatch"],
    [
      "the rest rides on the result",
      async (one, body) => (
        ok(await append(one, 0, "all")),
        { ...body, logTail: { offset: 2, base64: btoa("l of it") } }
      ),
      "complete",
    ],
    [
      "a tail that leaves a hole",
      async (one, body) => (
        ok(await append(one, 0, "al")),
        { ...body, logTail: { offset: 3, base64: btoa(" of it") } }
      ),
      "truncated",
    ],
    [
      "a tail that differs from what is stored",
      async (one, body) => (
        ok(await append(one, 0, "all")),
        { ...body, logTail: { offset: 2, base64: btoa("L of it") } }
      ),
      "mismatch",
    ],
  ];
  for (const [name, prepare, state] of cases) {
    const one = await started();
    const body = await one.runner.resultOf(one.assignment, "succeeded", { log: "all of it", inline: false });
    expect(ok(await one.runner.send(one.assignment, await prepare(one, body))), name).toMatchObject({ accepted: true });
    expect(await logOf(one), name).toMatchObject({ state });
  }
});

it("keeps what came packed as it came, and serves and compares it as what it is", async () => {
  const one = await started();
  const { run } = one.assignment;
  const text = Array.from({ length: 40_000 }, (_, line) => `line ${line} of many\n`).join("");
  const [bytes, odd] = [utf8(text), "odd bytes"];
  const [half, most] = [400_000, 600_000];
  expect(ok(await appendPacked(one, 0, bytes.subarray(0, half)))).toEqual({ bytes: half });
  expect(ok(await appendPacked(one, 0, bytes.subarray(0, half)))).toEqual({ bytes: half });
  expect(ok(await appendPacked(one, half - 9, bytes.subarray(half - 9, most)))).toEqual({ bytes: most });
  expect(codeOf(await appendPacked(one, half, bytes.subarray(0, 9)))).toBe("log-conflict");
  expect(codeOf(await appendPacked(one, most + 1, bytes.subarray(most + 1)))).toBe("log-gap");
  // Packed it would be more.
  expect(ok(await appendPacked(one, most, utf8(odd)))).toEqual({ bytes: most + 9 });
  ok(await appendPacked(one, most + 9, bytes.subarray(most)));
  const log = text.slice(0, most) + odd + text.slice(most);
  const whole = utf8(log);
  for (const [offset, limit] of [
    [0, LIMITS.logReadBytes],
    [half - 5, 10],
    [most - 5, 20],
    [whole.length - 3, 9],
  ] as const) {
    const slice = ok(await one.house.deployment.readLog({ run, offset, limit }));
    expect(slice.bytes).toEqual(whole.slice(offset, offset + limit));
  }
  const stored = await runInDurableObject(one.house.deployment, (_, { storage }) =>
    storage.sql.exec<{ size: number }>("SELECT length(bytes) AS size FROM log_chunks ORDER BY position").toArray(),
  );
  expect(stored.map(({ size }) => size)).toEqual([expect.any(Number), most - half, 9, expect.any(Number)]);
  expect(stored[0]?.size).toBeLessThan(half / 5);
  const body = await one.runner.resultOf(one.assignment, "succeeded", { log, inline: false });
  ok(await one.runner.send(one.assignment, body));
  expect(await logOf(one)).toEqual({ state: "complete", bytes: whole.length, sha256: await sha256Hex(whole) });
});

it("keeps of one append what a row holds, and leaves the rest for the next", async () => {
  const one = await started();
  const bytes = new Uint8Array(LIMITS.logUnpackedBytes).fill(46);
  ok(await append(one, 0, "."));
  expect(ok(await appendPacked(one, 0, bytes))).toEqual({ bytes: 1 + LIMITS.logAppendBytes });
  expect(ok(await appendPacked(one, 1 + LIMITS.logAppendBytes, bytes))).toEqual({
    bytes: 1 + LIMITS.logAppendBytes + LIMITS.logUnpackedBytes,
  });
});

it.each([
  ["that it saw grow", false],
  ["whose beginning it saw before a restart", true],
])("tells the digest of a log of many chunks %s", async (_, restarts) => {
  const one = await started();
  const chunk = new Uint8Array(LIMITS.logChunkBytes).fill(46);
  for (let index = 0; index < 10; index += 1) {
    ok(await append(one, index * chunk.length, chunk));
    if (restarts && index === 4) await evictDurableObject(one.house.deployment);
  }
  const body = await one.runner.resultOf(one.assignment, "succeeded", {
    log: ".".repeat(10 * chunk.length),
    inline: false,
  });
  ok(await one.runner.send(one.assignment, body));
  expect(await logOf(one)).toEqual({
    state: "complete",
    bytes: 10 * chunk.length,
    sha256: await sha256Hex(utf8(".".repeat(10 * chunk.length))),
  });
});

it("accepts a result once, answers it again the same, and refuses another one", async () => {
  const { assignment, house, runner } = await started();
  const body = await runner.resultOf(assignment, "succeeded", { log: "hello\n" });
  const first = await runner.send(assignment, body);
  await evictDurableObject(house.deployment);
  expect(await runner.send(assignment, body)).toEqual(first);
  expect(codeOf(await runner.finish(assignment, "failed"))).toBe("conflict");
  const { job, runs } = ok(await house.deployment.job(assignment.job));
  expect(job.state).toBe("succeeded");
  expect(runs).toMatchObject([
    { state: "succeeded", exitCode: 0, statementCount: 1, log: { state: "complete", bytes: 6 } },
  ]);
  expect(ok(await house.deployment.statements(assignment.job))).toEqual(body.statements);
});

it("takes one of two equal results that come at once", async () => {
  const { assignment, house, runner } = await started();
  const body = await runner.resultOf(assignment, "succeeded", { log: "hello\n" });
  const answers = await Promise.all([runner.send(assignment, body), runner.send(assignment, body)]);
  expect(answers[0]).toEqual(answers[1]);
  expect((await eventsOf(house)).filter(({ type }) => type === "job.succeeded")).toHaveLength(1);
});

it("refuses a result that is not what its statement says, with the check that failed, and changes nothing", async () => {
  const { assignment, house, runner } = await started();
  const body = await runner.resultOf(assignment, "succeeded", { log: "hello\n" });
  const other = await runner.resultOf({ ...assignment, epoch: assignment.epoch + 1 }, "succeeded", { log: "hello\n" });
  const stranger = await (await Runner.in(house)).resultOf(assignment, "succeeded", { log: "hello\n" });
  const output = {
    name: "out",
    path: "/nix/store/x",
    drvPath: "/nix/store/x.drv",
    narHash: "a".repeat(64),
    narSize: 1,
    references: [],
    signatures: [],
  };
  const wrong: [Partial<ResultBody>, string, string][] = [
    [{ outcome: "failed" }, "invalid-statement", "result"],
    [{ exitCode: 3 }, "invalid-statement", "exitCode"],
    [{ log: { ...body.log, sha256: "0".repeat(64) } }, "invalid-statement", "log"],
    [{ outputs: [output] }, "invalid-statement", "outputs"],
    [{ statements: other.statements }, "invalid-statement", "epoch"],
    [{ statements: stranger.statements }, "bad-signature", "signature"],
  ];
  for (const [over, code, check] of wrong) {
    const answer = await runner.send(assignment, { ...body, ...over });
    expect(isRefusal(answer) && [answer.refused, answer.errors?.[0]?.pointer]).toEqual([code, "/statements/0"]);
    expect(isRefusal(answer) && answer.detail).toContain(check);
  }
  expect(codeOf(await house.deployment.result({ run: assignment.run, leaseToken: "other", body }))).toBe("stale-lease");
  expect(codeOf(await runner.send(assignment, { ...body, epoch: body.epoch + 1 }))).toBe("stale-lease");
  expect(ok(await house.deployment.job(assignment.job)).job.state).toBe("running");
  expect(ok(await runner.send(assignment, body))).toMatchObject({ accepted: true });
});

it("keeps a result that comes after the lease has gone as late, and leaves the job alone", async () => {
  const house = await newHouse();
  const runner = await Runner.in(house);
  const { job } = await submit(house);
  const assignment = (await runner.poll())!;
  ok(await house.deployment.cancelJob({ actor: "token:test", job: job.id, body: {}, guard: guardOf() }));
  const body = await runner.resultOf(assignment, "succeeded");
  expect(ok(await runner.send(assignment, body))).toEqual({ accepted: false, late: true, state: "cancelled" });
  expect(ok(await runner.send(assignment, body))).toMatchObject({ late: true });
  expect(ok(await house.deployment.job(job.id)).job.state).toBe("cancelled");
  expect(ok(await house.deployment.statements(job.id))).toEqual([]);
});

it("refuses every write with another token or an older epoch, and changes nothing", async () => {
  const one = await started();
  const { run, leaseToken, epoch } = one.assignment;
  const before = JSON.stringify([ok(await one.house.deployment.read()), await logOf(one)]);
  for (const lease of [
    { leaseToken: "other", epoch },
    { leaseToken, epoch: epoch - 1 },
    { leaseToken, epoch: epoch + 1 },
  ]) {
    const call = { run, leaseToken: lease.leaseToken };
    const answers = [
      await one.house.deployment.heartbeat({ ...call, body: { epoch: lease.epoch } }),
      await one.house.deployment.report({
        ...call,
        body: {
          epoch: lease.epoch,
          number: 1,
          events: [{ type: "phase", phase: "building", at: new Date().toISOString() }],
        },
      }),
      await one.house.deployment.appendLog({ ...call, epoch: lease.epoch, offset: 0, bytes: utf8("x") }),
    ];
    expect(answers.map(codeOf)).toEqual(["stale-lease", "stale-lease", "stale-lease"]);
  }
  expect(JSON.stringify([ok(await one.house.deployment.read()), await logOf(one)])).toBe(before);
});

it("applies each batch of events once, and folds the derivations", async () => {
  const one = await started();
  const drv = (name: string): string => `/nix/store/${name}.drv`;
  const plan: RunnerEvent = {
    type: "plan",
    derivations: [
      { drv: drv("a"), name: "a", state: "planned" },
      { drv: drv("b"), name: "b", state: "planned" },
    ],
    edges: [[drv("a"), drv("b")]],
  };
  expect(ok(await report(one, 1, [{ type: "phase", phase: "building", at: new Date().toISOString() }, plan]))).toEqual({
    number: 1,
  });
  expect(ok(await report(one, 1, [{ type: "phase", phase: "signing", at: new Date().toISOString() }]))).toEqual({
    number: 1,
  });
  ok(await report(one, 2, [{ type: "derivations", derivations: [{ drv: drv("b"), name: "b", state: "built" }] }]));
  expect(ok(await one.house.deployment.job(one.assignment.job)).job.phase).toBe("building");
  const { nodes, edges } = ok(await one.house.deployment.derivations(one.assignment.job));
  expect(nodes.map(({ name, state }) => [name, state])).toEqual([
    ["a", "planned"],
    ["b", "built"],
  ]);
  expect(edges).toEqual([[drv("a"), drv("b")]]);
  const types = (await eventsOf(one.house)).map(({ type }) => type);
  expect(types.filter((type) => type === "job.phase")).toHaveLength(1);
  expect(types.filter((type) => type === "derivation.changed")).toHaveLength(2);
  expect(codeOf(await report(one, 3, [{ type: "phase", phase: "queued", at: new Date().toISOString() }]))).toBe(
    "invalid-body",
  );
});

it("tells progress a few times a second at most, and the newest always", async () => {
  const one = await started();
  for (let done = 1; done <= 40; done += 1)
    ok(
      await report(one, done, [
        { type: "progress", progress: { total: 40, done, running: 0, failed: 0, cached: 0, queued: 0 } },
      ]),
    );
  const told = async (): Promise<number[]> =>
    (await eventsOf(one.house)).flatMap(({ type, data }) => (type === "job.progress" ? [data.progress!.done] : []));
  await vi.waitFor(async () => expect((await told()).at(-1)).toBe(40), 3_000);
  expect((await told()).length).toBeLessThan(10);
});

it("sends a job that was refused elsewhere, and fails it when its attempts are used up", async () => {
  const house = await newHouse();
  const [king, queen] = [await Runner.in(house), await Runner.in(house)];
  const { job } = await submit(house, { retry: { attempts: 2 } });
  const first = await king.start();
  expect(ok(await king.finish(first, "refused"))).toMatchObject({ accepted: true, state: "queued" });
  expect(ok(await house.deployment.job(job.id)).job.waiting).toMatchObject({ reason: "backoff" });
  const parked = king.poll(4_000);
  const second = (await queen.poll(4_000))!;
  expect(second).toMatchObject({ job: job.id, attempt: 2 });
  expect(second.epoch).toBeGreaterThan(first.epoch);
  expect(await parked).toBeNull();
  expect(codeOf(await king.beat(first))).toBe("stale-lease");
  expect(ok(await queen.finish(second, "refused"))).toMatchObject({ state: "failed" });
});
