import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  getDeploymentEvents,
  getJob,
  getNamespaceEvents,
  getStatements,
  type JobView,
  listJobs,
  listSecrets,
} from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { formsOf, Visible } from "../../runner/src/redact-forms.ts";
import { memoryFolder } from "../../runner/src/secrets/files.ts";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";
import { startCommand } from "../support/command-line.ts";

const VALUE = 'correct "horse"\\battery/$taple\nwith a second line: Zm9vYmFy\n';
const NEEDLES = formsOf(Buffer.from(VALUE)).map((form) => Buffer.from(form));

let broker: TestBroker;
let runner: Awaited<ReturnType<TestBroker["startRunner"]>>;
const person = mkdtempSync(join(tmpdir(), "plumule-person-"));
const opened = (): string => memoryFolder(join(broker.folder, "keeper")) ?? "";

beforeAll(async () => {
  broker = await startTestBroker();
  runner = await broker.startRunner({ name: "keeper", labels: ["vault"] });
  writeFileSync(join(person, "token"), VALUE, { mode: 0o600 });
  // A runner can be sealed to once it has published its key and said what it offers.
  const isReady = async (): Promise<boolean> =>
    (await plumule("secret", "set", "probe=@token", "--if", "always")).code === 0;
  await vi.waitUntil(isReady, { timeout: 20_000, interval: 100 });
});
afterAll(async () => {
  await broker?.stop();
  rmSync(opened(), { recursive: true, force: true });
  rmSync(person, { recursive: true, force: true });
});

/** Runs the command line as the person who has the secret. */
async function plumule(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const env = {
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
    XDG_CONFIG_HOME: join(person, "config"),
  };
  const command = startCommand(
    args.map((arg) => arg.replace("@token", `@${join(person, "token")}`)),
    env,
  );
  const code = await command.done;
  return { code, out: command.out(), err: command.err() };
}

/** The job that a submit of the command line made. */
const jobOf = ({ out }: { out: string }): string => out.trim();

/** Whether the secret stands in some bytes in any of its forms, white space and colours apart. */
function shows(bytes: Uint8Array): boolean {
  const seen: number[] = [];
  const visible = new Visible((byte) => seen.push(byte));
  for (const byte of bytes) visible.push(byte, 0);
  visible.end();
  const plain = Buffer.from(seen);
  return NEEDLES.some((needle) => plain.includes(needle));
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes("/nix/") && !path.includes("/cache/"));
}

/** Files below a folder that hold the secret. */
function leaksBelow(folder: string): string[] {
  return filesBelow(folder).filter((path) => {
    try {
      return shows(readFileSync(path));
    } catch {
      // Gone meanwhile.
      return false;
    }
  });
}

/** Processes whose arguments, title or environment hold the secret. */
function leakingProcesses(): string[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) =>
    ["cmdline", "environ", "comm"].some((file) => {
      try {
        return shows(readFileSync(`/proc/${pid}/${file}`));
      } catch {
        return false;
      }
    }),
  );
}

const SHOWING = `
key=$PLUMULE_SECRETS/TOKEN
stat -f -c 'on %T' $PLUMULE_SECRETS; stat -c 'mode %a' $PLUMULE_SECRETS $key
cat $key; tr '\\n' ' ' <$key; echo; sed 's/horse/\\x1b[31mhorse\\x1b[0m/' $key
printf 'a%s' "$(cat $key)" | base64; printf 'ab%s' "$(cat $key)" | base64 -w0; echo; od -An -v -tx1 $key
head -c 9 $key; sleep 0.2; tail -c +10 $key
echo stderr "$(cat $key)" >&2
echo 'not secret'
touch ready; until [ -e go ]; do sleep 0.05; done
`;

