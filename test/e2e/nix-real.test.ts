import { execFileSync } from "node:child_process";
import { generateKeyPairSync, randomUUID, sign } from "node:crypto";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  buildInstallables,
  type NixBuildEvent,
  type NixBuildRequest,
  type NixBuildResult,
} from "../../runner/src/nix/build.ts";
import { describeDerivations } from "../../runner/src/nix/describe.ts";
import { evaluate, type NixFailure } from "../../runner/src/nix/evaluate.ts";
import type { Installable, NixSource } from "../../runner/src/nix/installables.ts";
import { parseDerivations } from "../../runner/src/nix/plan.ts";
import { probeNix } from "../../runner/src/nix/probe.ts";
import { capture, NEW_COMMANDS, type NixContext } from "../../runner/src/nix/run.ts";
import { nixPlace, spawnNix } from "../support/nix.ts";
import { encodeNixPublicKey, signPath } from "../../runner/src/nix/signature.ts";

const fixtures = new URL("../fixtures/nix/", import.meta.url);
const { home, env, system, remove } = await nixPlace();

function git(cwd: string, ...args: string[]): string {
  const variables = { PATH: process.env["PATH"] ?? "", HOME: home, GIT_CONFIG_NOSYSTEM: "1" };
  return execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@example.org", ...args], {
    cwd,
    env: variables,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  }).trim();
}

/** A commit of the fixtures and `files` in a bare mirror, checked out in a worktree of it, as the runner does. */
function checkout(
  files: Readonly<Record<string, string>>,
): NixSource & { readonly mirror: string; readonly commit: string } {
  const base = mkdtempSync(join(home, "repository-"));
  const [author, mirror, directory] = [join(base, "author"), join(base, "mirror.git"), join(base, "checkout")];
  mkdirSync(author);
  git(author, "init", "-q", "-b", "main");
  cpSync(fixtures, author, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(author, name), text);
  git(author, "add", "-A");
  git(author, "commit", "-q", "-m", "files");
  git(base, "clone", "-q", "--bare", author, mirror);
  const commit = git(author, "rev-parse", "HEAD");
  git(mirror, "worktree", "add", "-q", "--detach", directory, commit);
  return { directory, kind: "git", commit, mirror };
}

/** A flake over the five derivations of the fixtures; the salt makes them new. */
function flake(options: { fail?: string; delay?: string; salt?: string } = {}): string {
  const { fail = "", delay = "0.05", salt = randomUUID() } = options;
  const dag = readFileSync(new URL("dag.nix", fixtures), "utf8").replaceAll("builtins.currentSystem", `"${system}"`);
  return `{ outputs = { self }: let
    lab = (${dag}) { salt = "${salt}"; delay = "${delay}"; fail = "${fail}"; marker = "${home}/m"; pidf = "${home}/pid-${salt}"; };
  in {
    checks.${system} = { inherit (lab) a c; };
    checks.riscv64-linux.never = throw "another system";
    packages.${system} = { default = lab.top; inherit (lab) slow d; broken = throw "nope"; };
  }; }`;
}

async function build(
  source: NixSource,
  installables?: readonly Installable[],
  options: Partial<NixBuildRequest> & { signal?: AbortSignal; onEvent?: (event: NixBuildEvent) => void } = {},
): Promise<{ result: NixBuildResult; events: NixBuildEvent[]; states: Record<string, string> }> {
  const { signal, onEvent, ...rest } = options;
  const events: NixBuildEvent[] = [];
  const context: NixContext = {
    run: spawnNix,
    cwd: source.directory,
    env,
    ...(signal === undefined ? {} : { signal }),
  };
  const request = { source, system, ...(installables === undefined ? {} : { installables }), ...rest };
  const result = await buildInstallables(context, request, (event) => {
    events.push(event);
    onEvent?.(event);
  });
  return { result, events, states: Object.fromEntries(result.derivations.map(({ name, state }) => [name, state])) };
}

function failureOf({ result }: { result: NixBuildResult }): NixFailure {
  if (result.outcome !== "failed") throw new Error(`the build ${result.outcome}`);
  return result.failure;
}

afterAll(remove);

describe("the probe", () => {
  test("says what is there", async () => {
    const probe = await probeNix({ run: spawnNix, cwd: home, env });
    expect(probe).toMatchObject({ present: true, version: expect.stringMatching(/^2\.\d+/), flakes: true });
  });

  test("says why nothing is there", async () => {
    const probe = await probeNix({ run: spawnNix, cwd: home, env: { PATH: home } });
    expect(probe).toEqual({ present: false, why: expect.stringMatching(/nix cannot be started/) });
  });
});

