import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  getCapabilities,
  getStatements,
  getTrust,
  type JobView,
  looksLikeSummary,
  putTrust,
  type RunnerId,
  sha256Hex,
  utf8,
  verifySummary,
} from "@plumule/protocol";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { makeRepository, startTestBroker, type TestBroker } from "../support/broker.ts";
import { CHROMIUM } from "../support/chromium.ts";
import { type CommandLine, startCommand } from "../support/command-line.ts";
import { lyingFetch } from "../support/lying-runner.ts";

let broker: TestBroker;
const runners: Record<string, RunnerId> = {};

/**
 * The runners share one private Nix store: where a store lies is part of every path, and only an installed Nix has the same place on every
 * machine. What each of them says of a path it hashes itself.
 */
async function startRunner(name: string, through?: typeof fetch): Promise<void> {
  runners[name] = (await broker.startRunner({ name }, through)).id;
}

let shoot = "";

beforeAll(async () => {
  execFileSync(process.execPath, ["scripts/page.mjs"]);
  broker = await startTestBroker();
  await startRunner("king");
  await startRunner("queen");
  await startRunner("jack", lyingFetch(join(broker.folder, "jack", "key.pem")));
});
afterAll(() => broker?.stop());

async function trust(operators: Record<string, string>): Promise<void> {
  const now = await broker.ask(getTrust, {});
  if (!now.ok || now.answer.body === null) throw new Error("no policy");
  const { version } = now.answer.body;
  const signers = Object.entries(operators).map(([name, operator]) => ({ key: runners[name] ?? "", operator }));
  const put = await broker.ask(putTrust, {
    body: { version: version + 1, signers, rules: [] },
    headers: { "if-match": `"v${version}"` },
  });
  if (!put.ok) throw new Error(put.problem.detail);
}

async function plumule(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const command: CommandLine = startCommand(args, {
    HOME: broker.folder,
    XDG_CONFIG_HOME: broker.folder,
    PLUMULE_URL: broker.url,
    PLUMULE_NAMESPACE: "test",
    PLUMULE_TOKEN: broker.token,
  });
  const code = await command.done;
  return { code, out: command.out(), err: command.err() };
}

async function submitBuild(deployment: string, quorum: { replicas: number; agree: number }): Promise<JobView> {
  const flake = `{ outputs = { self }: { packages.x86_64-linux.default = derivation {
    name = "shoot"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo ${randomUUID()} > $out" ];
  }; }; }`;
  const repository = await makeRepository(broker.folder, { "flake.nix": flake });
  return broker.submit(deployment, {
    task: { kind: "nix-build", installables: [".#default"] },
    source: { repository: repository.url, commit: repository.commit },
    quorum: { ...quorum, distinct: "operator" },
  });
}

