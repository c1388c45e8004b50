import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import { basename, join } from "node:path";
import {
  cancelJob,
  getDerivations,
  getStatements,
  parseDidKey,
  verifyNixSignature,
  verifyStatement,
} from "@plumule/protocol";
import { nixKeyName } from "@plumule/runner";
import { privateStore } from "../../runner/src/nix/probe.ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";

let broker: TestBroker;
let runnerId: string;
beforeAll(async () => {
  broker = await startTestBroker();
  runnerId = (await broker.startRunner({ capacity: 2 })).id;
});
afterAll(() => broker?.stop());

const shell = (script: string): { task: { kind: "shell"; script: string } } => ({ task: { kind: "shell", script } });
const processesWith = (mark: string): string => {
  try {
    return execFileSync("pgrep", ["--full", mark], { encoding: "utf8" });
  } catch {
    return "";
  }
};

/** Derivations without inputs from anywhere; `salt` makes every test build anew. */
const flake = (salt: string, body: string): string => `{
  outputs = { self }: let
    mk = name: deps: script: derivation {
      inherit name; system = "x86_64-linux"; builder = "/bin/sh";
      args = [ "-c" ''export PATH=/usr/bin:/bin; echo '@nix { "action": "setPhase", "phase": "buildPhase" }'; echo building ${"${name}"}; ${"${script}"} echo ${"${toString deps}"} ${salt} > $out'' ];
    };
    seed = mk "seed" [ ] "";
  in { packages.x86_64-linux = ${body}; };
}`;

describe("a shell job", () => {
  it("succeeds with its log, its environment and a statement that verifies offline", async () => {
    const job = await broker.submit("shell", {
      ...shell('echo "hello from $PLUMULE_DEPLOYMENT"; echo to stderr >&2; echo "${HOME#/}" | wc -l'),
      env: { GREETING: "hi" },
    });
    const { job: done, runs } = await broker.until(job.id);
    expect(done).toMatchObject({ state: "succeeded", runner: runnerId, attempt: 1, reason: null });
    const [run] = runs;
    expect(await broker.log(run!.id)).toBe("hello from shell\nto stderr\n1\n");
    expect(run).toMatchObject({
      state: "succeeded",
      exitCode: 0,
      survivorsKilled: 0,
      log: { state: "complete", bytes: 29 },
    });
    const answer = await broker.ask(getStatements, { params: { job: job.id } });
    const text = answer.ok ? await answer.response.text() : "";
    const envelope = JSON.parse(text.trim().split("\n")[0]!) as unknown;
    const verified = await verifyStatement(envelope, {
      signers: [runnerId],
      expected: {
        namespace: "test",
        deployment: "shell",
        job: job.id,
        run: run!.id,
        epoch: run!.epoch,
        logSha256: run!.log.sha256!,
        logBytes: 29,
      },
    });
    expect(verified.checks.filter((check) => !check.ok)).toEqual([]);
    expect(verified.ok).toBe(true);
  });

  it("finds its configuration in a file, with the bytes whose digest is signed", async () => {
    const job = await broker.submit("shell", {
      ...shell('cat "$PLUMULE_CONFIGURATION"; echo; sha256sum < "$PLUMULE_CONFIGURATION"; echo "$PLUMULE_TYPE"'),
      configuration: { size: 3, domain: "example.org", nested: [null, { ü: "✓" }] },
      type: "peertube",
    });
    const { runs } = await broker.until(job.id);
    const [json, digest, type] = (await broker.log(runs[0]!.id)).split("\n");
    expect([json, type]).toEqual(['{"size":3,"domain":"example.org","nested":[null,{"ü":"✓"}]}', "peertube"]);
    const answer = await broker.ask(getStatements, { params: { job: job.id } });
    const { payload } = JSON.parse(answer.ok ? await answer.response.text() : "") as { payload: string };
    expect(Buffer.from(payload, "base64").toString()).toContain(digest!.slice(0, 64));
  });

  it("fails with its exit code, and is not tried again", async () => {
    const job = await broker.submit("shell", shell("echo before; exit 7"));
    const { job: done, runs } = await broker.until(job.id);
    expect(done).toMatchObject({ state: "failed", attempt: 1, reason: { code: "exit-code" } });
    expect(runs[0]).toMatchObject({ exitCode: 7 });
  });

  it("ends at its time-out, by name", async () => {
    const job = await broker.submit("shell", { ...shell("sleep 60"), timeouts: { runMs: 500, graceMs: 200 } });
    expect((await broker.until(job.id)).job).toMatchObject({ state: "failed", reason: { code: "run-timeout" } });
  });

  it("ends when its log is silent for too long, by name", async () => {
    const job = await broker.submit("shell", {
      ...shell("echo once; sleep 60"),
      timeouts: { silenceMs: 500, graceMs: 200 },
    });
    expect((await broker.until(job.id)).job).toMatchObject({ state: "failed", reason: { code: "silence-timeout" } });
  });

  it("brings a log of many chunks whole", async () => {
    const job = await broker.submit("shell", shell("seq 1 200000"));
    const { runs } = await broker.until(job.id);
    expect(runs[0]!.log).toMatchObject({ state: "complete", bytes: 1_288_895 });
  });
});

