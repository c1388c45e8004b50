import { evictDurableObject } from "cloudflare:test";
import {
  type Envelope,
  LIMITS,
  type Signer,
  signApproval,
  type SubmitAnswer,
  verifyApproval,
  type Stranger,
} from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { codeOf, guardOf, type House, newHouse, ok, Runner, submit } from "./deployment-harness.ts";
import { newSigner } from "./namespace-fixtures.ts";

const [ONE, TWO] = ["a".repeat(40), "b".repeat(40)];
const delegate = await newSigner();
const STRANGER: Stranger = { author: "did:key:stranger", why: "a stranger", approvers: [delegate.did] };

type Changes = { commit?: string; stranger?: Stranger; mode?: "replace" | "queue" };

async function push(
  house: House,
  { commit = ONE, stranger = STRANGER, mode = "queue" }: Changes = {},
): Promise<SubmitAnswer> {
  const source = { repository: "https://example.org/garden.git", commit };
  const body = { task: { kind: "shell" as const, script: "true" }, source, mode };
  return ok(await house.deployment.submit({ actor: "hook:seed", body, guard: guardOf(), dryRun: false, stranger }));
}

async function approvalOf(house: House, { job }: SubmitAnswer, signer: Signer = delegate): Promise<Envelope> {
  const audience = audienceOf(house);
  const { namespace, deployment, id, source } = job;
  const taskSha256 = await taskOf(house, id);
  return signApproval({ audience, namespace, deployment, job: id, commit: source?.commit ?? "", taskSha256 }, signer);
}

function audienceOf({ namespace }: House): string {
  return `https://broker.test/v1/${namespace}`;
}

/** The digest that the broker computes of the task `true`. */
async function taskOf(house: House, id: string): Promise<string> {
  const { spec } = ok(await house.deployment.job(id));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(spec.task)));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function approve(
  house: House,
  { job }: SubmitAnswer,
  envelope: Envelope | null,
): ReturnType<House["deployment"]["approve"]> {
  const approval = envelope === null ? {} : { approval: { envelope, audience: audienceOf(house) } };
  return house.deployment.approve({ actor: "token:operator", job: job.id, commit: null, ...approval });
}

