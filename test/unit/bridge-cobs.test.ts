import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { narrowPolicy, openJobCobs, record, type Trust, wordFor } from "@plumule/bridge";
import { defaultPolicy, type JobDetail, type SignedClaims, type TrustPolicy } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { job, run } from "./cli-fixtures.ts";
import { dids, policy, said } from "./trust-fixtures.ts";

const id = "z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const oid = "a".repeat(40);
const node = "z6MkvXqBsnj3nFG3Gzihxosmauw1cqBrVduEzed6yQhodNbd";
const log = "https://broker.example/j/1";

describe("what a node says of a job", () => {
  const trust: Trust = { keys: new Set(dids), policy: null };
  const detail = (state: JobDetail["job"]["state"], agree?: number): Parameters<typeof wordFor>[0] => ({
    job: job({ state, source: { repository: `rad:${id}`, commit: oid, ref: "refs/heads/main" } }),
    spec: {
      task: { kind: "shell", script: "true" },
      ...(agree === undefined ? {} : { quorum: { replicas: 3, agree } }),
    },
    runs: [run({ runner: dids[0]!, state: state === "running" ? "running" : "succeeded" })],
  });
  const wordOf = (about: Parameters<typeof wordFor>[0], signed: readonly SignedClaims[], by: Trust = trust): string =>
    wordFor(about, signed, by, Date.parse("2026-11-21T00:00:00Z")).word;
  const underPolicy = (put: TrustPolicy, keys: ReadonlySet<string> = trust.keys): Trust => ({
    keys,
    policy: narrowPolicy({ ...put, version: 2 }, keys),
  });

  it("is that it succeeded only when a runner whom it believes has signed so", () => {
    expect(wordOf(detail("succeeded"), [said({ key: 0 })])).toBe("succeeded");
    expect(wordOf(detail("skipped"), [said({ key: 0, changes: { result: "skipped" } })])).toBe("succeeded");
    expect(wordOf(detail("succeeded"), [])).toBe("failed");
    expect(wordOf(detail("succeeded"), [said({ key: 0, changes: { result: "failed" } })])).toBe("failed");
  });

  it("asks for as many runners as the job does, each counted once", () => {
    const twice = [said({ key: 0 }), said({ key: 0 })];
    expect(wordOf(detail("succeeded", 2), twice)).toBe("failed");
    expect(wordOf(detail("succeeded", 2), [...twice, said({ key: 1 })])).toBe("succeeded");
    expect(wordOf(detail("skipped", 2), [said({ key: 0, changes: { result: "skipped" } }), said({ key: 1 })])).toBe(
      "succeeded",
    );
  });

  it("is by the policy of the namespace, which can ask for more than its keys do, and count less", () => {
    const [one, two] = [said({ key: 0 }), said({ key: 1 })];
    expect(wordOf(detail("succeeded"), [one], underPolicy(policy({ k: 2 })))).toBe("failed");
    expect(wordOf(detail("succeeded"), [one, two], underPolicy(policy({ k: 2 })))).toBe("succeeded");
    const revoked = policy({ k: 1 }, { signers: { 0: { revokedAt: "2026-11-20T00:00:00Z" } } });
    expect(wordFor(detail("succeeded"), [one], underPolicy(revoked), Date.parse("2026-11-21T00:00:00Z"))).toEqual({
      word: "failed",
      why: expect.stringContaining("a key was revoked"),
    });
  });

  it("is not by keys that only the policy of the namespace names, and by the default policy is what its keys say", () => {
    const own = new Set([dids[0]!]);
    const two = [said({ key: 0 }), said({ key: 1 })];
    expect(wordOf(detail("succeeded"), two, underPolicy(policy({ k: 2 }), own))).toBe("failed");
    expect(wordOf(detail("succeeded"), two, underPolicy(policy({ k: 1 }), own))).toBe("succeeded");
    expect(narrowPolicy(defaultPolicy([dids[1]!]), own)).toBe(null);
  });

  it("is that it failed for every other end, nothing of runners that it does not know, and nothing before one is at work", () => {
    const nobody = { keys: new Set<string>(), policy: null };
    for (const state of ["failed", "cancelled", "superseded", "unknown"] as const)
      expect(wordOf(detail(state), [said({ key: 0 })])).toBe("failed");
    expect(wordOf(detail("running"), [])).toBe("started");
    expect(wordOf(detail("running"), [], nobody)).toBe("nothing");
    expect(wordOf(detail("succeeded"), [said({ key: 0 })], nobody)).toBe("nothing");
    expect(wordOf({ ...detail("queued"), runs: [] }, [])).toBe("nothing");
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