describe("a flake without task file", () => {
  test("builds its checks and default package once, and again from the cache", async () => {
    const source = checkout({ "flake.nix": flake() });
    const first = await build(source);
    if (first.result.outcome !== "succeeded") throw new Error(failureOf(first).detail);
    expect(first.states).toEqual({
      "lab-a": "built",
      "lab-b": "built",
      "lab-c": "built",
      "lab-d": "built",
      "lab-top": "built",
    });
    expect(first.result.targets.map(({ label }) => label)).toEqual([
      `.#checks.${system}.a`,
      `.#checks.${system}.c`,
      `.#packages.${system}.default`,
    ]);
    expect(first.events.filter(({ kind }) => kind === "phase")).toEqual([
      { kind: "phase", phase: "evaluating" },
      { kind: "phase", phase: "building" },
    ]);
    const log = first.events.flatMap((event) => (event.kind === "log" ? [event.text] : []));
    expect(log).toContain("lab-c> err line of lab-c");
    expect(first.events.findLast(({ kind }) => kind === "progress")).toMatchObject({
      progress: { total: 5, done: 5, running: 0, failed: 0, cached: 0, queued: 0 },
    });
    for (const derivation of first.result.derivations) {
      expect(derivation.endedAt).toBeGreaterThanOrEqual(derivation.startedAt ?? Infinity);
    }
    const second = await build(source);
    expect(second.result.outcome).toBe("succeeded");
    expect(second.states).toEqual({ "lab-a": "cached", "lab-c": "cached", "lab-top": "cached" });
    if (second.result.outcome === "succeeded") expect(second.result.outputs).toEqual(first.result.outputs);
  });

  test("gives the same derivations from every checkout of a commit", async () => {
    const source = checkout({
      "flake.nix": `{ outputs = { self }: { packages.${system}.default = derivation {
        name = "source-user"; system = "${system}"; builder = "/bin/sh"; src = self; rev = self.rev; args = [ "-c" "echo $rev > $out" ]; }; }; }`,
    });
    const other = join(home, "elsewhere");
    git(source.mirror, "worktree", "add", "-q", "--detach", other, source.commit);
    writeFileSync(join(other, "untracked"), "");
    const [one, two] = [await build(source), await build({ ...source, directory: other })];
    expect([one.result.outcome, two.result.outcome]).toEqual(["succeeded", "succeeded"]);
    expect(two.result.derivations.map(({ drv }) => drv)).toEqual(one.result.derivations.map(({ drv }) => drv));
  });

  test.each([
    ["no outputs", "{ outputs = { self }: { }; }"],
    ["empty checks", `{ outputs = { self }: { checks.SYSTEM = { }; }; }`],
    ["checks for another machine", `{ outputs = { self }: { checks.riscv64-linux.x = 1; }; }`],
  ])("with %s is a failure, because nothing ran", async (_, text) => {
    const done = await build(checkout({ "flake.nix": text.replace("SYSTEM", system) }));
    expect(failureOf(done)).toMatchObject({
      code: "nothing-to-do",
      detail: expect.stringContaining(`checks.${system}`),
    });
  });

  test("that is missing is an evaluation failure that says so", async () => {
    const done = await build(checkout({ README: "" }));
    expect(failureOf(done)).toMatchObject({ code: "evaluation-failed", detail: expect.stringContaining("flake.nix") });
  });

  test("as plain files without git is built too", async () => {
    const directory = mkdtempSync(join(home, "plain-"));
    writeFileSync(join(directory, "flake.nix"), flake());
    expect((await build({ directory, kind: "files" })).result.outcome).toBe("succeeded");
  });
});

