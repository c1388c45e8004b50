import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  isRefusal,
  policyDigest,
  verifySummary,
  type Assignment,
  type JobDetail,
  type Output,
  type TrustPolicy,
} from "@plumule/protocol";
import { describe, expect, it, vi } from "vitest";
import { DIRECTORY, namespaceObject } from "../../durable-objects/shared/names.ts";
import { eventsOf, guardOf, newHouse, ok, Runner, submit, type House } from "./deployment-harness.ts";

const TWO_OF_THREE = { quorum: { replicas: 3, agree: 2 } };

const output = (nar: string): Output => ({
  name: "out",
  path: "/nix/store/vvph8axw8hmsl7afqa1fgk0j69wjfx26-web",
  drvPath: "/nix/store/3ixdp6255ll096zizlzdy4nmyxaiaqgs-web.drv",
  narHash: nar.repeat(64),
  narSize: 120,
  references: [],
  signatures: [],
});

/** A namespace with a policy that names three runners of three operators. */
async function house(
  changes: (keys: string[]) => Partial<TrustPolicy> = () => ({}),
): Promise<{ house: House; runners: Runner[]; policy: TrustPolicy }> {
  const made = await newHouse();
  const runners = [await Runner.in(made), await Runner.in(made), await Runner.in(made)];
  const keys = runners.map(({ id }) => id);
  const given: TrustPolicy = {
    version: 2,
    signers: keys.map((key, index) => ({ key, operator: ["north", "south", "east"][index] ?? "" })),
    rules: [],
    ...changes(keys),
  };
  const namespace = namespaceObject(env, made.namespace);
  const policy = ok(await namespace.putTrust({ actor: "token:admin", policy: given, ifMatch: '"v1"' }));
  return { house: made, runners, policy };
}

async function vote(runner: Runner, assignment: Assignment, nar: string): ReturnType<Runner["send"]> {
  return runner.send(assignment, await runner.resultOf(assignment, "succeeded", { outputs: [output(nar)] }));
}

async function detailOf({ deployment }: House, job: string): Promise<JobDetail> {
  return ok(await deployment.job(job));
}

/** The job once the broker has signed about it; what an eviction interrupts is taken up again by the alarm. */
async function signedOf(made: House, job: string): Promise<JobDetail> {
  const look = async (): Promise<JobDetail> => {
    const detail = await detailOf(made, job);
    expect(detail.summary).toBeDefined();
    return detail;
  };
  return vi.waitFor(look, { timeout: 15_000 });
}

