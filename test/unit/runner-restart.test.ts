import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Assignment, didKeyOf, type ResultBody } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runnerConfigSchema, runnerFolders } from "../../runner/src/config.ts";
import { abandonRun, type RunDeps } from "../../runner/src/execute.ts";
import { createKey } from "../../runner/src/key.ts";
import { isSpentKey, type SpoolRecord } from "../../runner/src/records.ts";
import { openSpool, type Spool } from "../../runner/src/spool.ts";

const assignment = {
  namespace: "garden",
  deployment: "site",
  job: "0199c0de-7a11-7000-9b1f-3b0f6a2d9e10",
  run: "0199c0de-7a11-7001-9b1f-3b0f6a2d9e10",
  epoch: 1,
  spec: { task: { kind: "shell", script: "true" } },
  taskSha256: "0".repeat(64),
  configurationSha256: null,
  limits: { logBytes: 1024 * 1024 },
} as Assignment;

let state: string;
let spool: Spool<SpoolRecord>;
let deps: RunDeps;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "plumule-restart-"));
  const key = await createKey(join(state, "key.pem"));
  if (!key.ok) throw new Error(key.detail);
  spool = await openSpool<SpoolRecord>(join(state, "spool"), (value) => value as SpoolRecord, 10_000_000);
  const machine = { signer: key.signer, runner: didKeyOf(key.signer.publicKey), version: "1", nix: null };
  const offer = { systems: ["x86_64-linux"] };
  const config = runnerConfigSchema.parse({ url: "http://127.0.0.1:8787", namespace: "garden", state });
  deps = { folders: runnerFolders(config), machine: { ...machine, offer }, spool } as unknown as RunDeps;
});
afterEach(() => rm(state, { recursive: true, force: true }));

describe("a run that was at work when its runner was killed", () => {
  it("is given back, with a signed result that says so", async () => {
    await abandonRun(deps, { assignment, startedAt: null });
    const [spooled] = spool.pending();
    expect(spooled?.record.result).toMatchObject({ outcome: "refused", reason: { code: "runner-stopped" } });
    expect(spooled?.record.result.statements).toHaveLength(1);
  });

  it("keeps the result that it had reached", async () => {
    const result = { outcome: "succeeded" } as ResultBody;
    await spool.put(assignment.run, { assignment, result, logPath: join(state, "run.log") });
    await abandonRun(deps, { assignment, startedAt: null });
    expect(spool.pending().map(({ record }) => record.result)).toEqual([result]);
  });
});

describe("the key under which a runner asks for work", () => {
  it("is spent when a run came under it, and the runner was killed before it could forget it", () => {
    const run = { assignment: { ...assignment, requestKey: "a" }, state: "assigned" as const, startedAt: null };
    expect(isSpentKey({ requestKey: "a" }, [run])).toBe(true);
    expect(isSpentKey({ requestKey: "b" }, [run])).toBe(false);
    expect(isSpentKey({ requestKey: "a" }, [])).toBe(false);
    expect(isSpentKey(undefined, [run])).toBe(false);
  });
});