describe("installables", () => {
  test("sets are expanded for this system, files are read, doubles are built once", async () => {
    const source = checkout({ "flake.nix": flake() });
    const request = { source, system, installables: [".#checks", `.#checks.${system}.a`, { file: "refs.nix" }] };
    const context: NixContext = { run: spawnNix, cwd: source.directory, env };
    const found = await evaluate(context, request, () => {});
    if ("failure" in found) throw new Error(found.failure.detail);
    expect(found.targets.map(({ label }) => label)).toEqual([`.#checks.a`, `.#checks.c`, "refs.nix"]);
  });

  test("become derivations whose files say what Nix says of them", async () => {
    const source = checkout({ "flake.nix": flake() });
    const context: NixContext = { run: spawnNix, cwd: source.directory, env };
    const found = await evaluate(context, { source, system, installables: [".#default"] }, () => {});
    if ("failure" in found) throw new Error(found.failure.detail);
    const root = found.targets[0]?.drv ?? "";
    const show = (command: string[]): ReturnType<typeof capture> =>
      capture(context, ["nix", ...NEW_COMMANDS, ...command, "--recursive", root]);
    const shown = await show(["derivation", "show"]);
    const { stdout } = shown.exitCode === 0 ? shown : await show(["show-derivation"]);
    const nodes = parseDerivations(stdout, env["NIX_STORE_DIR"] ?? "");
    expect(nodes).toHaveLength(5);
    const silent: NixContext = { ...context, run: () => Promise.reject(new Error("nobody needs to be asked")) };
    const drvs = nodes.map(({ drv }) => drv);
    expect(await describeDerivations(silent, drvs)).toEqual(nodes);
  });

  test("an attribute of a file is built, with all outputs described", async () => {
    const source = checkout({ "salted.nix": `(import ./dag.nix { salt = "${randomUUID()}"; delay = "0"; })` });
    const done = await build(source, [{ file: "salted.nix", attribute: "d" }]);
    if (done.result.outcome !== "succeeded") throw new Error(failureOf(done).detail);
    expect(done.result.outputs.map(({ name }) => name).toSorted()).toEqual(["dev", "out"]);
    expect(done.result.outputs.every(({ narHash }) => /^[0-9a-f]{64}$/.test(narHash))).toBe(true);
  });

  test.each<[string, Installable, RegExp]>([
    ["a missing attribute", ".#absent", /does not provide attribute/],
    ["an error of the flake", ".#broken", /^\.#broken: nope/],
    ["a value that is no derivation", ".#name", /neither a derivation nor a set/],
    ["a flake that reads the machine", ".#thief", /forbidden|not allowed/],
    ["a file that reads the machine", { file: "thief.nix" }, /forbidden|not allowed/],
    ["a flake that builds while it is evaluated", ".#imports", /import.*derivation|allow-import-from-derivation/s],
    ["a set that calls itself a derivation", ".#forged", /^\.#forged: its drvPath names no derivation$/],
    ["a missing file", { file: "absent.nix" }, /absent\.nix/],
  ])("%s fails in the evaluation, with the reason", async (_, installable, detail) => {
    const steal = `derivation { name = builtins.readFile "/etc/passwd"; system = "x"; builder = "x"; }`;
    const source = checkout({
      "thief.nix": steal,
      "flake.nix": `{ outputs = { self }: { name = "text"; forged = { type = "derivation"; drvPath = "--version"; }; thief = ${steal}; packages.${system}.broken = let say = what: throw what; in say "nope";
        imports = import (derivation { name = "ifd"; system = "${system}"; builder = "/bin/sh"; args = [ "-c" "echo 1 > $out" ]; }); }; }`,
    });
    const done = await build(source, [installable]);
    expect(failureOf(done)).toMatchObject({ code: "evaluation-failed", detail: expect.stringMatching(detail) });
    if (installable === ".#broken")
      expect(failureOf(done).lines).toContainEqual(expect.stringMatching(/at .*flake\.nix:\d+:\d+/));
    expect(done.events.some(({ kind }) => kind === "plan")).toBe(false);
  });

  test("an option in place of an installable never reaches Nix", async () => {
    const done = await build(checkout({}), ["--impure"]);
    expect(failureOf(done)).toMatchObject({ code: "task-invalid" });
  });
});

describe("a build that fails", () => {
  test("names the derivation and the exit code, keeps what was built, and fails the dependents", async () => {
    const done = await build(checkout({ "flake.nix": flake({ fail: "c" }) }));
    expect(done.states).toEqual({
      "lab-a": "built",
      "lab-b": "built",
      "lab-c": "failed",
      "lab-d": "dependency-failed",
      "lab-top": "dependency-failed",
    });
    expect(failureOf(done)).toEqual({
      code: "build-failed",
      detail: "lab-c: builder failed with exit code 3 (and 2 more not built)",
      derivation: expect.stringMatching(/-lab-c\.drv$/),
      lines: [expect.stringMatching(/^hello from lab-c /), "err line of lab-c", "boom in c"],
    });
    expect(done.result.derivations.find(({ name }) => name === "lab-c")).toMatchObject({
      exitCode: 3,
      phase: "buildPhase",
    });
  });

  test.each<[string, Partial<NixBuildRequest>, string]>([
    ["timeout", { timeoutMs: 1000 }, "run-timeout"],
    ["silent", { silenceMs: 1000 }, "silence-timeout"],
    ["biglog", { logLimitBytes: 2000 }, "log-limit"],
    ["badhash", {}, "hash-mismatch"],
  ])("%s is told from other failures", async (attribute, options, code) => {
    const source = checkout({ "salted.nix": `import ./outcomes.nix { salt = "${randomUUID()}"; }` });
    const done = await build(source, [{ file: "salted.nix", attribute }], options);
    expect(failureOf(done).code).toBe(code);
    expect(done.result.derivations.map(({ state }) => state)).toEqual([code.replace(/.*-timeout/, "timeout")]);
  });

  test.each([
    ["kills itself", `args = [ "-c" "kill -9 $$" ];`, /signal 9/],
    ["makes no output", `args = [ "-c" "exit 0" ];`, /produce output path/],
    ["needs a feature that is not here", `requiredSystemFeatures = [ "moon" ];`, /moon.* is required/],
  ])("because a builder %s gives the reason", async (_, rest, detail) => {
    const text = `derivation { name = "odd"; system = "${system}"; builder = "/bin/sh"; salt = "${randomUUID()}"; ${rest} }`;
    const done = await build(checkout({ "odd.nix": text }), [{ file: "odd.nix" }]);
    expect(failureOf(done)).toMatchObject({ code: "build-failed", detail: expect.stringMatching(detail) });
    expect(done.states).toEqual({ odd: "failed" });
  });

  test("because a builder makes Nix itself fail is a failure, and the sibling's end is not invented", async () => {
    const source = checkout({ "salted.nix": `import ./evil.nix { s = "${randomUUID()}"; }` });
    const done = await build(source, [{ file: "salted.nix" }]);
    // 2.8 dies of the builder's line, newer versions warn.
    const died = done.result.outcome === "failed";
    expect(done.states).toEqual({ "lab-evil": died ? "lost" : "built" });
    if (died)
      expect(failureOf(done)).toMatchObject({ code: "build-failed", detail: expect.stringMatching(/exit code 1/) });
  });
});

describe("a cancel", () => {
  test("while building stops the builder and calls nothing failed", async () => {
    const salt = randomUUID();
    const source = checkout({ "flake.nix": flake({ salt }) });
    const controller = new AbortController();
    const pidFile = join(home, `pid-${salt}`);
    const done = await build(source, [".#slow"], {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.kind === "log" && event.text.includes("tick 1")) controller.abort();
      },
    });
    expect(failureOf(done).code).toBe("cancelled");
    expect(done.states).toEqual({ "lab-slow": "cancelled" });
    expect(existsSync(`/proc/${readFileSync(pidFile, "utf8").trim()}`)).toBe(false);
    expect(readdirSync(join(home, "nix", "build"))).toEqual([]);
  });

  test.each(["evaluating", "building"])("as the phase %s begins is a cancel, not an error", async (phase) => {
    const controller = new AbortController();
    const done = await build(checkout({ "flake.nix": flake() }), [".#d"], {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.kind === "phase" && event.phase === phase) controller.abort();
      },
    });
    expect(failureOf(done).code).toBe("cancelled");
    expect(done.result.derivations).toEqual([]);
  });
});

