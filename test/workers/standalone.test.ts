import {
  digestsOf,
  draftJobResult,
  jobIdentity,
  type JobDetail,
  makeJobId,
  type Outcome,
  type ResultBody,
  runIdOf,
  sha256Hex,
  signEnvelope,
  STATEMENT_PAYLOAD_TYPE,
  type StandaloneAnswer,
  type StandaloneBody,
  type SubmitAnswer,
  type SubmitBody,
  toBase64,
  utf8,
} from "@plumule/protocol";
import { beforeEach, describe, expect, it, vi } from "vitest";
import {
  ask,
  newRunner,
  newTenant,
  problemIn,
  type Runner,
  runPath,
  settled,
  storedBy,
  takeJob,
  type Tenant,
  told,
} from "./edge-harness.ts";

const SOURCE = { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit: "a".repeat(40), ref: "refs/heads/main" };
const SPEC: SubmitBody = { task: { kind: "shell", script: "true" }, source: SOURCE };

let tenant: Tenant;
let runner: Runner;
beforeEach(async () => {
  tenant = await newTenant();
  runner = await newRunner(tenant);
});

type How = {
  spec?: SubmitBody;
  outcome?: Outcome;
  log?: string;
  by?: Runner;
  ns?: string;
  deployment?: string;
  epoch?: number;
  identity?: string;
  age?: number;
};

/** What a runner sends of a run that it gave itself. */
async function ran({
  spec = SPEC,
  outcome = "succeeded",
  log = "hello\n",
  by = runner,
  ns = tenant.ns,
  deployment = "web",
  epoch = 0,
  identity,
  age = 60_000,
}: How = {}): Promise<StandaloneBody> {
  const job = makeJobId(Date.now() - age, crypto.getRandomValues(new Uint8Array(8)));
  const run = runIdOf(job, 2);
  const digests = await digestsOf(spec);
  const source = spec.source ?? SOURCE;
  const bytes = utf8(log);
  const signedLog = { bytes: bytes.length, sha256: await sha256Hex(bytes), truncated: false };
  const at = new Date(Date.now() - age).toISOString();
  const exitCode = outcome === "succeeded" ? 0 : 1;
  const drafted = draftJobResult({
    source,
    namespace: ns,
    deployment,
    job,
    run,
    epoch,
    identity: identity ?? (epoch === 0 ? await jobIdentity({ ...source, ...digests }) : undefined),
    kind: spec.task.kind,
    result: outcome,
    exitCode,
    reason: null,
    ...digests,
    startedAt: at,
    finishedAt: at,
    runner: { did: by.id, version: "1", isolation: "bwrap", system: "x86_64-linux" },
    log: signedLog,
    outputs: [],
  });
  if (!drafted.ok) throw new Error(drafted.detail);
  const result: ResultBody = {
    epoch: 0,
    outcome,
    exitCode,
    reason: null,
    finishedAt: at,
    isolation: "bwrap",
    survivorsKilled: 0,
    log: signedLog,
    logTail: { offset: 0, base64: toBase64(bytes) },
    outputs: [],
    statements: [await signEnvelope(STATEMENT_PAYLOAD_TYPE, drafted.value.bytes, by.signer)],
  };
  return { job, run, spec, result };
}

const record = (body: unknown, token = runner.session, at = tenant.at, deployment = "web"): Promise<Response> =>
  ask("POST", `${at}/deployments/${deployment}/standalone-runs`, { token, body });
const recorded = (body: unknown): Promise<StandaloneAnswer> => told(record(body), 200);
const submit = (body: SubmitBody = SPEC): Promise<SubmitAnswer> =>
  ask("POST", `${tenant.at}/deployments/web/jobs`, { token: tenant.tokens.submit, body }).then((response) =>
    response.json(),
  );
const detail = (job: string): Promise<JobDetail> =>
  told(ask("GET", `${tenant.at}/jobs/${job}`, { token: tenant.tokens.read }), 200);
const lane = (): Promise<{
  deployment: { currentJob: string | null; lastResult: unknown; activeJob: string | null; revision: number };
}> => told(ask("GET", `${tenant.at}/deployments/web`, { token: tenant.tokens.read }), 200);
const stands = async (): Promise<unknown> => {
  const query = new URLSearchParams({
    repository: SOURCE.repository,
    commit: SOURCE.commit,
    taskSha256: (await digestsOf(SPEC)).taskSha256,
  });
  return told(ask("GET", `${tenant.at}/deployments/web/work?${query.toString()}`, { token: runner.session }), 200);
};

