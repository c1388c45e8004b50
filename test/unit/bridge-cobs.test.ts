import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { type Believed, openJobCobs, record, wordFor } from "@plumule/bridge";
import type { Claims, JobDetail } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { job, run, RUNNER_ID } from "./cli-fixtures.ts";

const id = "z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const oid = "a".repeat(40);
const node = "z6MkvXqBsnj3nFG3Gzihxosmauw1cqBrVduEzed6yQhodNbd";
const log = "https://broker.example/j/1";

describe("what a node says of a job", () => {
  const believed = new Set([RUNNER_ID]);
  const signed = (result: Claims["result"], signer: string = RUNNER_ID): Believed => ({
    signer,
    claims: { result } as Claims,
  });
  const detail = (state: JobDetail["job"]["state"], agree?: number): Parameters<typeof wordFor>[0] => ({
    job: job({ state }),
    spec: {
      task: { kind: "shell", script: "true" },
      ...(agree === undefined ? {} : { quorum: { replicas: 3, agree } }),
    },
    runs: [run({ runner: RUNNER_ID, state: state === "running" ? "running" : "succeeded" })],
  });

  it("is that it succeeded only when a runner whom it believes has signed so", () => {
    expect(wordFor(detail("succeeded"), [signed("succeeded")], believed)).toBe("succeeded");
    expect(wordFor(detail("skipped"), [signed("skipped")], believed)).toBe("succeeded");
    expect(wordFor(detail("succeeded"), [], believed)).toBe("failed");
    expect(wordFor(detail("succeeded"), [signed("failed")], believed)).toBe("failed");
  });

  it("asks for as many runners as the job does, each counted once", () => {
    const twice = [signed("succeeded"), signed("succeeded")];
    expect(wordFor(detail("succeeded", 2), twice, believed)).toBe("failed");
    expect(wordFor(detail("succeeded", 2), [...twice, signed("succeeded", "did:key:other")], believed)).toBe(
      "succeeded",
    );
  });

  it("is that it failed for every other end, nothing of runners that it does not know, and nothing before one is at work", () => {
    for (const state of ["failed", "cancelled", "superseded", "unknown"] as const)
      expect(wordFor(detail(state), [signed("succeeded")], believed)).toBe("failed");
    expect(wordFor(detail("running"), [], believed)).toBe("started");
    expect(wordFor(detail("running"), [], new Set())).toBe("nothing");
    expect(wordFor(detail("succeeded"), [signed("succeeded")], new Set())).toBe("nothing");
    expect(wordFor({ ...detail("queued"), runs: [] }, [], believed)).toBe("nothing");
  });
});

describe("writing a job COB with rad-job", () => {
  let home: string;
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), "plumule-cobs-"));
    writeFileSync(join(home, "node-id"), node);
    const standIn = join(import.meta.dirname, "../fixtures/rad-job");
    vi.stubEnv("PATH", `${standIn}${delimiter}${process.env["PATH"]}`);
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(home, { recursive: true, force: true });
  });
  const commands = (): string[] =>
    readFileSync(join(home, "commands"), "utf8")
      .split("\n")
      .filter((line) => line !== "" && line !== "list");

  it("requests, starts and finishes once, from wherever an earlier attempt has left it", async () => {
    const cobs = openJobCobs(id, home);
    await record(cobs, oid, { node, log, word: "started" });
    await record(cobs, oid, { node, log, word: "started" });
    await record(cobs, oid, { node, log, word: "succeeded" });
    await record(cobs, oid, { node, log, word: "succeeded" });
    expect(commands()).toEqual([`new ${oid}`, `run ${oid} ${log}`, `succeeded ${oid}`]);
    expect(await cobs.runsOf(oid)).toMatchObject([{ node, status: "succeeded", log }]);
    expect(await cobs.runsOf("b".repeat(40))).toBe(null);
  });

  it("has its own run beside those of other jobs and nodes", async () => {
    const cobs = openJobCobs(id, home);
    writeFileSync(join(home, "node-id"), "z6MkOther");
    await record(cobs, oid, { node: "z6MkOther", log, word: "failed" });
    writeFileSync(join(home, "node-id"), node);
    await record(cobs, oid, { node, log: `${log}2`, word: "succeeded" });
    await record(cobs, oid, { node, log, word: "succeeded" });
    expect((await cobs.runsOf(oid))?.map(({ status }) => status)).toEqual(["failed", "succeeded", "succeeded"]);
  });

  it("ends well although another job COB of the commit has come in before the one in which it has started", async () => {
    const cobs = openJobCobs(id, home);
    await record(cobs, oid, { node, log, word: "started" });
    const path = join(home, "job-cobs.json");
    const earlier = { job_id: "0".repeat(40), oid, runs: [] };
    writeFileSync(path, JSON.stringify([earlier, ...(JSON.parse(readFileSync(path, "utf8")) as object[])]));
    await record(cobs, oid, { node, log, word: "succeeded" });
    expect((await cobs.runsOf(oid))?.map(({ status }) => status)).toEqual(["succeeded", "started"]);
  });

  it("rejects announcing that nobody took, and says what is missing", async () => {
    await expect(openJobCobs(id, home).announce()).rejects.toThrow("all seeds timed out");
    vi.stubEnv("PATH", "/nonexistent");
    await expect(openJobCobs(id, home).runsOf(oid)).rejects.toThrow("there is no such command on PATH");
  });
});
