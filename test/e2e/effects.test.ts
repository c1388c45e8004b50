import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  approveJob,
  getStatements,
  isFinalJobState,
  type JobDetail,
  resolveJob,
  sha256Hex,
  type SubmitBody,
  utf8,
} from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";
import { startCommand } from "../support/command-line.ts";
import { startKillableRunner } from "../support/killable-runner.ts";

const fixture = readFileSync(join(import.meta.dirname, "../fixtures/nix/effect.nix"), "utf8");
const SYSTEM = process.arch === "arm64" ? "aarch64-linux" : "x86_64-linux";

/** Effects as for Hercules CI: the fixture as it is, and others in its manner. Pure evaluation knows no `currentSystem`, so that it is given. */
const FLAKE = `{ outputs = { self }: let
  pure = builtins // { currentSystem = "${SYSTEM}"; };
  effect = name: script: extra: derivation ({ inherit name; system = "${SYSTEM}"; builder = "/bin/sh"; isEffect = true; args = [ "-c" "export PATH=/usr/bin:/bin; \${script}" ]; } // extra);
  build = name: script: derivation { inherit name; system = "${SYSTEM}"; builder = "/bin/sh"; args = [ "-c" "export PATH=/usr/bin:/bin; \${script}" ]; };
in {
  herculesCI = builtins.scopedImport { builtins = pure; } ./effect.nix;
  effects = { primaryRepo, ... }: {
    again = effect "again" "echo applied of \${primaryRepo.branch}; cat $input/made" { input = build "input" "mkdir $out; echo built >$out/made"; };
    count = effect "count" ''
      token=$(sed 's/.*"hercules-ci":{"data":{"token":"\\([^"]*\\)".*/\\1/' $HERCULES_CI_SECRETS_JSON)
      url=$HERCULES_CI_API_BASE_URL/api/v1/current-task/state/count/data
      curl -s -o /dev/null -w 'without a token %{http_code}\\n' $url
      before=$(curl -sf -H "Authorization: Bearer $token" $url || echo 0)
      echo "count $before"
      echo $((before + 1)) | curl -sf -T - -H "Authorization: Bearer $token" $url && echo kept
    '' { };
    graceful = effect "graceful" ''
      trap 'echo told; sleep 0.3; echo tidied; exit 3' TERM
      echo begun; while :; do sleep 0.1; done
    '' { };
    wait = effect "wait" "echo begun; touch /build/here; sleep 60" { };
    hidden = effect "hidden" ''
      ls -d /home /root /var 2>/dev/null; ls /run /secrets; cmp /run/secrets.json /secrets/secrets.json && echo same
      cat $bigPath; echo; echo "uid $(id -u) in $PWD, $(cat $PLUMULE_CONFIGURATION), $__structured"; ls /proc | grep -c '^[0-9]'
    '' { secretsMap = "{}"; passAsFile = "big"; big = "a value in a file"; __hci_effect_virtual_uid = "1000"; };
    unwanted = { dependencies = build "nothing" "true"; };
    unset = { one = effect "one" "true" { }; two = effect "two" "true" { }; };
  };
  site = { configuration, ... }: build "site" "echo hello \${(builtins.fromJSON (builtins.readFile configuration)).name} >$out; cat \${configuration} >>$out";
  tool = build "tool" "mkdir -p $out/bin; echo '#!/bin/sh' >$out/bin/deploy; echo 'echo deployed $1' >>$out/bin/deploy; chmod +x $out/bin/deploy";
}; }`;

let broker: TestBroker;
let runner: Awaited<ReturnType<TestBroker["startRunner"]>>;
let repository: Awaited<ReturnType<typeof makeRepository>>;
const person = mkdtempSync(join(tmpdir(), "plumule-person-"));

beforeAll(async () => {
  broker = await startTestBroker();
  runner = await broker.startRunner({ name: "king", capacity: 4 });
  repository = await makeRepository(broker.folder, { "flake.nix": FLAKE, "effect.nix": fixture });
});
afterAll(async () => {
  await broker?.stop();
  rmSync(person, { recursive: true, force: true });
});

async function plumule(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const env = {
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
    XDG_CONFIG_HOME: join(person, "config"),
  };
  const command = startCommand(args, env);
  const code = await command.done;
  return { code, out: command.out(), err: command.err() };
}

const effect = (
  installable: string,
  rest: Partial<SubmitBody> = {},
  task: Record<string, string | boolean> = {},
): SubmitBody => ({
  task: { kind: "effect", installable, ...task },
  source: { repository: repository.url, commit: repository.commit, ref: "refs/heads/main" },
  ...rest,
});