describe("a run that its runner did without the broker", () => {
  it("becomes a job that has ended, with event, log and statement, under no lease, and is taken once", async () => {
    const body = await ran();
    expect(await stands()).toEqual({ job: null });
    expect(await recorded(body)).toEqual({ recorded: true, job: body.job, state: "succeeded", logBytes: 6 });
    const { job, runs } = await detail(body.job);
    expect(job).toMatchObject({ state: "succeeded", standalone: true, actor: runner.id, runner: runner.id });
    expect(runs).toMatchObject([
      { id: body.run, epoch: 0, attempt: 2, state: "succeeded", log: { state: "complete", bytes: 6 } },
    ]);
    const log = await ask("GET", `${tenant.at}/runs/${body.run}/log`, { token: tenant.tokens.read });
    expect(await log.text()).toBe("hello\n");
    const statements = await ask("GET", `${tenant.at}/jobs/${body.job}/statements`, { token: tenant.tokens.read });
    expect(JSON.parse(new TextDecoder().decode(await statements.arrayBuffer()))).toEqual(body.result.statements[0]);
    expect((await lane()).deployment).toMatchObject({ currentJob: null, lastResult: null });
    await settled(tenant);
    const before = await storedBy(tenant);
    expect(await recorded(body)).toMatchObject({ recorded: true, job: body.job });
    expect(await storedBy(tenant)).toEqual(before);
    expect(await stands()).toEqual({ job: { id: body.job, state: "succeeded" } });
  });

  it("is the answer to a later submit of the same work, but not of other work, nor of a rerun", async () => {
    const body = await ran({ outcome: "failed" });
    await recorded(body);
    expect(await submit()).toMatchObject({ joined: true, job: { id: body.job, state: "failed" } });
    expect(await submit({ ...SPEC, configuration: { name: "x" } })).toMatchObject({ joined: false });
    expect(await submit({ ...SPEC, env: { A: "1" } })).toMatchObject({ joined: false });
    const rerun = ask("POST", `${tenant.at}/jobs/${body.job}/rerun`, { token: tenant.tokens.submit });
    expect(await told(rerun, 202)).toMatchObject({ joined: false });
  });

  it("does not count when the broker's own run of the work has ended first", async () => {
    const { job } = await submit();
    const assignment = await takeJob(tenant, runner);
    const { result } = await ran();
    const digests = { taskSha256: assignment.taskSha256, configurationSha256: null };
    const drafted = draftJobResult({
      ...assignment,
      source: SOURCE,
      kind: "shell",
      result: "succeeded",
      exitCode: 0,
      reason: null,
      ...digests,
      startedAt: result.finishedAt,
      finishedAt: result.finishedAt,
      runner: { did: runner.id, version: "1", isolation: "bwrap", system: "x86_64-linux" },
      log: result.log,
      outputs: [],
    });
    if (!drafted.ok) throw new Error(drafted.detail);
    const statements = [await signEnvelope(STATEMENT_PAYLOAD_TYPE, drafted.value.bytes, runner.signer)];
    const leased = { ...result, epoch: assignment.epoch, statements };
    await told(
      ask("POST", `${runPath(tenant.at, assignment)}/result`, { token: assignment.leaseToken, body: leased }),
      200,
    );
    const late = await ran();
    expect(await recorded(late)).toMatchObject({ recorded: false, job: job.id, state: "succeeded" });
    await vi.waitFor(async () => {
      const audit = await told<{ items: unknown[] }>(
        ask("GET", `${tenant.at}/audit`, { token: tenant.tokens.admin }),
        200,
      );
      expect(JSON.stringify(audit.items)).toContain(`runs/${late.run}`);
    });
    expect(await submit()).toMatchObject({ joined: false });
  });

  it("takes the work from jobs that were still to do it, and leaves the lease of other work alone", async () => {
    const other = await submit({ task: { kind: "shell", script: "sleep 9" } });
    const assignment = await takeJob(tenant, runner);
    const waiting = await submit();
    const body = await ran();
    expect(await recorded(body)).toMatchObject({ recorded: true });
    expect((await detail(waiting.job.id)).job).toMatchObject({ state: "superseded", supersededBy: body.job });
    expect((await lane()).deployment.activeJob).toBe(other.job.id);
    const beat = { token: assignment.leaseToken, body: { epoch: assignment.epoch } };
    await told(ask("POST", `${runPath(tenant.at, assignment)}/heartbeat`, beat), 200);
  });

  it("stops a run of the same work whose result comes second, so that the work has one result", async () => {
    const { job } = await submit();
    const assignment = await takeJob(tenant, runner);
    const body = await ran();
    expect(await recorded(body)).toMatchObject({ recorded: true, job: body.job });
    expect((await detail(job.id)).job).toMatchObject({ state: "cancelling", supersededBy: body.job });
    const beat = { token: assignment.leaseToken, body: { epoch: assignment.epoch, seenCommand: 0 } };
    expect(await told(ask("POST", `${runPath(tenant.at, assignment)}/heartbeat`, beat), 200)).toMatchObject({
      command: { kind: "cancel" },
    });
  });

  it("may have a log of any length, which is compared with what was signed when all of it is there", async () => {
    const log = "0123456789".repeat(20_000);
    const signed = await ran({ log });
    const { logTail: _, ...unsent } = signed.result;
    expect(await recorded({ ...signed, result: unsent })).toMatchObject({ recorded: true, logBytes: 0 });
    const bytes = utf8(log);
    const append = (offset: number, part: Uint8Array, token = runner.session): Promise<Response> =>
      ask("PUT", `${tenant.at}/deployments/web/standalone-runs/${signed.run}/log?offset=${offset}`, {
        token,
        body: part,
      });
    const stranger = await newRunner(tenant);
    expect((await append(0, bytes.subarray(0, 9), stranger.session)).status).toBe(403);
    expect((await append(5, bytes.subarray(5, 9))).status).toBe(416);
    expect(await told(append(0, bytes.subarray(0, 150_000)), 200)).toEqual({ bytes: 150_000 });
    expect((await append(0, utf8("other"))).status).toBe(409);
    expect((await append(150_000, new Uint8Array(60_000))).status).toBe(409);
    expect(await told(append(140_000, bytes.subarray(140_000)), 200)).toEqual({ bytes: 200_000 });
    expect(await told(append(140_000, bytes.subarray(140_000)), 200)).toEqual({ bytes: 200_000 });
    expect((await detail(signed.job)).runs[0]?.log).toMatchObject({
      state: "complete",
      bytes: 200_000,
      sha256: signed.result.log.sha256,
    });
  });
});