test("Nix accepts a signature of ours and refuses the same under another key", async () => {
  const source = checkout({
    "salted.nix": `derivation { name = "signed"; system = "${system}"; builder = "/bin/sh";
    a = import ./refs.nix; salt = "${randomUUID()}"; args = [ "-c" "echo $a $out $salt > $out" ]; }`,
  });
  const done = await build(source, [{ file: "salted.nix" }]);
  if (done.result.outcome !== "succeeded") throw new Error(failureOf(done).detail);
  const [output] = done.result.outputs;
  if (output === undefined) throw new Error("no output");
  expect(output.references.length).toBe(2);
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ type: "spki", format: "der" }).subarray(-32);
  const signature = await signPath(output, "plumule-test", (bytes) => sign(null, bytes, privateKey));
  const cache = join(home, "cache");
  const nix = (...args: string[]): string =>
    execFileSync("nix", args, { env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  nix("copy", "--to", `file://${cache}?compression=none`, output.path);
  appendFileSync(join(cache, `${output.path.split("/").at(-1)?.slice(0, 32)}.narinfo`), `Sig: ${signature}\n`);
  const verify = (key: Uint8Array): string =>
    nix(
      "store",
      "verify",
      "--store",
      `file://${cache}`,
      "--sigs-needed",
      "1",
      "--trusted-public-keys",
      encodeNixPublicKey("plumule-test", key),
      output.path,
    );
  expect(() => verify(raw)).not.toThrow();
  expect(() => verify(Buffer.alloc(32, 7))).toThrow();
});
