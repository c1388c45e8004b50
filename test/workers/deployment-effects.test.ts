import { sha256Hex, utf8 } from "@plumule/protocol";
import { expect, it } from "vitest";
import { codeOf, type House, newHouse, ok, Runner, submit } from "./deployment-harness.ts";

const TEXT = "would set 3 records\n";
const SHA256 = await sha256Hex(utf8(TEXT));
const task = { kind: "effect" as const, installable: ".#deploy", plan: "terraform plan" };

/** A job whose run has made its plan. */
async function planned(): Promise<{ house: House; king: Runner; job: string }> {
  const house = await newHouse();
  const king = await Runner.in(house);
  const { job } = await submit(house, { task });
  const assignment = await king.start();
  expect(assignment.plan).toBeUndefined();
  const made = await king.resultOf(assignment, "skipped", { plan: { sha256: SHA256, text: TEXT } });
  expect(ok(await king.send(assignment, made)).state).toBe("held");
  return { house, king, job: job.id };
}

it("shows the plan that was signed, and gives its digest to the run that applies it", async () => {
  const { house, king, job } = await planned();
  const detail = ok(await house.deployment.job(job));
  expect(detail).toMatchObject({ planText: TEXT, job: { state: "held", plan: { sha256: SHA256, approvedBy: null } } });
  const approve = { actor: "token:anna", job, commit: null };
  expect(codeOf(await house.deployment.approve(approve))).toBe("conflict");
  expect(codeOf(await house.deployment.approve({ ...approve, plan: "0".repeat(64) }))).toBe("conflict");
  expect(ok(await house.deployment.approve({ ...approve, plan: SHA256 })).plan?.approvedBy).toBe("token:anna");
  const applying = await king.start();
  expect(applying.plan).toEqual({ sha256: SHA256 });
  const done = await king.resultOf(applying, "succeeded", { plan: { sha256: SHA256 } });
  expect(ok(await king.send(applying, done)).state).toBe("succeeded");
});

it("takes no success of a run that had no approved plan, or that applied another one", async () => {
  const house = await newHouse();
  const king = await Runner.in(house);
  await submit(house, { task });
  const first = await king.start();
  const bold = await king.resultOf(first, "succeeded", { plan: { sha256: SHA256 } });
  expect(codeOf(await king.send(first, bold))).toBe("invalid-statement");

  const made = await planned();
  ok(await made.house.deployment.approve({ actor: "token:anna", job: made.job, commit: null, plan: SHA256 }));
  const applying = await made.king.start();
  for (const plan of [undefined, { sha256: "0".repeat(64) }]) {
    const other = await made.king.resultOf(applying, "succeeded", plan === undefined ? {} : { plan });
    expect(codeOf(await made.king.send(applying, other))).toBe("invalid-statement");
  }
});

it("takes no plan whose text is another than its digest says", async () => {
  const house = await newHouse();
  const king = await Runner.in(house);
  await submit(house, { task });
  const assignment = await king.start();
  const wrong = await king.resultOf(assignment, "skipped", { plan: { sha256: SHA256, text: "nothing to do" } });
  expect(codeOf(await king.send(assignment, wrong))).toBe("invalid-statement");
});
