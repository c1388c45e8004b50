import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { jobEnvironment } from "../../runner/src/environment.ts";
import { buildInstallables, type NixBuildRequest } from "../../runner/src/nix/build.ts";
import { privateStore, probeNix } from "../../runner/src/nix/probe.ts";
import { spawnNix } from "../support/nix.ts";

/** What the process of the runner itself knows, and no job may. */
const MARKER = "marker-of-the-runner-itself";

const base = mkdtempSync(join(tmpdir(), "plumule-hostile-"));
const hook = join(base, "hook");
const proof = join(base, "executed");
let server: Server;
let asked: string[] = [];
let at: string;
let env: Record<string, string>;
let system: string;

beforeAll(async () => {
  process.env["PLUMULE_TEST_MARKER"] = MARKER;
  writeFileSync(hook, `#!/bin/sh\necho "$0" >> ${proof}\n`, { mode: 0o755 });
  server = createServer((request, response) => {
    asked.push(request.url ?? "");
    response.writeHead(404).end();
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const made = jobEnvironment({
    path: process.env["PATH"] ?? "",
    home: join(base, "home"),
    temporary: base,
    facts: {},
    machine: await privateStore(join(base, "nix")),
  });
  if (!made.ok) throw new Error(made.detail);
  env = made.env;
  const probe = await probeNix({ run: spawnNix, cwd: base, env });
  if (!probe.present) throw new Error(`these tests need Nix (on Debian: apt-get install nix-bin): ${probe.why}`);
  system = probe.system;
});

afterAll(() => {
  delete process.env["PLUMULE_TEST_MARKER"];
  server.close();
  execFileSync("chmod", ["-R", "u+w", base]);
  rmSync(base, { recursive: true });
});

const shell = (name: string, script: string, more = ""): string =>
  `(derivation { name = "${name}"; system = "${system}"; builder = "/bin/sh"; args = [ "-c" ''${script}'' ]; ${more} })`;

async function attack(
  flake: string,
  options: Partial<NixBuildRequest> = {},
): Promise<{ outcome: string; code: string | null; detail: string; log: string }> {
  asked = [];
  const directory = mkdtempSync(join(base, "flake-"));
  mkdirSync(join(directory, "sub"));
  writeFileSync(join(directory, "flake.nix"), flake);
  let log = "";
  const request: NixBuildRequest = {
    source: { directory, kind: "files" },
    system,
    installables: [".#x"],
    ...options,
  };
  const result = await buildInstallables({ run: spawnNix, cwd: directory, env }, request, (event) => {
    if (event.kind === "log") log += `${event.text}\n`;
  });
  const failure = result.outcome === "failed" ? result.failure : null;
  return { outcome: result.outcome, code: failure?.code ?? null, detail: failure?.detail ?? "", log };
}

const outputs = (x: string): string => `outputs = { self }: { packages.${system}.x = ${x}; };`;

describe("row 29: a flake of a stranger", () => {
  test("that brings settings of its own is built without one of them", async () => {
    const settings = `nixConfig = {
      substituters = [ "${at}" ]; extra-substituters = [ "${at}" ]; trusted-public-keys = [ "x:AAAA" ];
      post-build-hook = "${hook}"; sandbox = false; flake-registry = "${at}/registry.json"; allow-import-from-derivation = true;
      bash-prompt = "x"; build-hook = "${hook}"; diff-hook = "${hook}"; run-diff-hook = true; };`;
    const done = await attack(`{ ${settings} ${outputs(shell("built", "echo fine > $out"))} }`);
    expect(done).toMatchObject({ outcome: "succeeded" });
    for (const name of ["post-build-hook", "substituters", "sandbox", "allow-import-from-derivation"])
      expect(done.log).toContain(`ignoring untrusted flake configuration setting '${name}'`);
    expect(asked).toEqual([]);
    expect(existsSync(proof)).toBe(false);
    expect(existsSync(join(base, "home/.local/share/nix/trusted-settings.json"))).toBe(false);
    expect(existsSync(join(base, "nix/home/.local/share/nix/trusted-settings.json"))).toBe(false);
  });

  test("that names a flake by a registry finds none", async () => {
    const done = await attack(
      `{ nixConfig.flake-registry = "${at}/registry.json"; inputs.evil.url = "flake:evil"; outputs = { self, evil }: { packages.${system}.x = evil; }; }`,
    );
    expect(done).toMatchObject({ code: "evaluation-failed" });
    expect(asked).toEqual([]);
  });

  test.each([
    ["reads the machine", 'builtins.readFile "/etc/passwd"', /forbidden|not allowed/],
    ["reads the environment", '(throw "HOME is <${builtins.getEnv "HOME"}>")', /HOME is <>/],
    ["builds while it is evaluated", "IFD", /import.*derivation|allow-import-from-derivation/s],
    ["refers to itself", "let a = a; in a", /infinite recursion/],
    ["recurses without an end", "let f = n: 1 + f (n + 1); in f 0", /./],
    ["fetches without a hash", 'builtins.fetchurl "AT/x"', /hash|pure|forbidden|not allowed/],
    ["fetches a tree without a hash", 'builtins.fetchTarball "AT/x"', /hash|pure|forbidden|not allowed/],
    ["calls a program", 'builtins.exec [ "HOOK" ]', /exec/],
  ])("that %s fails in its evaluation", async (_, expression, why) => {
    const ifd = `import ${shell("ifd", "echo 1 > $out")}`;
    const x = expression.replace("IFD", ifd).replace("AT", at).replace("HOOK", hook);
    const done = await attack(`{ ${outputs(x)} }`);
    expect(done).toMatchObject({ code: "evaluation-failed", detail: expect.stringMatching(why) as string });
    expect(asked).toEqual([]);
    expect(existsSync(proof)).toBe(false);
  });

  test("that builds while it is evaluated does so where the runner's owner allows it", async () => {
    const flake = `{ ${outputs(shell("built-${toString (import IFD)}", "echo fine > $out").replace("IFD", shell("ifd", "echo 1 > $out")))} }`;
    expect(await attack(flake)).toMatchObject({ code: "evaluation-failed" });
    expect(await attack(flake, { allowImportFromDerivation: true })).toMatchObject({ outcome: "succeeded" });
  });

  test("that needs more memory than an evaluation has fails, and takes nothing else along", async () => {
    const bomb = "builtins.length (builtins.foldl' (all: _: all ++ all) [ 1 2 3 4 ] (builtins.genList (n: n) 28))";
    const done = await attack(`{ ${outputs(bomb)} }`, { evaluationBytes: 256 * 1024 ** 2 });
    expect(done).toMatchObject({
      code: "evaluation-failed",
      detail: ".#x: the evaluation needs more than 256 MiB of memory",
    });
  });

  test("whose builder is let out to the network finds nothing in its environment to send", async () => {
    const spy = shell(
      "spy",
      "echo token: $PLUMULE_TEST_MARKER $PLUMULE_RUN home: $HOME; echo x > $out",
      `outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "${"0".repeat(52)}"; impureEnvVars = [ "PLUMULE_TEST_MARKER" "PLUMULE_RUN" ];`,
    );
    const done = await attack(`{ ${outputs(spy)} }`);
    expect(done).toMatchObject({ code: "hash-mismatch" });
    expect(done.log).toContain("token: home: /homeless-shelter");
    expect(done.log).not.toContain(MARKER);
  });

  test.each(["--option", "-v", "--impure", ".#x --impure", "--expr"])("cannot be named as %j", async (installable) => {
    const done = await attack(`{ ${outputs(shell("built", "echo fine > $out"))} }`, { installables: [installable] });
    expect(done).toMatchObject({ code: "task-invalid" });
  });
});

describe("the environment of a job", () => {
  test.each([
    "NIX_CONFIG",
    "NIX_REMOTE",
    "NIX_USER_CONF_FILES",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_COUNT",
    "XDG_CONFIG_HOME",
    "GC_MAXIMUM_HEAP_SIZE",
  ])("cannot configure Nix or git through %s", (name) => {
    const parts = { path: "/bin", home: "/x", temporary: "/x", facts: {} };
    expect(jobEnvironment({ ...parts, job: { [name]: "x" } })).toMatchObject({ ok: false, name });
    expect(jobEnvironment({ ...parts, job: { GIT_AUTHOR_NAME: "Ada" } })).toMatchObject({ ok: true });
  });
});
