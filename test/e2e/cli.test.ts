import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { createRegistration, getStatements, jobViewSchema, type JobView, type RunnerId } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";

const main = join(import.meta.dirname, "../../cli/src/main.ts");

type Ended = { code: number | null; out: string; err: string };
type Started = { child: ChildProcess; done: Promise<Ended>; printed: (text: string) => Promise<void> };

let broker: TestBroker;
let runner: RunnerId;

beforeAll(async () => {
  broker = await startTestBroker();
  runner = (await broker.startRunner({ name: "king", capacity: 4 })).id;
});
afterAll(() => broker.stop());

/** Starts `plumule` as a person does in a folder of their own, with the broker in the environment. */
function start(args: readonly string[], options: { cwd?: string; env?: Record<string, string> } = {}): Started {
  const env = {
    PATH: process.env["PATH"],
    NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"],
    HOME: broker.folder,
    NO_COLOR: "1",
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
    ...options.env,
  };
  const child = spawn(process.execPath, [main, ...args], {
    cwd: options.cwd ?? broker.folder,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const done = once(child, "close").then(([code]) => ({ code: code as number | null, out, err }));
  const printed = async (text: string): Promise<void> => {
    const ended = done.then(() => "ended");
    while (!`${out}${err}`.includes(text)) {
      const next = await Promise.race([once(child.stdout, "data"), once(child.stderr, "data"), ended]);
      if (next === "ended" && !`${out}${err}`.includes(text)) throw new Error(`never printed ${text}: ${out}${err}`);
    }
  };
  return { child, done, printed };
}

const plumule = (...args: string[]): Promise<Ended> => start(args).done;

/** What is answered at a unix socket. */
async function askSocket(socketPath: string, path: string): Promise<string> {
  const [answer] = (await once(get({ socketPath, path }), "response")) as [IncomingMessage];
  return text(answer);
}

/** Submits a script; answers the id, which is all that stdout has. */
async function submit(deployment: string, script: string, ...flags: string[]): Promise<string> {
  const { code, out, err } = await plumule("submit", deployment, "--shell", script, ...flags);
  expect([code, err]).toEqual([0, expect.stringContaining("✓ job")]);
  return out.trim();
}

describe("a job from the command line", () => {
  it("is submitted, watched, read and shown", async () => {
    const { code, out, err } = await plumule("submit", "hello", "--shell", "echo one; echo two; echo three", "--wait");
    expect(err).toContain("→ watching");
    expect(out).toMatch(/✓ succeeded/);
    expect(code).toBe(0);
    expect((await plumule("logs", "hello")).out).toBe("one\ntwo\nthree\n");
    expect((await plumule("logs", "hello", "-n", "2")).out).toBe("two\nthree\n");
    expect((await plumule("logs", "hello", "--offset", "4")).out).toBe("two\nthree\n");
    const listed = await plumule("ls", "--deployment", "hello", "--json");
    const job = jobViewSchema.parse(JSON.parse(listed.out));
    expect(job).toMatchObject({ deployment: "hello", state: "succeeded" });
    expect((await plumule("get", job.id.slice(0, 20))).out).toContain("shell: echo one; echo two; echo three");
    expect((await plumule("get", job.run!)).out).toContain("run 1  succeeded");
    expect((await plumule("watch", job.id)).code).toBe(0);
    expect((await plumule("ls", "deployments")).out).toMatch(/hello +active +r\d+ +0 +succeeded/);
  });

  it("is about the checkout that one stands in, when nothing else is said", async () => {
    const task = "shell: cat file\n";
    const repository = await makeRepository(broker.folder, { file: "from the commit\n", ".radicle/native.yaml": task });
    const { code, out, err } = await start(["submit", "--wait"], { cwd: repository.path }).done;
    expect([code, out]).toEqual([0, expect.stringContaining("✓ succeeded")]);
    expect(err).toContain(repository.path.split("/").at(-1));
    const logs = await start(["logs"], { cwd: repository.path }).done;
    expect(logs.out).toContain("from the commit");
    const about = await start(["get", "HEAD", "--json"], { cwd: repository.path }).done;
    expect(about.out).toContain(repository.commit);
  });

  it("fails with code 1, and why says so", async () => {
    const { code, out, err } = await plumule("submit", "broken", "--shell", "echo the end is near; exit 7", "--wait");
    expect([code, out, err]).toEqual([
      1,
      expect.stringContaining("✗ failed"),
      expect.stringContaining("→ plumule why"),
    ]);
    expect((await plumule("why", "broken")).out).toContain("the end is near");
  });

  it("is one job, however often it is submitted with the same key", async () => {
    const [first, second] = [
      await submit("once", "true", "--idempotency-key", "k1"),
      await submit("once", "true", "--idempotency-key", "k1"),
    ];
    expect(second).toBe(first);
    expect((await plumule("submit", "once", "--shell", "false", "--idempotency-key", "k1")).code).toBe(5);
  });

  it("changes nothing when it is a dry run", async () => {
    expect((await plumule("submit", "dry", "--shell", "true", "--dry-run")).err).toContain("would be");
    expect((await plumule("get", "dry")).code).toBe(4);
  });
});

describe("watching", () => {
  it("ends with 7 when the job was replaced, and the newer one goes on", async () => {
    const first = await submit("lane", "sleep 30");
    const watcher = start(["watch", first]);
    await watcher.printed("building");
    const second = await submit("lane", "true", "--replace");
    const { code, out } = await watcher.done;
    expect([code, out]).toEqual([7, expect.stringContaining(`• superseded`)]);
    expect(out).toContain(`by ${second.slice(0, 13)}`);
    expect((await plumule("watch", second)).code).toBe(0);
  });

  it("ends with 6 when the job was cancelled", async () => {
    const id = await submit("lane", "sleep 30");
    const watcher = start(["watch", "lane"]);
    await watcher.printed("building");
    expect((await plumule("cancel", id, "--reason", "not needed")).code).toBe(0);
    expect(await watcher.done).toMatchObject({ code: 6, out: expect.stringContaining("not needed") });
  });

  it("lets go at Ctrl-C with 130; the job goes on", async () => {
    const id = await submit("lane", "sleep 3; echo survived");
    const watcher = start(["watch", id]);
    await watcher.printed("building");
    watcher.child.kill("SIGINT");
    expect(await watcher.done).toMatchObject({
      code: 130,
      err: expect.stringContaining(`plumule cancel ${id.slice(0, 13)}`),
    });
    expect((await broker.until(id)).job.state).toBe("succeeded");
  });

  it("ends with 124 when its time is over, and with 9 when no runner can do the job", async () => {
    const slow = await plumule("submit", "slow", "--shell", "sleep 30", "--wait", "--timeout", "1");
    expect([slow.code, slow.err]).toEqual([124, expect.stringContaining("the time is over")]);
    const never = await plumule(..."submit never --shell true --system riscv64-linux --wait --timeout 1".split(" "));
    expect([never.code, never.out]).toEqual([9, expect.stringContaining("riscv64-linux")]);
    const why = await plumule("why", "never");
    expect(why.out).toMatch(/nearest +\S+ lacks .*riscv64-linux/);
    const name = /^ {2}(\S+) +lacks .*riscv64-linux/m.exec(why.out)?.[1] ?? "";
    const compared = (await plumule("why", "never", "--runner", name)).out;
    expect(compared).toMatch(
      /✓ +connection +online[^]*✗ +system +riscv64-linux[^]* cannot take it[^]*--system riscv64/,
    );
    expect((await plumule("why", "never", "--runner", "nobody")).code).toBe(4);
    expect((await plumule("cancel", "slow", "never")).code).toBe(0);
  });

  it("goes on after the broker was away, and misses nothing", async () => {
    const id = await submit("away", "for i in 1 2 3 4 5 6; do echo tick $i; sleep 1; done");
    const watcher = start(["watch", id, "--json"]);
    const reader = start(["logs", "-f", id]);
    await Promise.all([watcher.printed('"snapshot"'), reader.printed("tick 2")]);
    await broker.restart();
    const watched = await watcher.done;
    const lines = watched.out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { type: string; sequence?: string; exitCode?: number; job?: JobView });
    expect([watched.code, lines.at(-1)]).toMatchObject([0, { type: "end", exitCode: 0, job: { state: "succeeded" } }]);
    const sequences = lines.flatMap(({ sequence }) => (sequence === undefined ? [] : [Number(sequence)]));
    expect(sequences).toEqual([...new Set(sequences)].toSorted((left, right) => left - right));
    expect(await reader.done).toMatchObject({ code: 0, out: "tick 1\ntick 2\ntick 3\ntick 4\ntick 5\ntick 6\n" });
  });
});

describe("logs", () => {
  it("follow a job from before it starts, and let nothing of it touch the screen", async () => {
    const id = await submit("careful", "printf '\\033]0;owned\\007\\033[2Jhello\\n'", "--hold");
    const reader = start(["logs", "-f", id]);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await plumule("approve", id)).code).toBe(0);
    expect(await reader.done).toMatchObject({ code: 0, out: "hello\n" });
    expect((await plumule("logs", id, "--raw")).out).toBe("\u001b]0;owned\u0007\u001b[2Jhello\n");
  });
});

