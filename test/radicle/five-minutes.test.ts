import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { setApart } from "../../cli/src/demo/radicle-node.ts";
import { pidsAbout } from "../support/command-line.ts";

const root = join(import.meta.dirname, "../..");
const text = readFileSync(join(root, "docs/radicle.md"), "utf8");
const blocks = (language: string): string[] =>
  [...text.matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, "g"))].map(([, block]) => block ?? "");
const [install = "", identity = "", node = "", broker = "", bridge = "", patch = ""] = blocks("sh");
const [, command = "", header = ""] = /^\$ (.*)\n(.*)\n/.exec(blocks("console")[0] ?? "") ?? [];
const WITHIN = { timeout: 120_000, interval: 200 };

let home: string;
let env: NodeJS.ProcessEnv;
const open: { child: ChildProcess; closed: Promise<unknown> }[] = [];

beforeAll(() => {
  // As short as a home is: the path of the node's socket has some hundred characters.
  home = mkdtempSync(join(tmpdir(), "pm-"));
  const who = { GIT_AUTHOR_NAME: "me", GIT_AUTHOR_EMAIL: "me@example.org" };
  const committer = { GIT_COMMITTER_NAME: "me", GIT_COMMITTER_EMAIL: "me@example.org" };
  const { PATH } = process.env;
  env = { PATH, ...who, ...committer, HOME: home, TMPDIR: home, NO_COLOR: "1", PLUMULE: root };
});
afterAll(async () => {
  for (const { child } of open) process.kill(-(child.pid ?? 0), "SIGTERM");
  await Promise.all(open.map(({ closed }) => closed));
  type("rad node stop");
  await vi.waitFor(() => expect(pidsAbout(home)).toEqual([]), WITHIN);
  rmSync(home, { recursive: true, force: true });
}, 60_000);

/** Types lines into a shell that ends when one of them fails. */
function type(lines: string, cwd = home): string {
  return execFileSync("bash", ["-euo", "pipefail", "-c", lines], { cwd, env, encoding: "utf8", stdio: "pipe" });
}

/** Types lines of which the last one goes on, until it has printed something. */
async function typeAndLeave(lines: string, awaited: string): Promise<() => string> {
  const child = spawn("bash", ["-euo", "pipefail", "-c", lines], { cwd: home, env, detached: true, stdio: "pipe" });
  open.push({ child, closed: once(child, "close") });
  let printed = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  await vi.waitFor(() => expect(printed).toContain(awaited), WITHIN);
  return () => printed;
}

it("docs/radicle.md installs what the tests use", () => {
  const used = readFileSync(join(root, "scripts/radicle.mjs"), "utf8");
  const named = [...install.matchAll(/^cargo install --locked (\S+)@(\S+)$/gm)];
  expect(named).toHaveLength(4);
  for (const [, crate, version] of named) expect(used).toContain(`crate: "${crate}", version: "${version}"`);
});

it(
  "what docs/radicle.md says to type ends with a green patch, in less than five minutes",
  { timeout: 400_000 },
  async () => {
    const startedAt = performance.now();
    type(identity);
    // The one thing that it does not say: a test's node speaks with nobody.
    await setApart(join(home, ".radicle"));
    type(node);
    await typeAndLeave(broker.replace("plumule dev", "plumule dev --port 0"), "Ctrl-C");
    const bridgeSays = await typeAndLeave(bridge, "following the node");
    type(patch);
    await vi.waitFor(() => expect(bridgeSays()).toMatch(/refs\/patches\/\w+ .* → job [\w-]+ queued/), WITHIN);
    const listing = `PATH=$PLUMULE/cli:$PATH\n${command}`;
    await vi.waitFor(
      () => expect(listed(listing)).toMatch(/^z6Mk\S+ +0 +1 +0 +succeeded .* http:\S+\/j\/[\w-]+$/m),
      WITHIN,
    );
    const tookMs = performance.now() - startedAt;
    expect(listed(listing)).toContain(header);
    process.stdout.write(`from nothing to a green patch in ${Math.round(tookMs / 1_000)} s\n`);
    expect(tookMs).toBeLessThan(300_000);
  },
);

const listed = (lines: string): string => stripVTControlCharacters(type(lines, join(home, "app")));
