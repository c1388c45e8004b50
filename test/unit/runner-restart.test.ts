import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Assignment, didKeyOf, type ResultBody, verifyStatement } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { concludeRun, type ConcludeDeps, readExit } from "../../runner/src/conclude.ts";
import { type RunnerFolders, runnerConfigSchema, runnerFolders } from "../../runner/src/config.ts";
import type { End } from "../../runner/src/core/model.ts";
import { createKey } from "../../runner/src/key.ts";
import { journalRecordSchema, recordReader } from "../../runner/src/records.ts";
import { type RunFiles, runFiles } from "../../runner/src/supervisor/files.ts";

const assignment = {
  namespace: "garden",
  deployment: "site",
  job: "0199c0de-7a11-7000-9b1f-3b0f6a2d9e10",
  run: "0199c0de-7a11-7001-9b1f-3b0f6a2d9e10",
  attempt: 1,
  epoch: 1,
  leaseToken: "token",
  leaseMs: 45_000,
  acknowledgeMs: 30_000,
  requestKey: "0199c0de-7a11-7002-9b1f-3b0f6a2d9e10",
  spec: { task: { kind: "shell", script: "true" } },
  teardown: false,
  taskSha256: "0".repeat(64),
  configurationSha256: null,
  limits: { logBytes: 1024 * 1024, runMs: 1, silenceMs: 1, graceMs: 1 },
  brokerTime: "2026-11-21T00:00:00.000Z",
} as Assignment;
const EXIT = {
  version: 1,
  outcome: "succeeded",
  exitCode: 0,
  reason: null,
  targets: [],
  log: { bytes: 6, sha256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", omittedBytes: 0 },
  finishedAt: "2026-11-21T00:00:01.000Z",
  survivors: { killedCount: 2, leftoverCount: 0 },
};

let state: string;
let folders: RunnerFolders;
let files: RunFiles;
let deps: ConcludeDeps;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "plumule-restart-"));
  const key = await createKey(join(state, "key.pem"));
  if (!key.ok) throw new Error(key.detail);
  const machine = {
    signer: key.signer,
    runner: didKeyOf(key.signer.publicKey),
    version: "1",
    isolation: "bwrap",
    nix: null,
  };
  const offer = { systems: ["x86_64-linux"] };
  const config = runnerConfigSchema.parse({ url: "http://127.0.0.1:8787", namespace: "garden", state });
  folders = runnerFolders(config);
  deps = { config, folders, machine: { ...machine, offer } } as unknown as ConcludeDeps;
  files = runFiles(folders.runs, assignment.run);
  mkdirSync(files.folder, { recursive: true });
});
afterEach(() => rm(state, { recursive: true, force: true }));

const conclude = async (end: End, reportedNumber = 0): ReturnType<typeof concludeRun> =>
  concludeRun(deps, { assignment, startedAt: "2026-11-21T00:00:00.000Z", end, reportedNumber });
const writeEvents = (...numbers: number[]): void => {
  const event = { type: "phase", phase: "building", at: "2026-11-21T00:00:00.000Z" };
  appendFileSync(files.events, numbers.map((number) => `${JSON.stringify({ number, events: [event] })}\n`).join(""));
};

describe("the result of a run", () => {
  it("says what its supervisor wrote", async () => {
    writeFileSync(files.exit, JSON.stringify(EXIT));
    const { result } = await conclude("seen");
    expect(result).toMatchObject({
      outcome: "succeeded",
      survivorsKilled: 2,
      log: { bytes: 6, sha256: EXIT.log.sha256, truncated: false },
    } satisfies Partial<ResultBody>);
    expect(result.statements).toHaveLength(1);
  });

  it("can be accepted when the clock of its machine was set back by a day meanwhile", async () => {
    writeFileSync(files.exit, JSON.stringify({ ...EXIT, finishedAt: "2026-11-20T00:00:01.000Z" }));
    const { result } = await conclude("seen");
    const verification = await verifyStatement(result.statements[0], { signers: [deps.machine.runner], expected: {} });
    expect(verification).toMatchObject({ ok: true });
  });

  it("gives the run back when its supervisor was killed, with the log as it is", async () => {
    writeFileSync(files.log, "hello\n");
    const { result } = await conclude("lost");
    expect(result).toMatchObject({ outcome: "refused", reason: { code: "runner-lost" } });
    expect(result.log.bytes).toBeGreaterThan(6);
    expect(result.statements).toHaveLength(1);
  });

  it("finds the log that a runner without supervisors left", async () => {
    const older = join(folders.logs, `${assignment.run}.log`);
    mkdirSync(dirname(older), { recursive: true });
    writeFileSync(older, "hello\n");
    expect((await conclude("lost")).result.log.bytes).toBeGreaterThan(6);
  });

  it("is given back when it cannot be stated, instead of being tried for ever", async () => {
    const output = {
      name: "out",
      path: "/nix/store/x",
      drvPath: "/nix/store/x.drv",
      narHash: "0".repeat(64),
      narSize: -1,
    };
    const targets = [
      { attribute: "x", drv: "/nix/store/x.drv", outputs: [{ ...output, references: [], signatures: [] }] },
    ];
    writeFileSync(files.exit, JSON.stringify({ ...EXIT, targets }));
    expect((await conclude("seen")).result).toMatchObject({
      outcome: "refused",
      reason: { code: "setup-failed", detail: expect.stringContaining("could not be signed") },
    });
  });

  it("carries the last events, and has the others sent before it", async () => {
    writeFileSync(files.exit, JSON.stringify(EXIT));
    writeEvents(1, 2, 3);
    expect(await conclude("seen", 0)).toMatchObject({ eventsPath: files.events, result: { events: { number: 3 } } });
    const upToDate = await conclude("seen", 2);
    expect(upToDate.result.events?.number).toBe(3);
    expect(upToDate.eventsPath).toBeUndefined();
    expect((await conclude("seen", 3)).result.events).toBeUndefined();
  });

  it("is not made from an end of a version that it does not know", async () => {
    writeFileSync(files.exit, JSON.stringify({ ...EXIT, version: 99 }));
    expect(await readExit(files.exit)).toBeNull();
    expect((await conclude("seen")).result).toMatchObject({ outcome: "refused", reason: { code: "runner-lost" } });
  });
});

describe("a record of the journal", () => {
  const read = recordReader(journalRecordSchema);
  const supervisor = { version: 1, pid: 7, startedAt: "1", boot: "b" };

  it("is read as an older runner wrote it, without a supervisor", () => {
    expect(read({ assignment, state: "running", startedAt: null })).toMatchObject({ supervisor: null });
  });

  it("is set aside when its supervisor has a version that this runner does not know", () => {
    const record = { assignment, state: "running", startedAt: null };
    expect(read({ ...record, supervisor })).toMatchObject({ supervisor });
    expect(read({ ...record, supervisor: { ...supervisor, version: 99 } })).toBeNull();
  });
});