describe("verifying", () => {
  it("succeeds only with keys that the reader pinned, online and offline", async () => {
    const id = await submit("signed", "echo signed");
    await broker.until(id);
    const stranger = await plumule("verify", id);
    expect([stranger.code, stranger.err]).toEqual([8, expect.stringContaining(`plumule key trust ${runner}`)]);
    expect((await plumule("verify", id, "--trust", runner)).code).toBe(0);
    expect((await plumule("key", "trust", runner, "--name", "king")).code).toBe(0);
    const pinned = await plumule("verify", id);
    expect([pinned.code, pinned.out]).toEqual([0, expect.stringMatching(/✓ log +sha256:[0-9a-f]{64}, 7 bytes/)]);

    const answer = await broker.ask(getStatements, { params: { job: id } });
    const file = join(broker.folder, "signed.intoto.jsonl");
    await writeFile(file, answer.ok ? await answer.response.text() : "");
    const env = { PLUMULE_URL: "http://127.0.0.1:9" };
    expect((await start(["verify", file, "--offline"], { env }).done).code).toBe(0);
    const envelope = JSON.parse(await readFile(file, "utf8")) as { payload: string };
    const changed = Buffer.from(envelope.payload, "base64").toString().replace('"exitCode":0', '"exitCode":1');
    await writeFile(file, JSON.stringify({ ...envelope, payload: Buffer.from(changed).toString("base64") }));
    const tampered = await start(["verify", file, "--offline"], { env }).done;
    expect([tampered.code, tampered.err]).toEqual([8, expect.stringContaining("wrong: signature")]);
    await writeFile(file, "{ no statement }\n");
    const broken = await start(["verify", file, "--offline"], { env }).done;
    expect([broken.code, broken.err]).toEqual([8, expect.stringContaining("wrong: encoding")]);
    expect((await plumule("key", "untrust", "king")).code).toBe(0);
    expect((await plumule("verify", id)).code).toBe(8);
  });
});