/** Submits a job and waits for its end, or for somebody to approve it. */
async function settled(deployment: string, body: SubmitBody): Promise<JobDetail & { log: string }> {
  const { id } = await broker.submit(deployment, body);
  return settledJob(id);
}
async function settledJob(id: string, after = 0): Promise<JobDetail & { log: string }> {
  const isSettled = ({ job, runs }: JobDetail): boolean =>
    runs.length > after && (isFinalJobState(job.state) || job.state === "held");
  const detail = await broker.until(id, isSettled, 40_000);
  return { ...detail, log: await broker.log(detail.runs.at(-1)!.id) };
}

describe.concurrent("an effect for Hercules CI", () => {
  it("runs unmodified: in its sandbox, with its secrets, and without an output", async () => {
    writeFileSync(join(person, "prod"), '{ "token": "s3cr3t-value-123" }');
    writeFileSync(join(person, "git"), "short-lived-token\n");
    const submit = ["submit", "hercules", "--effect", ".#herculesCI.onPush.default.outputs.effects.deploy"];
    const about = ["--source", repository.url, "--commit", repository.commit, "--ref", "main", "--runner", runner.id];
    const secrets = ["--secret", `prod-token=@${join(person, "prod")}`, "--secret", `git=@${join(person, "git")}`];
    const submitted = await plumule(...submit, ...about, ...secrets);
    expect(submitted, submitted.err).toMatchObject({ code: 0 });
    const { job, runs, log } = await settledJob(submitted.out.trim());
    expect(job, log).toMatchObject({ state: "succeeded", reason: null });
    expect(log).toContain(
      `[plumule] effectPhase\neffect uid=0 host=hercules-ci pwd=/build in=true rev=${repository.commit}\n`,
    );
    expect(log).toContain(
      '{"git":{"data":{"token":"[redacted]"}},"tgt":{"data":[redacted]},"hercules-ci":{"data":{"token":"[redacted]"}}}',
    );
    expect(log).toContain("wrote\nno $out, as expected\n");
    expect(runs[0]!.redactions).toEqual({ "prod-token": 1, git: 1 });
  });

  it("gets nothing when a secret that it asks for is missing, and never begins to apply", async () => {
    const { job, log } = await settled("missing", effect(".#herculesCI.onPush.default.outputs.effects.deploy"));
    expect(job).toMatchObject({ state: "failed", reason: { code: "refused" } });
    expect(log).toContain("A secret of this job is missing, or is not for this job.");
    expect(log).not.toContain("uid=0");
  });

  it("sees nothing of the machine's files and processes, and only the secrets that its map names", async () => {
    const { job, log } = await settled("hidden", effect(".#effects.hidden", { configuration: { size: 3 } }));
    expect(job, log).toMatchObject({ state: "succeeded" });
    const [first, ...rest] = log.slice(log.indexOf("/run:")).split("\n");
    expect([first, ...rest].join("\n")).toMatch(
      /^\/run:\nconfiguration\.json\nsecrets\nsecrets\.json\n\n\/secrets:\nsecrets\.json\nsame\na value in a file\nuid 1000 in \/build, \{"size":3\}, \n\d\n/,
    );
  });

  it("runs again although its inputs are built, and is never taken from a cache", async () => {
    for (const built of [/1 to build/, /0 to build/]) {
      const { job, log } = await settled("again", effect(".#effects.again"));
      expect(job).toMatchObject({ state: "succeeded" });
      expect(log).toMatch(built);
      expect(log).toContain("applied of main\nbuilt\n");
    }
  });

  it.each([
    [".#effects.unwanted", "skipped", "own condition says that it is not to be run"],
    [".#effects.unset", "failed", "no effect, but a set of one, two; name one effect"],
    [".#effects.none", "failed", "there is no attribute none"],
    [".#tool", "failed", "the derivation is no effect"],
  ])("is not run when %s is none", async (installable, state, words) => {
    const { job } = await settled(`none-${installable.replace(/[^a-z]/g, "")}`, effect(installable));
    expect(job).toMatchObject({ state, reason: { detail: expect.stringContaining(words) } });
  });

  it("has state files that outlast it, and keep its deployment on the runner that has them", async () => {
    const first = await settled("counted", effect(".#effects.count"));
    expect(first.log).toContain("without a token 401\ncount 0\nkept\n");
    const other = await broker.startRunner({ name: "queen" });
    const second = await settled("counted", effect(".#effects.count"));
    expect(second.log).toContain("count 1\nkept\n");
    expect(second.job.runner).toBe(first.job.runner);
    const wish = { requires: { labels: ["nobody"] } };
    const { id } = await broker.submit("counted", effect(".#effects.count", wish));
    const why = await plumule("why", id);
    expect(why.out + why.err).toContain("another runner keeps them");
    await plumule("cancel", id);
    other.stop();
  });
});

