import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { jobEnvironment, type JobEnvironment } from "../../runner/src/environment.ts";
import { runProcess } from "../../runner/src/process.ts";

const PARTS: JobEnvironment = {
  path: "/usr/local/bin:/usr/bin:/bin",
  home: "/job/home",
  temporary: "/job/tmp",
  facts: { RUN: "0192", COMMIT: undefined },
};
const folder = realpathSync(mkdtempSync(join(tmpdir(), "plumule-environment-")));
afterEach(() => {
  delete process.env["RUNNER_TOKEN"];
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a job's environment is small and complete", () => {
  expect(jobEnvironment(PARTS)).toEqual({
    ok: true,
    env: {
      PATH: PARTS.path,
      LANG: "C.UTF-8",
      HOME: "/job/home",
      TMPDIR: "/job/tmp",
      CI: "true",
      PLUMULE_RUN: "0192",
    },
  });
});

test("nothing of the runner's environment reaches the job", async () => {
  process.env["RUNNER_TOKEN"] = "not for jobs";
  const built = jobEnvironment({ ...PARTS, job: { WANTED: "yes" } });
  if (!built.ok) throw new Error(built.detail);
  let output = "";
  const onOutput = (chunk: Uint8Array): void => void (output += Buffer.from(chunk).toString());
  const request = { argv: ["env", "-0"], cwd: folder, env: built.env, level: "process-group", merged: true } as const;
  expect(await runProcess({ ...request, graceMs: 100, onOutput })).toMatchObject({ exitCode: 0 });
  const names = output
    .split("\0")
    .filter((line) => line !== "")
    .map((line) => line.split("=")[0]);
  const own = ["CI", "HOME", "LANG", "PATH", "PLUMULE_RUN", "PLUMULE_TRACKING_ID", "PWD", "TMPDIR", "WANTED"];
  expect(new Set(names)).toEqual(new Set(own));
});

test("the job's variables win over the machine's, and neither over the runner's", () => {
  const machine = { NIX_REMOTE: "daemon", HOME: "/root", EDITOR: "ed" };
  expect(jobEnvironment({ ...PARTS, machine, job: { EDITOR: "vi", LANG: "de_DE.UTF-8", PATH: "/bin" } })).toMatchObject(
    {
      env: { NIX_REMOTE: "daemon", HOME: "/job/home", EDITOR: "vi", LANG: "de_DE.UTF-8", PATH: "/bin" },
    },
  );
});

test("relative entries of PATH are dropped", () => {
  expect(jobEnvironment({ ...PARTS, path: ".:/usr/bin::bin:/bin" })).toMatchObject({ env: { PATH: "/usr/bin:/bin" } });
});

test.each([
  "PLUMULE_RUN",
  "PLUMULE_TRACKING_ID",
  "LD_PRELOAD",
  "LD_AUDIT",
  "DYLD_INSERT_LIBRARIES",
  "HOME",
  "TMPDIR",
  "PWD",
  "CI",
  "",
  "1X",
  "A B",
  "A=B",
  "A\nB",
])("a job may not set %j", (name) => {
  expect(jobEnvironment({ ...PARTS, job: { [name]: "x" } })).toMatchObject({ ok: false, name });
});

test("a value cannot smuggle in another variable", () => {
  expect(jobEnvironment({ ...PARTS, job: { A: "x\0LD_PRELOAD=y" } })).toMatchObject({ ok: false, name: "A" });
});
