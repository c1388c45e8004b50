import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JobDetail, SubmitBody } from "@plumule/protocol";
import type { RunnerOptions } from "@plumule/runner";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { privateStore } from "../../runner/src/nix/probe.ts";
import { startTestBroker, type TestBroker } from "../support/broker.ts";

let broker: TestBroker;
let keys: string;
let env: Record<string, string>;

const nix = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

beforeAll(async () => {
  broker = await startTestBroker();
  keys = join(broker.folder, "keys");
  mkdirSync(keys);
  env = { PATH: process.env["PATH"] ?? "", ...(await privateStore(join(broker.folder, "nix"))) };
  nix("nix-store", "--generate-binary-cache-key", "garden-1", join(keys, "secret"), join(keys, "public"));
});
afterAll(() => broker.stop());

/** Builds two derivations, one of which refers to the other, by a runner with these settings. */
async function build(
  settings: Partial<RunnerOptions>,
  task: SubmitBody["task"] = { kind: "nix-build", installables: [".#default"] },
): Promise<{ detail: JobDetail; log: string; said: string[] }> {
  const [salt, checkout] = [randomUUID(), join(broker.folder, randomUUID())];
  mkdirSync(checkout);
  const made = (name: string, script: string): string =>
    `derivation { name = "${name}"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" ''${script}'' ]; }`;
  const seed = `(${made("seed", `echo ${salt} > $out`)})`;
  writeFileSync(
    join(checkout, "flake.nix"),
    `{ outputs = { self }: { packages.x86_64-linux.default = ${made("shoot", `echo \${${seed}} > $out`)}; }; }`,
  );
  const git = (...args: string[]): string =>
    execFileSync("git", ["-C", checkout, "-c", "user.name=t", "-c", "user.email=t@e.org", ...args], {
      encoding: "utf8",
    });
  git("init", "-q", "-b", "main");
  git("add", "-A");
  git("commit", "-qm", "flake");
  const runner = await broker.startRunner({ ...settings, name: salt, labels: [salt] });
  const job = await broker.submit(`cache-${salt}`, {
    task,
    source: { repository: `file://${checkout}`, commit: git("rev-parse", "HEAD").trim() },
    requires: { labels: [salt] },
    retry: { attempts: 1 },
  });
  const detail = await broker.until(job.id, undefined, 60_000);
  const log = await broker.log(detail.runs[0]!.id);
  runner.stop();
  await runner.done;
  return { detail, log, said: runner.said };
}

describe("what a job has built", () => {
  it("is pushed with all that it needs, signed with the key of the cache, which another store then takes", async () => {
    const cache = join(broker.folder, "cache");
    const { detail, log } = await build({
      nixCache: `file://${cache}?compression=none`,
      nixCacheKey: join(keys, "secret"),
      nixCacheRequired: true,
    });
    expect(detail.job.state).toBe("succeeded");
    expect(log).toContain(`[plumule] pushed 1 path and what they need to file://${cache}\n`);
    expect(readdirSync(cache).filter((name) => name.endsWith(".narinfo"))).toHaveLength(2);
    const { path } = detail.runs[0]!.outputs[0]!;
    const trusted = readFileSync(join(keys, "public"), "utf8").trim();
    const verify = ["store", "verify", "--store", `file://${cache}`, "--recursive", "--sigs-needed", "1", path];
    nix("nix", ...verify, "--trusted-public-keys", trusted);
    expect(() => nix("nix", ...verify, "--trusted-public-keys", trusted.replace("garden-1", "other-1"))).toThrow();
    expect(log).not.toContain(keys);
  });

  it("is built all the same when the push fails, which is told to all who read the log and to the runner's owner", async () => {
    const file = join(broker.folder, "no-folder");
    writeFileSync(file, "");
    const { detail, log, said } = await build({ nixCache: `file://${file}/cache` });
    expect(detail.job.state).toBe("succeeded");
    expect(detail.runs[0]!.outputs).toHaveLength(1);
    expect(log).toMatch(/1 path could not be pushed to file:.*no-folder.*; how the job ends does not depend on it\n/);
    expect(said.join("\n")).toMatch(/could not be pushed/);
  });

  it("sends the job elsewhere when the push fails and the cache is required", async () => {
    const file = join(broker.folder, "no-folder");
    writeFileSync(file, "");
    const { detail } = await build({ nixCache: `file://${file}/cache`, nixCacheRequired: true });
    expect(detail.job).toMatchObject({
      state: "failed",
      reason: { code: "setup-failed", detail: expect.stringContaining("could not be pushed") as string },
    });
    expect(detail.runs[0]!.outputs).toEqual([]);
  });

  it("does not decide how an effect ends, which has been applied by then", async () => {
    const file = join(broker.folder, "no-folder");
    writeFileSync(file, "");
    const task = { kind: "effect" as const, installable: ".#default", script: "echo applied" };
    const { detail, log } = await build({ nixCache: `file://${file}/cache`, nixCacheRequired: true }, task);
    expect(log).toMatch(/applied\n[^]*could not be pushed[^]*; how the job ends does not depend on it\n/);
    expect(detail.job.state).toBe("succeeded");
  });
});

describe("a runner does not start", () => {
  const start = (settings: Partial<RunnerOptions>): Promise<unknown> =>
    broker.startRunner({ name: randomUUID(), ...settings }).then(
      () => "started",
      (error: Error) => error.message,
    );

  it.each<[string, (secret: string) => Partial<RunnerOptions>, RegExp]>([
    ["with a key that others can read", (nixCacheKey) => ({ nixCacheKey }), /mode 644; run chmod 600/],
    ["with a file that is no key", () => ({ nixCacheKey: join(keys, "text") }), /no secret key of a cache/],
    ["with a key that is not there", () => ({ nixCacheKey: "/nowhere" }), /no key at/],
    ["with a password in the URL", () => ({ nixCache: "https://me:word@cache.example" }), /netrc-file/],
    ["with a key in the URL", () => ({ nixCache: "file:///srv/cache?secret-key=/k" }), /nixCacheKey/],
    ["with an option for a URL", () => ({ nixCache: "--all" }), /URL of a store/],
    [
      "with a key for a store that signs by itself",
      (nixCacheKey) => ({ nixCache: "ssh-ng://h", nixCacheKey }),
      /needs nixCache/,
    ],
  ])("%s", async (_, settings, why) => {
    const secret = join(keys, "open");
    writeFileSync(secret, readFileSync(join(keys, "secret")));
    chmodSync(secret, 0o644);
    writeFileSync(join(keys, "text"), "word", { mode: 0o600 });
    expect(await start({ nixCache: `file://${broker.folder}/never`, ...settings(secret) })).toMatch(why);
    expect(existsSync(join(broker.folder, "never"))).toBe(false);
  });
});