describe.concurrent("the configuration of a job", () => {
  it("reaches a derivation as a file, and not through git", async () => {
    const build = effect("", {
      task: { kind: "nix-build", installables: [".#site"] },
      configuration: { name: "Änne", quoted: '"${x}"' },
    });
    const { job, runs, log } = await settled("site", build);
    expect(job, log).toMatchObject({ state: "succeeded" });
    const made = readFileSync(runs[0]!.outputs[0]!.path, "utf8");
    expect(made).toBe('hello Änne\n{"name":"Änne","quoted":"\\"${x}\\""}');
  });

  it("is missed by a function that needs it", async () => {
    const { job } = await settled("site-bare", effect("", { task: { kind: "nix-build", installables: [".#site"] } }));
    expect(job).toMatchObject({ state: "failed", reason: { code: "evaluation-failed" } });
    expect(job.reason?.detail).toContain("configuration");
  });
});

describe.concurrent("an effect with a script and a plan", () => {
  const planned = (file: string): SubmitBody =>
    effect(
      ".#tool",
      {},
      { plan: `echo "set $(cat ${file})"; echo "said to nobody" >&2`, script: 'deploy "$(git rev-parse HEAD)"; pwd' },
    );

  it("is held with its plan, applies it when exactly that is approved, and signs which it was", async () => {
    const { url, commit } = repository;
    const file = "effect.nix | wc -l";
    const held = await settled("planned", planned(file));
    expect(held.job, held.log).toMatchObject({ state: "held", waiting: { reason: "approval" } });
    expect(held.planText).toBe(`set ${fixture.split("\n").length - 1}\n`);
    const sha256 = await sha256Hex(utf8(held.planText ?? ""));
    expect(held.job.plan).toEqual({ sha256, run: held.runs[0]!.id, approvedBy: null, approvedAt: null });
    const shown = await plumule("get", held.job.id);
    expect(shown.out).toContain(`${held.planText}`.trim());
    expect(shown.err).toContain(`--plan ${sha256}`);
    const wrong = await plumule("approve", held.job.id);
    expect(wrong.err).toContain("an approval has to name it");
    expect((await plumule("approve", held.job.id, "--plan", sha256)).code).toBe(0);
    const done = await settledJob(held.job.id, 1);
    expect(done.job, done.log).toMatchObject({
      state: "succeeded",
      attempt: 2,
      plan: { approvedBy: expect.any(String) },
    });
    expect(done.log).toContain(`deployed ${commit}\n/build/checkout\n`);
    expect(url).toContain("file:");
    const answer = await broker.ask(getStatements, { params: { job: held.job.id } });
    const lines = answer.ok ? (await answer.response.text()).trim().split("\n") : [];
    const stated = lines.map(
      (line) =>
        JSON.parse(Buffer.from((JSON.parse(line) as { payload: string }).payload, "base64").toString()) as {
          predicate: { plan?: unknown; result?: string };
        },
    );
    const plans = stated.flatMap(({ predicate: { plan, result } }) => (plan === undefined ? [] : [{ plan, result }]));
    expect(plans).toEqual([
      { plan: { sha256, text: held.planText }, result: "skipped" },
      { plan: { sha256 }, result: "succeeded" },
    ]);
  });

  it("is a job of its own where a task file asks for it and the submit allows it, and what needs it waits for its plan", async () => {
    const { url, commit } = await makeRepository(broker.folder, {
      "flake.nix": FLAKE,
      ".radicle/plumule.yaml": `jobs:
  smoke: { needs: deploy, shell: echo smoked }
  deploy: { effect: { installable: .#tool, plan: echo would, script: deploy it } }
`,
    });
    const source = { repository: url, commit };
    const expanded = async (deployment: string, effects: boolean): Promise<string[]> => {
      const { id } = await broker.submit(deployment, { task: { kind: "repository", effects }, source });
      const { steps = [] } = await broker.until(id);
      return steps.map((step) => step.id);
    };
    const [refused, skipped] = await expanded("file-without", false);
    expect((await broker.until(refused!)).job).toMatchObject({ state: "failed", kind: "effect", attempt: 0 });
    expect((await broker.until(skipped!)).job.reason).toMatchObject({ code: "nothing-to-do", need: "deploy" });
    const [deploy, smoke] = await expanded("file-with", true);
    const held = await settledJob(deploy!);
    expect(held).toMatchObject({ planText: "would\n", job: { state: "held", kind: "effect" } });
    expect((await broker.until(smoke!, ({ job }) => job.state === "queued")).job.waiting?.detail).toContain("is held");
    expect((await plumule("approve", deploy!, "--plan", held.job.plan?.sha256 ?? "")).code).toBe(0);
    expect((await settledJob(deploy!, 1)).log).toContain("deployed it");
    expect((await settledJob(smoke!)).log).toContain("smoked");
  });

  it("is not applied when its plan has changed since it was approved", async () => {
    const world = join(broker.folder, "world");
    writeFileSync(world, "one\n");
    // The sandbox shows no file of the machine: what changes is what a server says.
    const { createServer } = await import("node:http");
    const server = createServer((_, response) => response.end(readFileSync(world)));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const port = (server.address() as { port: number }).port;
    const body = effect(".#tool", {}, { plan: `curl -sf http://127.0.0.1:${port}`, script: "deploy now" });
    const held = await settled("changed", body);
    expect(held.planText).toBe("one\n");
    writeFileSync(world, "two\n");
    const params = { job: held.job.id };
    await broker.ask(approveJob, { params, body: { plan: held.job.plan!.sha256 } });
    const done = await settledJob(held.job.id, 1);
    server.close();
    expect(done.job).toMatchObject({ state: "failed", reason: { code: "rejected" } });
    expect(done.log).toContain("The plan has changed since it was approved");
    expect(done.log).not.toContain("deployed");
  });
});