describe("a job of several replicas", () => {
  it("comes to three runners that are parked, at once, and to none of them twice", async () => {
    const { house: made, runners } = await house();
    const parked = await Promise.all(runners.map((runner) => runner.park()));
    const again = await runners[0]!.park();
    const { job } = await submit(made, TWO_OF_THREE);
    const assignments = await Promise.all(parked.map(({ answer }) => answer));
    expect(new Set(assignments.map((one) => one?.run)).size).toBe(3);
    expect(assignments.every((one) => one?.job === job.id)).toBe(true);
    await made.deployment.cancelJob({ actor: "token:test", job: job.id, body: { force: true }, guard: guardOf() });
    void again.answer;
  });

  it("says how many different runners it still needs, and waits for them without holding its verdict", async () => {
    const { house: made, runners } = await house();
    const { job } = await submit(made, TWO_OF_THREE);
    await runners[0]!.start();
    expect(await runners[0]!.poll(200)).toBeNull();
    const { job: view } = await detailOf(made, job.id);
    expect(view.state).toBe("running");
    expect(view.waiting?.detail).toMatch(/^Needs 2 more different runners\./);
  });

  it("ends with a matrix and a summary that anybody can verify offline", async () => {
    const { house: made, runners, policy } = await house();
    const { job } = await submit(made, TWO_OF_THREE);
    const [first, second, third] = runners as [Runner, Runner, Runner];
    const one = await first.start();
    const two = await second.start();
    const three = await third.start();
    ok(await vote(first, one, "f"));
    ok(await vote(second, two, "a"));
    expect(ok(await vote(third, three, "a"))).toMatchObject({ accepted: true, state: "succeeded" });
    const { verdict, summary } = await signedOf(made, job.id);
    expect(verdict).toMatchObject({ verdict: "agreed", agreeing: 2, needed: 2, diverging: true });
    expect(verdict?.differing).toMatchObject([
      { name: "out", versions: [{ narHash: "a".repeat(64) }, { narHash: "f".repeat(64) }] },
    ]);
    const types = (await eventsOf(made)).map(({ type }) => type);
    expect(types.filter((type) => type === "job.verdict")).toHaveLength(3);

    const broker = await namespaceObject(env, DIRECTORY).brokerKey({ make: false });
    const lines = ok(await made.deployment.statements(job.id));
    const envelopes = lines.slice(0, -1);
    expect(envelopes).toHaveLength(3);
    expect(lines.at(-1)).toEqual(summary);
    const verified = await verifySummary(summary, { brokers: [broker ?? ""], envelopes, policy });
    expect(verified).toMatchObject({ ok: true, summary: { predicate: { verificationResult: "PASSED" } } });
    expect(verified.summary?.predicate.verifiedLevels).toContain("SLSA_BUILD_REPRODUCED");
    expect(verified.summary?.predicate.policy.digest.sha256).toBe(await policyDigest(policy));
    expect((await verifySummary(summary, { brokers: [first.id], envelopes })).checks).toMatchObject([
      { name: "signature", ok: false },
    ]);
    expect((await verifySummary(summary, { brokers: [broker ?? ""], envelopes: envelopes.slice(1) })).ok).toBe(false);
  });

  it("stays blocked while its votes differ, and can be cancelled then", async () => {
    const { house: made, runners } = await house();
    const { job } = await submit(made, { quorum: { replicas: 2, agree: 2 } });
    for (const [index, nar] of ["a", "b", "c"].entries()) {
      const runner = runners[index]!;
      ok(await vote(runner, await runner.start(), nar));
    }
    // A fourth runner could still break the tie, and none is in the policy: the job is over when nobody has come in time.
    await made.deployment.cancelJob({ actor: "token:test", job: job.id, body: {}, guard: guardOf() });
    const { job: view, verdict } = await detailOf(made, job.id);
    expect(view.state).toBe("cancelled");
    expect(verdict?.verdict).toBe("diverged");
  });

  it("loses nothing when its object is evicted between any two steps", async () => {
    const { house: made, runners } = await house();
    const evict = async (): Promise<void> => {
      await evictDurableObject(made.deployment);
      // An object has to be awake to be evicted.
      await made.pool.presence();
      await evictDurableObject(made.pool);
    };
    const { job } = await submit(made, TWO_OF_THREE);
    await evict();
    const assignments: Assignment[] = [];
    for (const runner of runners) {
      assignments.push((await runner.poll(20_000))!);
      await evict();
      ok(await runner.beat(assignments.at(-1)!));
      await evict();
    }
    const [one, two, three] = assignments as [Assignment, Assignment, Assignment];
    ok(await vote(runners[0]!, one, "a"));
    await evict();
    expect(ok(await vote(runners[1]!, two, "a"))).toMatchObject({ state: "running" });
    await evict();
    const beat = ok(await runners[2]!.beat(three, { waitMs: 0 }));
    expect(beat.command).toMatchObject({ kind: "cancel" });
    await evict();
    expect(ok(await runners[2]!.finish(three, "cancelled"))).toMatchObject({ accepted: true, state: "succeeded" });
    await evict();
    const { job: view, verdict } = await signedOf(made, job.id);
    expect(view.state).toBe("succeeded");
    expect(verdict).toMatchObject({ verdict: "agreed", agreeing: 2 });
  }, 60_000);

  it("is judged by the policy as it stands when the vote comes", async () => {
    const { house: made, runners } = await house();
    const { job } = await submit(made, { quorum: { replicas: 2, agree: 2 } });
    const assignments = [await runners[0]!.start(), await runners[1]!.start()];
    ok(await vote(runners[0]!, assignments[0]!, "a"));
    const namespace = namespaceObject(env, made.namespace);
    const trust = ok(await namespace.getTrust());
    const signers = trust.signers.map((signer) =>
      signer.key === runners[0]!.id ? { ...signer, revokedAt: new Date().toISOString() } : signer,
    );
    ok(await namespace.putTrust({ actor: "token:admin", policy: { ...trust, version: 3, signers }, ifMatch: '"v2"' }));
    ok(await vote(runners[1]!, assignments[1]!, "a"));
    const { verdict } = await detailOf(made, job.id);
    expect(verdict?.votes.find(({ signer }) => signer === runners[0]!.id)?.standing).toBe("revoked");
    expect(verdict?.verdict).toBe("revoked");
  });

  it("is refused when the policy can never be met", async () => {
    const { house: made } = await house(() => ({ rules: [{ ref: "*", require: { k: 3 }, onDivergence: "block" }] }));
    const body = { task: { kind: "shell" as const, script: "true" }, quorum: { replicas: 2, agree: 1 } };
    const answer = await made.deployment.submit({ actor: "token:test", body, guard: guardOf(), dryRun: false });
    expect(isRefusal(answer) && answer.errors).toMatchObject([{ pointer: "/quorum/replicas" }]);
  });
});