it("refuses what is not such a run, and stores nothing of it", async () => {
  await submit({ task: { kind: "shell", script: "true" } });
  const foreign = await newTenant();
  const [stranger, other] = [await newRunner(foreign), await newRunner(tenant)];
  const good = await ran();
  await settled(tenant);
  const before = await storedBy(tenant);
  const refused = async (name: string, response: Promise<Response>, status: number, code: string): Promise<void> => {
    const answer = await response;
    expect(answer.status, `${name}: ${await answer.clone().text()}`).toBe(status);
    expect((await problemIn(answer)).code, name).toBe(code);
    expect(await storedBy(tenant), name).toEqual(before);
  };
  await refused("nobody", record(good, ""), 401, "unauthenticated");
  await refused("a person", record(good, tenant.tokens.admin), 403, "forbidden");
  await refused("a runner of another namespace", record(good, stranger.session), 401, "unauthenticated");
  await refused("another runner's run", record(good, other.session), 401, "bad-signature");
  await refused("for another namespace", record(await ran({ ns: foreign.ns })), 422, "invalid-statement");
  await refused("for another deployment", record(await ran({ deployment: "shop" })), 422, "invalid-statement");
  await refused(
    "in a new deployment, with a wrong signature",
    record(good, other.session, tenant.at, "made-up"),
    401,
    "bad-signature",
  );
  const leased = await ran({ epoch: 7 });
  await refused("a result under a lease", record(leased), 422, "invalid-statement");
  await refused("of other work", record(await ran({ identity: "f".repeat(64) })), 422, "invalid-statement");
  const swapped = { ...SPEC, task: { kind: "shell", script: "false" } };
  await refused("with another task than was signed", record({ ...good, spec: swapped }), 422, "invalid-statement");
  await refused(
    "an effect",
    record({ ...good, spec: { ...SPEC, task: { kind: "effect", installable: ".#x" } } }),
    400,
    "invalid-body",
  );
  await refused("without a source", record({ ...good, spec: { task: SPEC.task } }), 400, "invalid-body");
  await refused(
    "a run of another job",
    record({ ...good, run: runIdOf(makeJobId(1, new Uint8Array(8)), 1) }),
    400,
    "invalid-body",
  );
  await refused("of tomorrow", record(await ran({ age: -86_400_000 })), 409, "conflict");
  const empty = ask("GET", `${tenant.at}/deployments/web/work?commit=x`, { token: runner.session });
  await refused("a question about nothing", empty, 400, "invalid-parameter");
});

it("does not count where the trust policy does not name its runner", async () => {
  const other = await newRunner(tenant);
  const policy = {
    version: 2,
    expires: null,
    signers: [{ key: other.id, operator: "me" }],
    rules: [{ ref: "*", require: { k: 1, compare: "result" }, onDivergence: "warn" }],
  };
  await told(
    ask("PUT", `${tenant.at}/trust`, { token: tenant.tokens.admin, headers: { "if-match": '"v1"' }, body: policy }),
    200,
  );
  const refusal = await record(await ran());
  expect(refusal.status).toBe(403);
  expect((await problemIn(refusal)).detail).toContain("trust policy");
});