describe("a cancel", () => {
  it("reaches the run, ends its whole process tree after the grace, and says what it had to kill", async () => {
    const mark = `cancel-${randomUUID()}`;
    const job = await broker.submit("cancel", {
      ...shell(
        `trap '' TERM; (exec -a ${mark} sleep 300) & setsid bash -c 'exec -a ${mark} sleep 300' & echo ready; wait; wait`,
      ),
      timeouts: { graceMs: 500 },
    });
    await broker.until(job.id, (detail) => (detail.runs[0]?.log.bytes ?? 0) > 0);
    expect(processesWith(mark)).not.toBe("");
    await broker.ask(cancelJob, { params: { job: job.id }, body: { reason: "not needed" } });
    const { job: done, runs } = await broker.until(job.id);
    expect(done).toMatchObject({
      state: "cancelled",
      reason: { code: "cancelled", detail: expect.stringContaining("not needed") },
    });
    expect(runs[0]!.survivorsKilled).toBeGreaterThan(0);
    expect(processesWith(mark)).toBe("");
  });

  it("by a replacing job leaves the first superseded and runs the second after it", async () => {
    const first = await broker.submit("replace", { ...shell("echo ready; sleep 300"), timeouts: { graceMs: 500 } });
    await broker.until(first.id, (detail) => (detail.runs[0]?.log.bytes ?? 0) > 0);
    const second = await broker.submit("replace", { ...shell("echo second"), mode: "replace" });
    expect((await broker.until(first.id)).job).toMatchObject({ state: "superseded", supersededBy: second.id });
    expect((await broker.until(second.id)).job.state).toBe("succeeded");
    const [before, after] = await Promise.all([broker.job(first.id), broker.job(second.id)]);
    expect(after.job.startedAt! >= before.job.finishedAt!).toBe(true);
  });
});