describe("a person", () => {
  it("is named, logs in with a key, acts under its own name, and is logged out with the membership", async () => {
    const env = { PLUMULE_TOKEN: "", HOME: broker.folder, XDG_CONFIG_HOME: join(broker.folder, "ada") };
    const ada = (...args: string[]): Promise<Ended> =>
      start(args, { env: { ...env, PLUMULE_URL: "", PLUMULE_NAMESPACE: "" } }).done;
    const key = (await ada("key", "new", "ada.pem", "--json")).out;
    const did = (JSON.parse(key) as { key: string }).key;
    const login = ["login", "--key", "ada.pem", "--url", broker.url, "--namespace", "test"];
    const stranger = await ada(...login);
    expect([stranger.code, stranger.err]).toEqual([3, expect.stringContaining(`plumule member add ${did}`)]);

    const added = await plumule("member", "add", did, "--name", "Ada", "--deployment", "ada-*");
    expect([added.code, added.err]).toEqual([0, expect.stringContaining("Ada may log in as developer")]);
    const begun = await ada(...login);
    expect([begun.code, begun.err]).toEqual([0, expect.stringContaining("is logged in to test (ada-*) as developer")]);
    expect((await ada("submit", "ada-1", "--shell", "true")).code).toBe(0);
    const refused = await ada("submit", "web", "--shell", "true");
    expect([refused.code, refused.err]).toEqual([3, expect.stringContaining("not web")]);
    const page = await ada("open", "--print");
    expect(page.out.trim()).toMatch(new RegExp(`^${broker.url}/#ns=test&token=plu_z6Mk`));

    expect((await plumule("member", "ls")).out).toMatch(/Ada +developer +ada-\* +did:key:/);
    expect((await plumule("member", "rm", "Ada")).code).toBe(0);
    expect((await ada("submit", "ada-2", "--shell", "true")).code).toBe(3);
    expect((await ada("logout")).code).toBe(0);
    expect((await ada("logout")).code).toBe(2);
  });
});