describe("a secret that is given on the command line", () => {
  it("reaches the script as a file in memory, and is nowhere else: not at the broker, on a disk, in a log, or with a process", async () => {
    const submitted = await plumule(
      "submit",
      "p17",
      "--shell",
      SHOWING,
      "--secret",
      "TOKEN=@token",
      "--runner",
      runner.id,
    );
    expect(submitted, submitted.err).toMatchObject({ code: 0 });
    expect(submitted.err).toContain(`TOKEN can be opened by keeper ${runner.id.slice(8, 16)}`);
    const job = jobOf(submitted);
    const { runs } = await broker.until(job, "running");
    const run = runs[0]!.id;
    const checkout = join(broker.folder, "keeper/workspaces", run, "checkout");
    await expect.poll(() => existsSync(join(checkout, "ready")), { timeout: 20_000 }).toBe(true);

    // The search itself finds a secret where there is one.
    const inMemory = leaksBelow(opened()).map((path) => path.slice(join(opened(), run).length));
    expect(inMemory.toSorted()).toEqual(["/secrets.json", "/secrets/TOKEN"]);
    expect(statSync(opened()).mode & 0o777).toBe(0o700);
    expect(leakingProcesses()).toEqual([]);
    expect(leaksBelow(broker.folder)).toEqual([]);

    writeFileSync(join(checkout, "go"), "");
    const { job: done, runs: ended } = await broker.until(job);
    expect(done.state).toBe("succeeded");
    expect(leaksBelow(opened())).toEqual([]);
    expect(leaksBelow(broker.folder)).toEqual([]);

    const log = await broker.log(run);
    expect(log).toMatch(/^on tmpfs\nmode 700\nmode 400\n/);
    expect(log).toContain("stderr [redacted]");
    expect(log).toContain("not secret");
    expect(ended[0]!.redactions?.["TOKEN"]).toBeGreaterThanOrEqual(8);
    const params = { job, deployment: "p17" };
    const answers = await Promise.all([
      broker.ask(getJob, { params }),
      broker.ask(getDeploymentEvents, { params }),
      broker.ask(getNamespaceEvents, {}),
      broker.ask(listSecrets, {}),
    ]);
    const statements = await broker.ask(getStatements, { params });
    const told = [
      ...answers.map((answer) => JSON.stringify(answer)),
      statements.ok ? await statements.response.text() : "",
    ];
    for (const text of [log, ...told, runner.said.join("\n"), submitted.out, submitted.err])
      expect(shows(Buffer.from(text))).toBe(false);
    const shown = await plumule("get", job);
    expect(shown.out).toMatch(/masked\s+TOKEN \d+×/);
  });

  it("is refused as a value, and nothing is sent", async () => {
    const refused = await plumule("submit", "p17", "--shell", "true", "--secret", "TOKEN=hunter2");
    expect(refused).toMatchObject({ code: 2, out: "" });
    expect(refused.err).toContain("Every program of this machine can read it there");
  });

  it("is given again when the same job is submitted again, and to no other job that brings its box", async () => {
    const script = "test -s $PLUMULE_SECRETS/TOKEN && echo given";
    const first = jobOf(await plumule("submit", "moved", "--shell", script, "--secret", "TOKEN=@token"));
    expect((await broker.until(first)).job.state).toBe("succeeded");
    expect((await plumule("rerun", first, "--wait")).code).toBe(0);

    const { spec } = await broker.job(first);
    const theft = { ...spec, task: { kind: "shell" as const, script: "cat $PLUMULE_SECRETS/TOKEN | rev" } };
    const stolen = await broker.until((await broker.submit("moved", theft)).id);
    expect(stolen.job).toMatchObject({
      state: "failed",
      reason: { code: "refused", detail: "A secret of this job is missing, or is not for this job." },
    });
    expect(await broker.log(stolen.runs[0]!.id)).toBe(
      "[plumule] A secret of this job is missing, or is not for this job.\n",
    );
    expect(runner.said.join("\n")).toContain("its secrets stay closed: TOKEN: sealed for other work");
    const elsewhere = await broker.until((await broker.submit("other", spec)).id);
    expect(elsewhere.job.state).toBe("failed");
  });
});

describe("a stored secret", () => {
  it("is given where its condition holds, listed without its value, and gone when it is removed", async () => {
    const set = await plumule("secret", "set", "KEY=@token", "--if", "deployment=blog,shop", "--runner", runner.id);
    expect(set, set.err).toMatchObject({ code: 0 });
    expect(set.err).toContain("if deployment=blog or deployment=shop");
    expect((await plumule("secret", "ls")).out).toMatch(/KEY\s+1\s+deployment=blog or deployment=shop/);
    const script = "grep -q horse $PLUMULE_SECRETS/KEY && grep -q horse $HERCULES_CI_SECRETS_JSON";
    const [given, denied] = await Promise.all(
      ["blog", "wiki"].map((name) => plumule("submit", name, "--shell", script, "--secret", "KEY", "--wait")),
    );
    expect([given?.code, denied?.code]).toEqual([0, 1]);
    expect((await plumule("secret", "rm", "KEY")).code).toBe(0);
    const gone = await plumule("submit", "blog", "--shell", "true", "--secret", "KEY");
    expect(gone.code).toBe(2);
    expect(gone.err).toContain("no secret KEY is stored here");
  });
});