it("finds a liar among three runners, blocks until a fourth breaks the tie, and proves it all to somebody offline", async () => {
  await trust({ king: "north", queen: "south", jack: "east" });
  const { id } = await submitBuild("shoot", { replicas: 3, agree: 3 });
  shoot = id;
  const blocked = await broker.until(id, ({ job }) => job.quorum?.voteCount === 3, 90_000);
  expect(blocked.job).toMatchObject({ state: "running", quorum: { verdict: "diverged", replicas: 4, openCount: 1 } });
  expect(blocked.job.waiting?.detail).toMatch(/^Needs 1 more different runner\./);
  expect(blocked.verdict?.differing).toMatchObject([{ name: "out", versions: [{}, { narHash: "f".repeat(64) }] }]);

  await startRunner("ace");
  await trust({ king: "north", queen: "south", jack: "east", ace: "west" });
  // A new vote is asked of whoever the policy names by then.
  const done = await broker.until(id, undefined, 90_000);
  expect(done.job).toMatchObject({ state: "succeeded", quorum: { verdict: "agreed", agreeing: 3, voteCount: 4 } });
  expect(done.verdict?.votes.find(({ signer }) => signer === runners["jack"])?.group).toBe(1);
  expect(new Set(done.runs.map(({ runner }) => runner)).size).toBe(4);
  expect(done.runs.map(({ log }) => log.state)).toEqual(["complete", "complete", "complete", "complete"]);

  const signed = await broker.until(id, ({ summary }) => summary !== undefined);
  const answer = await broker.ask(getStatements, { params: { job: id } });
  const bundle = answer.ok ? await answer.response.text() : "";
  const lines = bundle.trim().split("\n");
  const envelopes = lines.map((line) => JSON.parse(line) as unknown);
  const about = await broker.ask(getCapabilities, {});
  const policy = await broker.ask(getTrust, {});
  if (!about.ok || !policy.ok || policy.answer.body === null) throw new Error("no answer");
  const { brokerKey } = about.answer.body;
  const verified = await verifySummary(signed.summary, {
    brokers: [brokerKey ?? ""],
    envelopes: envelopes.filter((envelope) => !looksLikeSummary(envelope)),
    policy: policy.answer.body,
  });
  expect(verified.checks.filter(({ ok }) => !ok)).toEqual([]);
  expect(verified.summary?.predicate.verifiedLevels).toContain("SLSA_BUILD_REPRODUCED");
  // The digests can be made with sha256sum: of a line of the bundle, and of what GET …/trust answers.
  const digests = new Set(await Promise.all(lines.map((line) => sha256Hex(utf8(line)))));
  for (const { digest } of verified.summary?.predicate.inputAttestations ?? [])
    expect(digests).toContain(digest.sha256);
  const raw = await fetch(`${broker.url}/v1/test/trust`, { headers: { authorization: `Bearer ${broker.token}` } });
  const trustText = await raw.text();
  expect(verified.summary?.predicate.policy.digest.sha256).toBe(await sha256Hex(utf8(trustText)));

  const shown = await plumule("get", id);
  expect([shown.code, shown.out]).toEqual([0, expect.stringMatching(/out differs[\s\S]*sha256:f{64} {2}1 vote/)]);
  const file = join(broker.folder, "shoot.intoto.jsonl");
  await writeFile(file, bundle);
  const trusting = ["king", "queen", "jack"].flatMap((name) => ["--trust", runners[name] ?? ""]);
  const offline = await plumule("verify", file, "--offline", "--quorum", "2", ...trusting);
  expect([offline.code, offline.err]).toEqual([0, expect.stringContaining("agreed by keys that you pinned: 2")]);
  const three = await plumule("verify", file, "--offline", "--quorum", "3", ...trusting);
  expect([three.code, three.err]).toEqual([8, expect.stringContaining("diverged by keys that you pinned")]);
  await writeFile(join(broker.folder, "policy.json"), trustText);
  const byPolicy = await plumule(
    "verify",
    file,
    "--offline",
    "--quorum",
    "3",
    "--policy",
    join(broker.folder, "policy.json"),
  );
  expect([byPolicy.code, byPolicy.err]).toEqual([0, expect.stringContaining("agreed by your policy: 3")]);
  expect((await plumule("verify", "--equivocation", file)).code).toBe(0);
});

it.skipIf(CHROMIUM === undefined)(
  "shows the matrix on the page, counted again in the browser, on a small screen, light and dark",
  async () => {
    const browser = await chromium.launch({ executablePath: CHROMIUM ?? "", args: ["--no-sandbox"] });
    try {
      for (const colorScheme of ["light", "dark"] as const) {
        const context = await browser.newContext({ colorScheme, viewport: { width: 360, height: 800 } });
        const page = await context.newPage();
        const complaints: string[] = [];
        page.on("console", (message) => complaints.push(message.text()));
        await page.goto(`${broker.url}/j/${shoot}#ns=test&token=${broker.token}`);
        await page.getByText("This browser verified 8 signed statements and came to the same verdict.").waitFor();
        const votes = page.getByRole("table", { name: "Votes" }).getByRole("row");
        expect(await votes.count()).toBe(5);
        expect(await votes.filter({ hasText: "jack" }).textContent()).toBe("Bjackeastyes");
        expect(await page.getByText("out differs").isVisible()).toBe(true);
        expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
        expect(complaints).toEqual([]);
        if (process.env["PLUMULE_SCREENSHOTS"] !== undefined)
          await page.screenshot({
            path: join(process.env["PLUMULE_SCREENSHOTS"], `votes-${colorScheme}.png`),
            fullPage: true,
          });
        await context.close();
      }
    } finally {
      await browser.close();
    }
  },
);