describe("what cannot be done", () => {
  it.each<[number, string, string[], Record<string, string>]>([
    [2, "a flag that does not exist", ["ls", "--colour"], {}],
    [2, "a verb that does not exist", ["submti"], {}],
    [2, "no broker at all", ["ls"], { PLUMULE_URL: "" }],
    [2, "a field that is wrong", ["submit", "x", "--build", "--impure"], {}],
    [2, "a file of statements that is not there", ["verify", "signed.jsonl"], {}],
    [3, "a wrong token", ["ls"], { PLUMULE_TOKEN: `plm_${"a".repeat(12)}_${"b".repeat(43)}` }],
    [4, "a deployment that does not exist", ["get", "no-such-thing"], {}],
    [69, "a broker that is not there", ["ls"], { PLUMULE_URL: "http://127.0.0.1:9" }],
  ])("ends with %i: %s", async (code, _, args, env) => {
    const ended = await start(args, { env }).done;
    expect([ended.code, ended.out]).toEqual([code, ""]);
    expect(ended.err).toMatch(/next: .|error: ./);
  });

  it("ends with 5 when the lane is busy or has another revision", async () => {
    const id = await submit("busy", "sleep 20");
    const busy = await plumule("submit", "busy", "--shell", "true", "--reject");
    expect([busy.code, busy.err]).toEqual([5, expect.stringContaining(id)]);
    expect((await plumule("submit", "busy", "--shell", "true", "--if-revision", "99")).code).toBe(5);
    expect((await plumule("cancel", "busy")).code).toBe(0);
  });

  it("is JSON with --json, with the pointer of what is wrong", async () => {
    const { code, out, err } = await plumule("submit", "x", "--shell", "true", "--pool", "NO", "--json");
    expect([code, err]).toEqual([2, ""]);
    expect(JSON.parse(out)).toMatchObject({ exitCode: 2, error: { errors: [{ pointer: "/requires/pool" }] } });
  });
});

