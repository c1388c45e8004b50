import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runIdOf, type SubmitBody, utf8, workSha256 } from "@plumule/protocol";
import { sealSecret } from "@plumule/protocol/seal";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { memoryFolder } from "../../runner/src/secrets/files.ts";
import { openIdentity } from "../../runner/src/secrets/identity.ts";
import { createRunSecrets, type RunSecrets } from "../../runner/src/secrets/run-secrets.ts";

const run = runIdOf("0199c0de-7a11-7000-9b1f-0123456789ab", 1);
let folder: string;
let root: string;
let log = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-run-secrets-"));
  root = memoryFolder(folder) ?? "";
  log = "";
});
afterEach(() => {
  vi.useRealTimers();
  for (const path of [folder, root]) rmSync(path, { recursive: true, force: true });
});

/** The secrets of a run whose job brings these values; `null` as folder is a machine without memory. */
async function secretsOf(values: Record<string, string>, memory: string | null = root): Promise<RunSecrets> {
  const identity = join(folder, "age.key");
  const key = await openIdentity(identity);
  if ("refused" in key) throw new Error(key.refused);
  const spec: SubmitBody = { task: { kind: "shell", script: "deploy" } };
  const work = { namespace: "acme", deployment: "blog", teardown: false, spec };
  const binding = { version: 1 as const, namespace: "acme", workSha256: await workSha256(work), expiresAt: null };
  const sealed = Object.entries(values).map(async ([name, value]) => {
    const box = await sealSecret(utf8(value), { ...binding, name, condition: { and: [] } }, [key.recipient]);
    return { name, box: box.ok ? box.value : "" };
  });
  const assignment = { ...work, run, spec: { ...spec, secrets: await Promise.all(sealed) } };
  return createRunSecrets({
    assignment: assignment as unknown as Parameters<typeof createRunSecrets>[0]["assignment"],
    places: { identity, folder: memory },
    fetch: { mirrors: folder, policy: { allowLocal: false }, timeoutMs: 1_000 },
    append: (bytes) => {
      log += Buffer.from(bytes).toString();
    },
  });
}

it("are files while they are open, open again for the next script, and are masked from then until the end", async () => {
  const secrets = await secretsOf({ token: "hunter2-hunter2" });
  secrets.log(utf8("before\n"));
  for (let script = 0; script < 2; script += 1) {
    const opened = await secrets.open();
    const path = opened.ok ? join(opened.env["PLUMULE_SECRETS"] ?? "", "token") : "";
    expect(readFileSync(path, "utf8")).toBe("hunter2-hunter2");
    secrets.log(utf8("a hunter2-hunter2\n"));
    await secrets.close();
    expect(existsSync(path)).toBe(false);
  }
  secrets.log(utf8("again hunter2-"));
  secrets.log(utf8("hunter2, and hunter2-"));
  secrets.endLog();
  expect(log).toBe("before\na [redacted]\na [redacted]\nagain [redacted], and hunter2-");
  expect(secrets.mask({ detail: "it was hunter2-hunter2" })).toEqual({ detail: "it was [redacted]" });
  expect(secrets.counts()).toEqual({ token: 4 });
});

it("hold a log back for a second at most, unless it is more than half of a secret", async () => {
  const secrets = await secretsOf({ token: "hunter2-hunter2" });
  await secrets.open();
  vi.useFakeTimers();
  secrets.log(utf8("prompt: hunt"));
  expect(log).toBe("prompt: ");
  vi.advanceTimersByTime(1_000);
  expect(log).toBe("prompt: hunt");
  secrets.log(utf8("er2-hunt"));
  vi.advanceTimersByTime(60_000);
  expect(log).toBe("prompt: hunt");
  secrets.log(utf8("er2!"));
  expect(log).toBe("prompt: hunt[redacted]!");
  secrets.endLog();
});

it("say which of them are too short to be masked", async () => {
  const secrets = await secretsOf({ pin: "1234" });
  await secrets.open();
  secrets.log(utf8("1234\n"));
  secrets.endLog();
  expect(log).toBe("[plumule] the secret pin is too short to be masked in this log\n1234\n");
});

it("stay closed on a machine without memory, which tells its owner why and the job nothing", async () => {
  const secrets = await secretsOf({ token: "hunter2-hunter2" }, null);
  expect(await secrets.open()).toEqual({
    ok: false,
    elsewhere: true,
    detail: "A secret of this job is missing, or is not for this job.",
  });
  expect(secrets.note()).toBe(
    "its secrets stay closed: this machine has no file system in memory, and secrets may not go to its disk",
  );
  expect(secrets.counts()).toBeUndefined();
});

it("cost a job without secrets nothing: no key is read, and nothing is masked", async () => {
  const bare = createRunSecrets({
    assignment: { run, spec: { task: { kind: "shell", script: "" } } } as Parameters<
      typeof createRunSecrets
    >[0]["assignment"],
    places: { identity: "/nowhere/age.key", folder: root },
    fetch: { mirrors: folder, policy: { allowLocal: false }, timeoutMs: 1_000 },
    append: (bytes) => {
      log += Buffer.from(bytes).toString();
    },
  });
  expect(await bare.open()).toEqual({ ok: true, env: {} });
  bare.log(utf8("hunter2-"));
  await bare.close();
  bare.endLog();
  expect([log, existsSync(root), bare.counts()]).toEqual(["hunter2-", false, undefined]);
});
