import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestBroker, type TestBroker } from "../support/broker.ts";

const main = join(import.meta.dirname, "../../cli/src/main.ts");
const hook = join(import.meta.dirname, "../../bridge/src/post-receive.ts");
let broker: TestBroker;
let work: string;

beforeAll(async () => {
  broker = await startTestBroker();
  work = join(broker.folder, "work");
  git(broker.folder, "init", "--quiet", "--bare", "--initial-branch=main", "site.git");
  git(broker.folder, "clone", "--quiet", "site.git", "work");
}, 60_000);
afterAll(() => broker.stop(), 60_000);

function git(cwd: string, ...args: string[]): string {
  const person = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
  const env = { PATH: process.env["PATH"], HOME: broker.folder, GIT_CONFIG_NOSYSTEM: "1" };
  const { stdout, stderr } = spawnSync("git", [...person, ...args], { cwd, env, encoding: "utf8" });
  return `${stdout}${stderr}`;
}

type Outcome = { status: number | null; out: string; err: string };
function plumule(args: readonly string[], input = ""): Outcome {
  const env = {
    ...process.env,
    NO_COLOR: "1",
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
  };
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    cwd: work,
    env,
    input,
    encoding: "utf8",
  });
  return { status, out: stdout, err: stderr };
}

function push(path: string): string {
  mkdirSync(join(work, path, ".."), { recursive: true });
  writeFileSync(join(work, path), path);
  git(work, "add", "--all");
  git(work, "commit", "--quiet", "--message", path);
  return git(work, "push", "origin", "HEAD:refs/heads/main");
}

describe("rules", { timeout: 120_000 }, () => {
  it("are written, tried and then do what was said", () => {
    const key = join(broker.folder, "key.pem");
    const did = execFileSync(process.execPath, [main, "key", "new", key], { encoding: "utf8", stdio: "pipe" }).trim();
    const task = { kind: "shell", script: "true" };
    const rule = { name: "code", refs: ["refs/heads/**", "!refs/heads/wip/**"], deployment: "site", task };
    const document = { hooks: [{ id: "git", keys: [did] }], triggers: [rule], paths: { code: ["**", "!**.md"] } };

    const unsafe = { ...document, triggers: [{ ...rule, deployment: "{brunch}" }] };
    const refused = plumule(["triggers", "set", "-"], JSON.stringify(unsafe));
    expect([refused.status, refused.err]).toEqual([2, expect.stringContaining("/triggers/0/deployment")]);
    const set = plumule(["triggers", "set", "-"], JSON.stringify(document));
    expect([set.status, set.err]).toEqual([0, expect.stringContaining("1 rule stands, version 1")]);

    const listed = plumule(["triggers", "ls", "--json"]).out;
    expect(JSON.parse(listed)).toMatchObject({ version: 1, paths: document.paths });
    expect(plumule(["triggers", "set", "-"], listed).status).toBe(0);
    const late = plumule(["triggers", "set", "-"], listed);
    expect([late.status, late.err]).toEqual([5, expect.stringContaining('"v2"')]);

    for (const [name, value] of Object.entries({ url: broker.url, namespace: "test", key }))
      git(join(broker.folder, "site.git"), "config", `plumule.${name}`, value);
    writeFileSync(
      join(broker.folder, "site.git/hooks/post-receive"),
      `#!/bin/sh\nexec '${process.execPath}' '${hook}'\n`,
      { mode: 0o755 },
    );
    expect(push("src/a")).toMatch(/→ job .* queued/);
    const about = ["triggers", "test", "--repository", `file://${broker.folder}/site.git`, "--ref", "refs/heads/main"];
    const unlike = plumule([...about, "--commit", "a".repeat(40), "--path", "README.md"]);
    expect([unlike.status, unlike.out]).toEqual([
      0,
      expect.stringContaining("✗ code  the rule does not ask for the path that changed, README.md"),
    ]);
    expect(push("README.md")).toContain("the rule does not ask for the path that changed, README.md");
    expect(plumule([...about, "--path", "src/b"]).out).toMatch(
      /nothing starts: the same push came as delivery [^]*✓ code → site {2}a job/,
    );
    expect(push("src/b")).toMatch(/→ job .* queued/);
    const unsaid = plumule(["triggers", "test", "--ref", "refs/heads/main"]);
    expect([unsaid.status, unsaid.err]).toEqual([2, expect.stringContaining("A push needs --repository")]);
  });
});