describe("the audit log from the command line", () => {
  it("is shown, kept as a file, and verified offline under the broker's key; a changed row is found", async () => {
    await plumule("token", "create", "audited", "--scope", "read");
    const shown = await plumule("audit", "ls");
    expect(shown.out).toMatch(/token\.created/);
    expect(shown.out).toMatch(/runner\.registered/);
    const kept = await plumule("audit", "ls", "--json");
    expect(kept.code).toBe(0);
    const file = join(broker.folder, "audit.jsonl");
    // The broker signs in ten minutes, or after 64 rows.
    const rows = kept.out.trim().split("\n").length;
    for (let count = rows; count < 70; count += 1) await broker.ask(createRegistration, { body: {} });
    let signed = "";
    await expect
      .poll(async () => (signed = (await plumule("audit", "ls", "--json")).out), { timeout: 15_000 })
      .toContain('"head"');
    await writeFile(file, signed);
    const { brokerKey } = (await (await fetch(`${broker.url}/v1`)).json()) as { brokerKey: string };
    const offline = { cwd: broker.folder, env: { PLUMULE_URL: "http://127.0.0.1:1" } };
    const good = await start(["audit", "verify", file, "--trust", brokerKey], offline).done;
    expect([good.code, good.err]).toEqual([
      0,
      expect.stringMatching(/✓ rows 1 to \d+ are as they were signed, from the first row/),
    ]);
    expect((await plumule("audit", "verify", "--trust", brokerKey)).code).toBe(0);
    const foreign = await start(["audit", "verify", file, "--trust", runner], offline).done;
    expect([foreign.code, foreign.err]).toEqual([8, expect.stringMatching(/the head is not believed/)]);
    await writeFile(file, signed.replace("token.created", "token.revoked"));
    const forged = await start(["audit", "verify", file, "--trust", brokerKey], offline).done;
    expect([forged.code, forged.err]).toEqual([
      8,
      expect.stringMatching(/✗ line \d+, row \d+: it follows another row/),
    ]);
  });
});

describe("looking after the fleet", () => {
  it("drains a runner by its name", async () => {
    expect((await plumule("runner", "drain", "king")).err).toContain("king gets no new work");
    expect((await plumule("runner", "ls")).out).toMatch(/king +drained/);
    expect((await plumule("runner", "undrain", "king")).code).toBe(0);
    expect((await plumule("runner", "drain", "queen")).code).toBe(4);
  });

  it("makes a token that may do what it says, until it is revoked", async () => {
    const made = await plumule("token", "create", "reader", "--scope", "read");
    const env = { PLUMULE_TOKEN: made.out.trim() };
    expect((await start(["ls"], { env }).done).code).toBe(0);
    expect((await start(["submit", "x", "--shell", "true"], { env }).done).code).toBe(3);
    expect((await plumule("token", "revoke", made.out.trim())).code).toBe(0);
    expect((await plumule("token", "ls")).out).not.toContain("reader");
  });

  it("starts a runner that registers, does one job and leaves", async () => {
    const token = (await plumule("runner", "token")).out.trim();
    const own = start([
      "runner",
      "start",
      "--registration",
      token,
      "--state",
      "own",
      "--name",
      "queen",
      "--label",
      "only=queen",
      "--health",
      join(broker.folder, "health.sock"),
      "--once",
    ]);
    await own.printed("polling");
    const status = JSON.parse(await askSocket(join(broker.folder, "health.sock"), "/status.json")) as unknown;
    expect(status).toMatchObject({ name: "queen", phase: "working", capacity: 1, runs: [] });
    const examined = await plumule("doctor", "--state", "own", "--json");
    const checks = examined.out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as object);
    for (const name of ["broker", "protocol", "clock", "registration", "key", "token"])
      expect(checks).toContainEqual(expect.objectContaining({ name, standing: "good" }));
    expect(checks).toContainEqual(expect.objectContaining({ name: "token", found: "may admin" }));
    expect((await start(["runner", "start", "--state", "own"]).done).code).toBe(5);
    expect((await plumule("submit", "hers", "--shell", "true", "--label", "only=queen", "--wait")).code).toBe(0);
    expect((await own.done).code).toBe(0);
    const key = await plumule("key", "show", "own/key.pem");
    expect((await plumule("runner", "ls", "--json")).out).toContain(key.out.trim());
  });
});

it("answers --version without loading any part of itself", async () => {
  const loads = join(broker.folder, "loads.mjs");
  // Says on standard error which files and packages Node resolves: what it does not load cannot make it wait.
  await writeFile(
    loads,
    `import { registerHooks } from "node:module";
registerHooks({ resolve: (name, context, next) => (name.startsWith("node:") || process.stderr.write(name + "\\n"), next(name, context)) });\n`,
  );
  const started = spawn(process.execPath, ["--import", loads, main, "--version"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, loaded] = await Promise.all([text(started.stdout), text(started.stderr)]);
  expect(out).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect(loaded.trim().split("\n")).toEqual([expect.stringContaining("cli/src/main.ts")]);
});