describe("a build of a real commit", () => {
  it("gives outputs with NAR hash and Nix's own signature, the derivation graph, and provenance", async () => {
    const salt = randomUUID();
    const repository = await makeRepository(broker.folder, {
      "flake.nix": flake(salt, '{ default = mk "shoot" [ seed (mk "root" [ seed ] "") ] ""; }'),
    });
    const job = await broker.submit("build", {
      task: { kind: "nix-build", installables: [".#default"] },
      source: { repository: repository.url, commit: repository.commit },
    });
    const { job: done, runs } = await broker.until(job.id, undefined, 60_000);
    expect(done).toMatchObject({ state: "succeeded", progress: { total: 3, done: 3, failed: 0 } });
    const [output] = runs[0]!.outputs;
    expect(output).toMatchObject({
      name: "out",
      path: expect.stringMatching(/-shoot$/),
      narHash: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    const log = await broker.log(runs[0]!.id);
    for (const name of ["seed", "root", "shoot"]) expect(log).toContain(`building ${name}`);
    const graph = await broker.ask(getDerivations, { params: { job: job.id } });
    expect(
      graph.ok &&
        graph.answer.body.nodes
          .map((node) => [node.name, node.state, node.phase])
          .toSorted(([a], [b]) => a!.localeCompare(b!)),
    ).toEqual([
      ["root", "built", "buildPhase"],
      ["seed", "built", "buildPhase"],
      ["shoot", "built", "buildPhase"],
    ]);
    expect(graph.ok && graph.answer.body.edges).toHaveLength(3);
    const answer = await broker.ask(getStatements, { params: { job: job.id } });
    const envelopes = (answer.ok ? await answer.response.text() : "")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as unknown);
    expect(envelopes).toHaveLength(2);
    for (const envelope of envelopes) {
      const verified = await verifyStatement(envelope, {
        signers: [runnerId],
        expected: { job: job.id, commit: repository.commit },
      });
      expect(verified.checks.filter((check) => !check.ok)).toEqual([]);
    }
    const name = nixKeyName(keyOf(runnerId));
    const publicKey = `${name}:${Buffer.from(keyOf(runnerId)).toString("base64")}`;
    const ours = output!.signatures.find((signature) => signature.startsWith(`${name}:`));
    const checked = await verifyNixSignature(
      { ...output!, narHash: Buffer.from(output!.narHash, "hex") },
      ours!,
      publicKey,
    );
    expect(checked).toEqual({ ok: true, value: name });

    // What the broker tells, put beside the path in a binary cache, is all that Nix itself needs.
    const cache = join(broker.folder, "cache");
    const env = { ...process.env, ...(await privateStore(join(broker.folder, "nix"))) };
    const nix = (...args: string[]): void => void execFileSync("nix", args, { env, stdio: "pipe" });
    nix("copy", "--to", `file://${cache}?compression=none`, output!.path);
    const narinfo = join(cache, `${basename(output!.path).slice(0, 32)}.narinfo`);
    appendFileSync(narinfo, `Sig: ${ours}\n`);
    const verify = ["store", "verify", "--store", `file://${cache}`, "--sigs-needed", "1", output!.path];
    expect(() => nix(...verify, "--trusted-public-keys", publicKey)).not.toThrow();
    expect(() =>
      nix(...verify, "--trusted-public-keys", `${name}:${Buffer.alloc(32, 7).toString("base64")}`),
    ).toThrow();
  });

  it("is skipped when the job asks for it and the last success has built the same derivations", async () => {
    const salt = randomUUID();
    const files = { "flake.nix": flake(salt, '{ default = mk "same" [ ] ""; }') };
    const submit = async (more: Record<string, string>): ReturnType<typeof broker.until> => {
      const repository = await makeRepository(broker.folder, { ...files, ...more });
      const source = { repository: repository.url, commit: repository.commit };
      const job = await broker.submit("unchanged", { task: { kind: "repository" }, source, skipUnchanged: true });
      return broker.until(job.id, undefined, 60_000);
    };
    const first = await submit({});
    expect(first.job.state).toBe("succeeded");
    expect(await broker.log(first.runs[0]!.id)).toContain("[plumule] built in any case");

    const second = await submit({ README: "only words have changed" });
    const detail = `Nothing has changed since job ${first.job.id}, the last success: the same derivation.`;
    expect(second.job).toMatchObject({ state: "skipped", reason: { code: "unchanged", detail } });
    expect(second.runs[0]).toMatchObject({ state: "succeeded", exitCode: null, outputs: [], statementCount: 1 });
    expect(await broker.log(second.runs[0]!.id)).toContain(`[plumule] ${detail}`);

    const third = await submit({ "flake.nix": flake(randomUUID(), '{ default = mk "same" [ ] ""; }') });
    expect(third.job.state).toBe("succeeded");
  });

  it("fails with the first derivation that failed", async () => {
    const repository = await makeRepository(broker.folder, {
      "flake.nix": flake(randomUUID(), '{ default = mk "top" [ (mk "rotten" [ ] "echo it broke; exit 3;") ] ""; }'),
    });
    const job = await broker.submit("build", {
      task: { kind: "repository" },
      source: { repository: repository.url, commit: repository.commit },
    });
    const { job: done } = await broker.until(job.id, undefined, 60_000);
    expect(done).toMatchObject({
      state: "failed",
      reason: {
        code: "build-failed",
        derivation: expect.stringContaining("-rotten.drv"),
        lines: expect.arrayContaining(["it broke"]),
      },
    });
  });

  it("runs what the repository's own file says, in order, and tells what that has changed", async () => {
    const repository = await makeRepository(broker.folder, {
      ".radicle/plumule.yaml":
        "jobs:\n  one: { shell: 'git rev-parse HEAD' }\n  two: { shell: 'echo two; test \"$PLUMULE_COMMIT\" = \"$(git rev-parse HEAD)\"; >new; [ -e ../../../key.pem ] && echo seen || echo hidden' }\n",
    });
    const job = await broker.submit("repository", {
      task: { kind: "repository" },
      source: { repository: repository.url, commit: repository.commit },
    });
    const { job: done, runs } = await broker.until(job.id);
    const counts = { addedCount: 1, modifiedCount: 0, deletedCount: 0 };
    expect(done).toMatchObject({ state: "succeeded", changes: counts });
    // Of what its runner keeps a job sees its own, where its level has mounts of its own.
    const key = ["bwrap", "userns", "container"].includes(runs[0]!.isolation ?? "") ? "hidden" : "seen";
    expect(runs[0]!.changes).toMatchObject({ ...counts, paths: [{ path: "new", change: "added" }] });
    expect(await broker.log(runs[0]!.id)).toBe(
      `[plumule] .radicle/plumule.yaml: one, two\n[plumule] one\n${repository.commit}\n[plumule] one: succeeded\n[plumule] two\ntwo\n${key}\n[plumule] two: succeeded\n[plumule] changed in the checkout: 1 added: new\n`,
    );
  });

  it("is one for each combination of a matrix, and signed for once even if two jobs build the same", async () => {
    const repository = await makeRepository(broker.folder, {
      "flake.nix": flake(randomUUID(), '{ one = mk "one" [ ] ""; two = mk "two" [ seed ] ""; }'),
      ".radicle/plumule.yaml":
        'jobs:\n  again: { build: ".#one", needs: all }\n  all: { matrix: { name: [one, two] }, build: ".#{name}" }\n',
    });
    const job = await broker.submit("matrix", {
      task: { kind: "repository" },
      source: { repository: repository.url, commit: repository.commit },
    });
    const { job: done, runs } = await broker.until(job.id, undefined, 60_000);
    expect(done.state).toBe("succeeded");
    expect(runs[0]!.outputs.map(({ path }) => path.replace(/.*-/, ""))).toEqual(["one", "two"]);
    const log = await broker.log(runs[0]!.id);
    expect(log).toContain("[plumule] .radicle/plumule.yaml: all (name=one), all (name=two), again\n");
    const answer = await broker.ask(getStatements, { params: { job: job.id } });
    // The result, and the provenance of each attribute.
    expect(answer.ok && (await answer.response.text()).trim().split("\n")).toHaveLength(3);
  });

  it("is cancelled without a builder left", async () => {
    const mark = `9${Math.floor(Math.random() * 1e8)}`;
    const repository = await makeRepository(broker.folder, {
      "flake.nix": flake(randomUUID(), `{ default = mk "slow" [ ] "echo ready; sleep ${mark};"; }`),
    });
    const job = await broker.submit("build", {
      task: { kind: "nix-build", installables: [".#default"] },
      source: { repository: repository.url, commit: repository.commit },
    });
    await broker.until(job.id, () => processesWith(`sleep ${mark}`) !== "", 30_000);
    await broker.ask(cancelJob, { params: { job: job.id }, body: {} });
    expect((await broker.until(job.id)).job.state).toBe("cancelled");
    expect(processesWith(`sleep ${mark}`)).toBe("");
  });

  it("goes back to the queue when the source cannot be reached, and says so at the end", async () => {
    const job = await broker.submit("missing", {
      task: { kind: "repository" },
      source: { repository: `file://${broker.folder}/nothing`, commit: "0".repeat(40) },
      retry: { attempts: 1 },
    });
    expect((await broker.until(job.id)).job).toMatchObject({ state: "failed", reason: { code: "source-unavailable" } });
  });
});

describe("a shell job inside Nix", () => {
  /** A tool that prints a word, and a development shell whose environment has one: without nixpkgs, so that it works offline. */
  const tools = (salt: string): string => `{
    outputs = { self }: {
      packages.x86_64-linux.tool = derivation {
        name = "tool"; system = "x86_64-linux"; builder = "/bin/sh";
        args = [ "-c" "export PATH=/usr/bin:/bin; mkdir -p $out/bin; printf '#!/bin/sh\\necho grown ${salt}\\n' > $out/bin/plumule-tool; chmod +x $out/bin/plumule-tool" ];
      };
      devShells.x86_64-linux.default = derivation {
        name = "shell"; system = "x86_64-linux"; builder = "/bin/bash"; args = [ "-c" "exit 1" ];
        GREETING = "${salt}"; PATH = "/usr/bin:/bin"; outputs = [ "out" ];
        stdenv = self.packages.x86_64-linux.setup;
      };
      packages.x86_64-linux.setup = derivation { name = "setup"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "export PATH=/usr/bin:/bin; mkdir $out; echo : > $out/setup" ]; };
    };
  }`;

  it("finds the packages that it asks for", async () => {
    const salt = randomUUID();
    const repository = await makeRepository(broker.folder, { "flake.nix": tools(salt) });
    const job = await broker.submit("nix-shell", {
      task: { kind: "shell", script: "plumule-tool", packages: [".#tool"] },
      source: { repository: repository.url, commit: repository.commit },
    });
    const { job: done, runs } = await broker.until(job.id, undefined, 60_000);
    expect(await broker.log(runs[0]!.id)).toContain(`grown ${salt}`);
    expect(done.state).toBe("succeeded");
  });

  it("has the environment of the flake's development shell", async () => {
    const salt = randomUUID();
    const repository = await makeRepository(broker.folder, { "flake.nix": tools(salt) });
    const job = await broker.submit("nix-develop", {
      task: { kind: "shell", script: 'echo "greeting $GREETING"', develop: "." },
      source: { repository: repository.url, commit: repository.commit },
    });
    const { job: done, runs } = await broker.until(job.id, undefined, 60_000);
    expect(await broker.log(runs[0]!.id)).toContain(`greeting ${salt}`);
    expect(done.state).toBe("succeeded");
  });
});

function keyOf(did: string): Uint8Array {
  const parsed = parseDidKey(did);
  if (!parsed.ok) throw new Error(parsed.detail);
  return parsed.value;
}