describe("a stored secret about a commit", () => {
  it("is given to the work that the branch's own commit describes, not to a script about that commit or to another branch", async () => {
    const script = "test -s $PLUMULE_SECRETS/REPO && echo given";
    const files = { ".radicle/plumule.yaml": `jobs:\n  deploy:\n    shell: ${script}\n` };
    const { url, commit } = await makeRepository(broker.folder, files);
    const condition = ["--if", `repository=${url}`, "--if", "branch=main"];
    expect((await plumule("secret", "set", "REPO=@token", ...condition)).code).toBe(0);
    const about = ["--source", url, "--commit", commit, "--secret", "REPO", "--wait"];
    const [own, other, branch] = await Promise.all([
      plumule("submit", "own", "--repository", "--ref", "main", ...about),
      plumule("submit", "script", "--shell", script, "--ref", "main", ...about),
      plumule("submit", "branch", "--repository", "--ref", "release", ...about),
    ]);
    expect([own.code, other.code, branch.code], own.err + own.out).toEqual([0, 1, 1]);
  });
});

describe("a task file whose jobs ask for a label, a lock and a secret", () => {
  const files = {
    ".radicle/plumule.yaml": `jobs:
  test:
    matrix: { machine: [vault, nowhere] }
    requires: { labels: ["{machine}"] }
    shell: 'echo "testing on $MATRIX_MACHINE"; test ! -e "\${PLUMULE_SECRETS:-/none}/TOKEN"'
  check:
    shell: exit 3
  deploy:
    needs: [check]
    secrets: TOKEN
    shell: exit 1
  publish:
    locks: ["host:king"]
    secrets: TOKEN
    shell: grep -q horse $PLUMULE_SECRETS/TOKEN && echo published
`,
  };

  it("becomes jobs of the lane, each with what the file gives it, and the command ends as the worst of them", async () => {
    const { url, commit } = await makeRepository(broker.folder, files);
    const about = ["--repository", "--source", url, "--commit", commit, "--secret", "TOKEN=@token"];
    const submitting = plumule("submit", "expanded", ...about, "--wait");
    // No runner has this label: its time in the queue would be long.
    const events = async (): Promise<JobView[]> => {
      const answer = await broker.ask(listJobs, { query: { deployment: "expanded", limit: 20 } });
      return answer.ok ? answer.answer.body.items : [];
    };
    const nowhere = await vi.waitUntil(
      async () =>
        (await events()).find(
          ({ step, waiting }) => step?.name === "test (machine=nowhere)" && waiting?.reason === "no-runner",
        ),
      { timeout: 30_000, interval: 100 },
    );
    expect(nowhere.waiting?.detail).toContain("nowhere");
    await plumule("cancel", nowhere.id);
    const ended = await submitting;
    expect(ended.code, ended.err).toBe(1);
    const rows = (await plumule("get", nowhere.step!.parent)).out;
    expect(rows).toMatch(/succeeded\s+test \(machine=vault\)/);
    expect(rows).toMatch(/cancelled\s+test \(machine=nowhere\)/);
    expect(rows).toMatch(/failed\s+check/);
    expect(rows).toMatch(/skipped\s+deploy\s+Not run: it needs `check`, which ended failed/);
    expect(rows).toMatch(/succeeded\s+publish/);
    const publish = (await events()).find(({ step }) => step?.name === "publish");
    expect(publish?.locks).toEqual({ names: ["host:king"], held: false });
    expect(await broker.log(publish!.run!)).toBe("[plumule] .radicle/plumule.yaml: publish\npublished\n");
  });
});

describe("what a crash leaves", () => {
  it("is removed, also when the process that had opened the secrets was killed", async () => {
    const script = "touch ready; sleep 60";
    const job = jobOf(await plumule("submit", "crash", "--shell", script, "--secret", "TOKEN=@token"));
    const { runs } = await broker.until(job, "running");
    const folder = join(opened(), runs[0]!.id);
    await expect.poll(() => existsSync(folder), { timeout: 10_000 }).toBe(true);
    const records = readdirSync(join(broker.folder, "keeper/journal")).map((name) =>
      readFileSync(join(broker.folder, "keeper/journal", name), "utf8"),
    );
    const pid = records
      .map((text) => /"supervisor":\{[^}]*"pid":(\d+)/.exec(text)?.[1])
      .find((one) => one !== undefined);
    process.kill(Number(pid), "SIGKILL");
    await expect.poll(() => existsSync(folder), { timeout: 20_000 }).toBe(false);
    await plumule("cancel", job);
  });
});