describe("what begins to apply", () => {
  const isApplying = ({ job }: JobDetail): boolean => job.phase === "applying";

  it("is stopped by a replacement before that, and not after", async () => {
    const slow = effect(".#tool", {}, { plan: "echo planning; sleep 60", script: "true" });
    const before = await broker.submit("lane", slow);
    await broker.until(before.id, ({ runs }) => (runs[0]?.log.bytes ?? 0) > 0 && runs[0]?.phase === "building", 30_000);
    const replacing = await broker.submit("lane", effect(".#effects.wait", { mode: "replace" }));
    expect((await broker.until(before.id)).job.state).toBe("superseded");
    await broker.until(replacing.id, isApplying, 30_000);
    const after = await broker.submit("lane", effect(".#effects.again", { mode: "replace" }));
    expect((await broker.job(replacing.id)).job).toMatchObject({ state: "running", phase: "applying" });
    expect((await plumule("cancel", replacing.id)).err).toContain("stopping it may leave its work half done");
    expect((await plumule("cancel", replacing.id, "--force")).code).toBe(0);
    expect((await broker.until(replacing.id)).job.state).toBe("cancelled");
    expect((await broker.until(after.id)).job.state).toBe("succeeded");
  });

  it("has its grace when its time is over, and fails", async () => {
    const { job, log } = await settled(
      "graceful",
      effect(".#effects.graceful", { timeouts: { runMs: 3_000, graceMs: 20_000 } }),
    );
    expect(job).toMatchObject({ state: "failed", reason: { code: "run-timeout" } });
    expect(log).toContain("told\ntidied\n");
  });

  it("is unknown when its runner was lost, begun by nobody again, and settled by a person", async () => {
    const rook = await startKillableRunner(broker, "rook", { allowLocal: true, outlive: false });
    const { id } = await broker.submit("lost", effect(".#effects.wait", { requires: { labels: ["rook"] } }));
    await broker.until(id, isApplying, 30_000);
    const supervisor = readFileSync(join(rook.state, "journal", `${(await broker.job(id)).runs[0]!.id}.json`), "utf8");
    process.kill(Number(/"pid":(\d+)/.exec(supervisor)?.[1]), "SIGKILL");
    const { job, runs } = await broker.until(id, undefined, 30_000);
    expect(job).toMatchObject({ state: "unknown", attempt: 1 });
    expect(runs).toHaveLength(1);
    await broker.ask(resolveJob, { params: { job: id }, body: { outcome: "succeeded" } });
    expect((await broker.job(id)).job.state).toBe("succeeded");
    await rook.kill();
    expect(existsSync(rook.state)).toBe(true);
  });
});