describe("the job of a stranger", () => {
  it("waits for the signature of a delegate, which nobody's token replaces", async () => {
    const house = await newHouse();
    const held = await push(house);
    expect(held.job).toMatchObject({
      state: "held",
      waiting: { reason: "approval", detail: expect.stringContaining("a stranger") as string },
      stranger: { author: "did:key:stranger", approvers: [delegate.did], approvedBy: null, approvedAt: null },
    });
    expect(await approve(house, held, null)).toMatchObject({ refused: "forbidden" });
    expect(await approve(house, held, await approvalOf(house, held, await newSigner()))).toMatchObject({
      refused: "forbidden",
      errors: [{ pointer: "/approval" }],
    });
    const forged = await approvalOf(house, held, { ...delegate, sign: (await newSigner()).sign });
    expect(await approve(house, held, forged)).toMatchObject({ refused: "bad-signature" });
    expect(ok(await house.deployment.job(held.job.id)).job.state).toBe("held");
  });

  it("brings no secrets, whatever asked for it", async () => {
    const { deployment } = await newHouse();
    const body = { task: { kind: "shell" as const, script: "true" }, secrets: [{ name: "key", box: "AAAA" }] };
    const call = { actor: "hook:seed", body, guard: guardOf(), dryRun: false };
    expect(await deployment.submit({ ...call, stranger: STRANGER })).toMatchObject({
      refused: "invalid-body",
      errors: [{ pointer: "/secrets" }],
    });
    expect(codeOf(await deployment.submit(call))).toBe("answered");
  });

  it("starts with it, and says who approved, with the proof", async () => {
    const house = await newHouse();
    const held = await push(house);
    const envelope = await approvalOf(house, held);
    expect(ok(await approve(house, held, envelope))).toMatchObject({
      state: "queued",
      stranger: { approvedBy: delegate.did, approvedAt: expect.any(String) as string },
    });
    await evictDurableObject(house.deployment);
    const { approval } = ok(await house.deployment.job(held.job.id));
    const { namespace, deployment, id: job } = held.job;
    const taskSha256 = await taskOf(house, job);
    const about = { audience: audienceOf(house), namespace, deployment, job, commit: ONE, taskSha256 };
    expect(await verifyApproval(approval, about, [delegate.did])).toMatchObject({ ok: true });
    expect(codeOf(await approve(house, held, envelope))).toBe("wrong-state");
  });

  it("is not started by the approval of another job, commit or broker", async () => {
    const house = await newHouse();
    const [first, second] = [await push(house), await push(house, { commit: TWO })];
    expect(await approve(house, second, await approvalOf(house, first))).toMatchObject({
      refused: "invalid-statement",
    });
    const elsewhere = { ...house, namespace: "other" };
    expect(await approve(house, first, await approvalOf(elsewhere, first))).toMatchObject({
      refused: "invalid-statement",
    });
    const again = await push(house);
    expect(again.job.id).not.toBe(first.job.id);
    expect(await approve(house, again, await approvalOf(house, first))).toMatchObject({ refused: "invalid-statement" });
  });

  it("is told to its runner, and a result that hides it is refused", async () => {
    const house = await newHouse();
    const held = await push(house);
    ok(await approve(house, held, await approvalOf(house, held)));
    const runner = await Runner.in(house);
    const assignment = await runner.start();
    expect(assignment).toMatchObject({ job: held.job.id, untrusted: true });
    const hiding = await runner.resultOf(assignment, "succeeded", { untrusted: false });
    expect(await runner.send(assignment, hiding)).toMatchObject({ refused: "invalid-statement" });
    expect(ok(await runner.finish(assignment))).toMatchObject({ accepted: true, state: "succeeded" });
    const plain = await submit(house);
    const own = await runner.start();
    expect([own.job, own.untrusted]).toEqual([plain.job.id, undefined]);
    const boasting = await runner.resultOf(own, "succeeded", { untrusted: true });
    expect(await runner.send(own, boasting)).toMatchObject({ refused: "invalid-statement" });
  });

  it("is given to no runner that would not read whose it is", async () => {
    const house = await newHouse();
    const held = await push(house);
    ok(await approve(house, held, await approvalOf(house, held)));
    const runner = await Runner.in(house);
    expect(await runner.poll(0, crypto.randomUUID(), 1)).toBeNull();
    expect((await runner.start()).job).toBe(held.job.id);
  });

  it("that is run again, and the teardown of what it made, wait for another approval", async () => {
    const house = await newHouse();
    const held = await push(house);
    ok(await approve(house, held, await approvalOf(house, held)));
    const runner = await Runner.in(house);
    ok(await runner.finish(await runner.start()));
    const again = ok(await house.deployment.rerun({ actor: "token:a", job: held.job.id, guard: guardOf() }));
    expect(again.job).toMatchObject({ state: "held", stranger: { approvedBy: null } });
    expect(await approve(house, again, await approvalOf(house, held))).toMatchObject({ refused: "invalid-statement" });
    const body = { task: { kind: "shell" as const, script: "make destroy" } };
    const teardown = ok(await house.deployment.remove({ actor: "token:a", body, guard: guardOf() }));
    expect(teardown).toMatchObject({ job: { state: "held", stranger: { author: "did:key:stranger" } } });
  });

  it("stops and replaces nothing but that stranger's own", async () => {
    const house = await newHouse();
    const runner = await Runner.in(house);
    const running = await submit(house);
    await runner.start();
    const waiting = await submit(house);
    const [first, other] = [
      await push(house),
      await push(house, { stranger: { ...STRANGER, author: "did:key:other" } }),
    ];
    const revision = await push(house, { commit: TWO, mode: "replace" });
    expect(revision).toMatchObject({ superseded: [first.job.id], job: { state: "held" } });
    const states = ok(await house.deployment.read()).jobs.map(({ id, state }) => [id, state]);
    expect(Object.fromEntries(states)).toMatchObject({
      [running.job.id]: "running",
      [waiting.job.id]: "queued",
      [other.job.id]: "held",
      [first.job.id]: "superseded",
    });
  });

  it("finds an end of the room for strangers, while others are let in", async () => {
    const house = await newHouse();
    for (let count = 0; count < LIMITS.strangersJobs; count += 1) await push(house);
    await expect(push(house)).rejects.toThrow("quota-exceeded");
    expect((await submit(house)).job.state).toBe("queued");
  });
});