describe("a job without a quorum", () => {
  it("is judged by the rule of a policy for its ref after it has ended, and without such a rule it is not", async () => {
    const source = {
      repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5",
      commit: "9af2c1d0e4b58a7763f0c9d2e1b4a5968778695a",
      ref: "refs/heads/main",
    };
    const { house: made, runners } = await house(() => ({
      rules: [{ ref: "refs/heads/*", require: { k: 1, compare: "result" }, onDivergence: "warn" }],
    }));
    const { job } = await submit(made, { source });
    await runners[0]!.finish(await runners[0]!.start());
    const { verdict, summary } = await signedOf(made, job.id);
    expect(verdict).toMatchObject({ verdict: "agreed", agreeing: 1 });
    const broker = await namespaceObject(env, DIRECTORY).brokerKey({ make: false });
    const envelopes = ok(await made.deployment.statements(job.id));
    expect((await verifySummary(summary, { brokers: [broker ?? ""], envelopes })).ok).toBe(true);

    const { job: other } = await submit(made, {});
    await runners[0]!.finish(await runners[0]!.start());
    await vi.waitFor(async () =>
      expect(
        await namespaceObject(env, made.namespace).listJobs({
          state: "succeeded",
          deployment: "web",
          commit: null,
          cursor: null,
          limit: 10,
        }),
      ).toMatchObject({ items: [{ id: other.id }, {}] }),
    );
    expect((await detailOf(made, other.id)).summary).toBeUndefined();
  });
});

describe("a key that contradicts itself", () => {
  it("is caught across jobs of a deployment, with a proof that needs nobody", async () => {
    const { house: made, runners } = await house();
    const runner = runners[0]!;
    const build = async (nar: string): Promise<string> => {
      const { job } = await submit(made, { quorum: { replicas: 1, agree: 1 } });
      ok(await vote(runner, await runner.start(), nar));
      return job.id;
    };
    expect((await signedOf(made, await build("a"))).equivocations).toEqual([]);
    const { equivocations } = await signedOf(made, await build("b"));
    expect(equivocations).toMatchObject([{ signer: runner.id, about: output("a").path }]);
    expect((await eventsOf(made)).map(({ type }) => type)).toContain("trust.equivocation");
  });
});
