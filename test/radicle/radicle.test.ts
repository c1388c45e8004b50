import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openJobCobs, type CobRun } from "@plumule/bridge";
import { type DeliveryView, listDeliveries, listJobs, listRunners, putTriggers } from "@plumule/protocol";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";
import { type CommandLine, startCommand } from "../support/command-line.ts";
import { RadicleNode } from "./radicle.ts";

const main = join(import.meta.dirname, "../../cli/src/main.ts");
const WITHIN = { timeout: 60_000, interval: 50 };

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
/** Another derivation for every commit, so that each is really built. */
const FLAKE = `{ outputs = { self }: { packages.${SYSTEM}.default = derivation {
  name = "app"; system = "${SYSTEM}"; builder = "/bin/sh"; rev = self.rev; args = [ "-c" "echo $rev > $out" ]; }; }; }
`;

let broker: TestBroker;
let folder: string;
let [alice, bob]: RadicleNode[] = [];
let work: string;
let rid: string;
const programs: ChildProcess[] = [];
const running: CommandLine[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "pr-"));
  broker = await startTestBroker();
  [alice, bob] = [new RadicleNode(folder, "alice", 18_801), new RadicleNode(folder, "bob", 18_802)];
  await Promise.all([alice.start(), bob.start()]);
  work = join(folder, "work");
  mkdirSync(work);
  alice.run(work, "git", "init", "--quiet", "--initial-branch=main");
  writeFileSync(join(work, "flake.nix"), FLAKE);
  commit("one");
  alice.run(
    work,
    "rad",
    "init",
    "--name",
    "r",
    "--description",
    "d",
    "--default-branch",
    "main",
    "--public",
    "--no-confirm",
  );
  rid = alice.run(work, "rad", ".").trim();
  bob.connect(folder, alice);
  bob.run(folder, "rad", "seed", rid, "--scope", "all");
  const seeded = join(bob.home, "storage", rid.slice("rad:".length), "refs/namespaces", alice.id, "refs/rad/sigrefs");
  // What a bridge sees first is what it starts from: the pushes that it is to tell have to come later.
  await vi.waitFor(() => expect(existsSync(seeded)).toBe(true), WITHIN);
  const keys = ["alice", "bob", "cib"].map((name) =>
    spawnSync(process.execPath, [main, "key", "new", keyFile(name)], { encoding: "utf8" }).stdout.trim(),
  );
  const put = await broker.ask(putTriggers, {
    headers: { "if-match": '"v0"' },
    body: {
      hooks: [{ id: "radicle", keys }],
      triggers: [
        {
          name: "main",
          refs: ["refs/heads/main"],
          deployment: "main",
          mode: "queue",
          task: { kind: "nix-build", installables: [".#default"] },
        },
        {
          name: "patches",
          events: ["patch"],
          refs: ["refs/patches/*"],
          deployment: "patch-{patch}",
          mode: "replace",
          task: { kind: "shell", script: "grep -q first file && sleep 600; cat file" },
        },
      ],
    },
  });
  if (!put.ok) throw new Error(JSON.stringify(put.problem));
  await broker.startRunner({ allowLocal: false, radHome: bob.home });
  const listed = await broker.ask(listRunners, { query: {} });
  const runner = listed.ok ? (listed.answer.body.items[0]?.id ?? "") : "";
  expect(await startCommand(["key", "trust", runner], { XDG_CONFIG_HOME: join(folder, "config") }).done).toBe(0);
}, 120_000);
afterAll(async () => {
  for (const { child } of running) child.kill("SIGKILL");
  await Promise.all(running.map(({ done }) => done));
  for (const program of programs) {
    if (program.exitCode !== null || program.signalCode !== null) continue;
    const ended = once(program, "exit");
    program.kill();
    await ended;
  }
  await alice?.stop();
  await bob?.stop();
  await broker?.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

const keyFile = (name: string): string => join(broker.folder, `${name}.pem`);

function commit(text: string): string {
  appendFileSync(join(work, "file"), `${text}\n`);
  alice?.run(work, "git", "add", "--all");
  alice?.run(work, "git", "commit", "--quiet", "--message", text);
  return alice?.run(work, "git", "rev-parse", "HEAD").trim() ?? "";
}

function environment(node: RadicleNode | undefined): Record<string, string> {
  return {
    ...node?.env,
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
    XDG_CONFIG_HOME: join(folder, "config"),
  };
}

async function startBridge(name: "alice" | "bob", ...flags: string[]): Promise<CommandLine> {
  const state = join(folder, `bridge-${name}`);
  const node = name === "alice" ? alice : bob;
  const bridge = startCommand(
    ["bridge", "start", "--key", keyFile(name), "--state", state, ...flags],
    environment(node),
  );
  running.push(bridge);
  await bridge.printed("following the node");
  return bridge;
}

async function deliveriesOf(after: string): Promise<DeliveryView[]> {
  const listed = await broker.ask(listDeliveries, { query: { limit: 200 } });
  return listed.ok ? listed.answer.body.items.filter((one) => one.after === after) : [];
}

async function jobOf(after: string): Promise<string> {
  return vi.waitFor(async () => {
    const made = (await deliveriesOf(after)).flatMap(({ results }) => results.flatMap(({ job }) => job ?? []));
    expect(made).toHaveLength(1);
    return made[0] ?? "";
  }, WITHIN);
}

const cobRuns = async (node: RadicleNode | undefined, oid: string): Promise<CobRun[]> =>
  (await openJobCobs(rid.slice("rad:".length), node?.home ?? "").runsOf(oid)) ?? [];

it(
  "a push makes one job through the bridges of both nodes, and its end is in a job COB that the other node has",
  { timeout: 300_000 },
  async () => {
    await startBridge("alice", "--write-cobs");
    const other = await startBridge("bob");
    const queuedMs: number[] = [];
    const announcedMs: number[] = [];
    for (const text of ["two", "three", "four"]) {
      const oid = commit(text);
      alice?.run(work, "git", "push", "--quiet", "rad", "main");
      const pushedAt = Date.now();
      const job = await jobOf(oid);
      await vi.waitFor(async () => expect(await deliveriesOf(oid), other.err()).toHaveLength(2), WITHIN);
      const { job: done, runs } = await broker.until(job);
      expect(done.state).toBe("succeeded");
      expect(runs[0]?.outputs[0]?.path).toMatch(/-app$/);
      expect(runs[0]?.statementCount).toBeGreaterThan(0);
      queuedMs.push(Date.parse(done.createdAt) - pushedAt);
      await vi.waitFor(
        async () =>
          expect(await cobRuns(bob, oid)).toMatchObject([
            { node: alice?.id, status: "succeeded", log: `${broker.url}/j/${job}` },
          ]),
        WITHIN,
      );
      announcedMs.push(Date.now() - Date.parse(done.finishedAt ?? ""));
    }
    const median = (all: number[]): number => all.toSorted((one, other) => one - other)[1] ?? Infinity;
    process.stdout.write(
      `push to queued ${median(queuedMs)} ms, result to job COB at the other node ${median(announcedMs)} ms\n`,
    );
    expect(median(queuedMs)).toBeLessThan(2_000);
    expect(median(announcedMs)).toBeLessThan(5_000);
  },
);

it("a revision of a patch takes the place of the one before, which is at work", { timeout: 120_000 }, async () => {
  alice?.run(work, "git", "checkout", "--quiet", "-b", "change");
  const first = commit("first");
  alice?.run(work, "git", "push", "--quiet", "rad", "HEAD:refs/patches");
  const superseded = await jobOf(first);
  await broker.until(superseded, "running");
  alice?.run(work, "sed", "-i", "s/first/second/", "file");
  const second = commit("more");
  alice?.run(work, "git", "push", "--quiet", "--force", "rad", "change");
  expect((await broker.until(await jobOf(second))).job.state).toBe("succeeded");
  expect((await broker.until(superseded)).job.state).toBe("superseded");
  alice?.run(work, "git", "checkout", "--quiet", "main");
});

it("a bridge that was killed brings both pushes of meanwhile, once", { timeout: 120_000 }, async () => {
  for (const { child } of running) child.kill("SIGKILL");
  await Promise.all(running.splice(0).map(({ done }) => done));
  const missed: string[] = [];
  for (const text of ["missed", "missed too"]) {
    missed.push(commit(text));
    alice?.run(work, "git", "push", "--quiet", "rad", "main");
  }
  await startBridge("alice", "--write-cobs");
  for (const oid of missed) expect((await broker.until(await jobOf(oid))).job.state).toBe("succeeded");
  for (const oid of missed)
    await vi.waitFor(async () => expect(await cobRuns(bob, oid)).toMatchObject([{ status: "succeeded" }]), WITHIN);
});

const hasHttpd = spawnSync("radicle-httpd", ["--version"]).status === 0;
it.skipIf(!hasHttpd)(
  `a bridge without a node tells what radicle-httpd serves, and makes no second job${hasHttpd ? "" : " (missing: radicle-httpd)"}`,
  { timeout: 120_000 },
  async () => {
    const seed = "http://127.0.0.1:18803";
    programs.push(
      spawn("radicle-httpd", ["--listen", seed.slice("http://".length)], { env: bob?.env ?? {}, stdio: "ignore" }),
    );
    await vi.waitFor(() => fetch(seed), WITHIN);
    const state = join(folder, "bridge-seed");
    const bridge = startCommand(
      ["bridge", "start", "--key", keyFile("cib"), "--state", state, "--seed", seed, "--repo", rid, "--poll", "1s"],
      environment(undefined),
    );
    running.push(bridge);
    await bridge.printed("what is there is history");
    const oid = commit("through a seed");
    alice?.run(work, "git", "push", "--quiet", "rad", "main");
    await bridge.printed(` ${oid.slice(0, 7)} `);
    const signers = async (): Promise<Set<string>> => new Set((await deliveriesOf(oid)).map(({ signer }) => signer));
    await vi.waitFor(async () => expect((await signers()).size).toBe(2), WITHIN);
    expect((await broker.until(await jobOf(oid))).job.state).toBe("succeeded");
  },
);

it(
  "under cib the adapter takes the job of the bridge, and cib writes the job COB of its own node",
  { timeout: 120_000 },
  async () => {
    const adapter = join(folder, "adapter");
    writeFileSync(adapter, `#!/bin/sh\nexec ${process.execPath} ${main} adapter --key ${keyFile("cib")}\n`);
    chmodSync(adapter, 0o755);
    const { PLUMULE_URL, PLUMULE_NAMESPACE, PLUMULE_TOKEN } = environment(bob);
    const config = {
      db: join(folder, "cib.sqlite"),
      report_dir: join(folder, "reports"),
      default_adapter: "plumule",
      adapters: {
        plumule: { command: adapter, env: { PLUMULE_URL, PLUMULE_NAMESPACE }, sensitive_env: { PLUMULE_TOKEN } },
      },
      filters: ["DefaultBranch"],
    };
    mkdirSync(config.report_dir);
    writeFileSync(join(folder, "cib.json"), JSON.stringify(config));
    const cib = spawn("cib", ["--config", join(folder, "cib.json"), "process-events"], {
      env: bob?.env ?? {},
      stdio: ["ignore", "ignore", "pipe"],
    });
    programs.push(cib);
    let said = "";
    cib.stderr?.on("data", (chunk: Buffer) => (said += chunk.toString()));
    await vi.waitFor(() => expect(said).toContain("queue-processor"), WITHIN);
    const oid = commit("through cib");
    alice?.run(work, "git", "push", "--quiet", "rad", "main");
    const job = await jobOf(oid);
    await vi.waitFor(
      async () =>
        expect(await cobRuns(alice, oid)).toContainEqual(
          expect.objectContaining({ node: bob?.id, status: "succeeded", log: `${broker.url}/j/${job}` }),
        ),
      WITHIN,
    );
    const jobs = await broker.ask(listJobs, { query: { commit: oid } });
    expect(jobs.ok && jobs.answer.body.items.map(({ id }) => id)).toEqual([job]);
  },
);
