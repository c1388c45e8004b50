import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Checkout, deploymentOf, findCommit, readCheckout } from "../../cli/src/checkout.ts";
import { isLocalUrl, jobRequest, type JobFlags } from "../../cli/src/job-request.ts";

let folder: string;
let checkout: Checkout;
const git = (...args: string[]): string => execFileSync("git", args, { cwd: folder, encoding: "utf8" }).trim();

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "plumule-request-"));
  git("init", "-q", "-b", "main");
  writeFileSync(join(folder, "file"), "one");
  git("add", "-A");
  git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one");
  checkout = (await readCheckout(folder))!;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const request = (
  flags: JobFlags,
  around: { checkout?: Checkout | null; isLocal?: boolean; deployment?: string | undefined } = {},
): ReturnType<typeof jobRequest> =>
  jobRequest("deployment" in around ? around.deployment : "site", flags, {
    cwd: folder,
    checkout: around.checkout ?? null,
    isLocal: around.isLocal ?? false,
  });

describe("a job put together from flags", () => {
  it("has only what was asked for", async () => {
    expect(await request({ shell: "true" }, { checkout })).toEqual({
      deployment: "site",
      body: { task: { kind: "shell", script: "true" } },
      notes: [],
    });
  });

  it("has every flag in its place", async () => {
    writeFileSync(join(folder, "config.json"), '{"domain":"a.example"}');
    const flags: JobFlags = {
      build: ["nixpkgs#hello"],
      config: "config.json",
      type: "mastodon",
      replace: true,
      interrupt: "never",
      priority: "high",
      system: ["x86_64-linux"],
      feature: ["kvm"],
      label: ["site=a"],
      isolation: "bwrap",
      pool: "big",
      maxMemory: 512 * 1024 ** 2,
      maxTasks: 100,
      maxWorkspace: 1024 ** 3,
      maxLog: 1024 ** 2,
      hold: true,
      summary: "more",
      env: { A: "b" },
    };
    expect(await request(flags)).toMatchObject({
      body: {
        task: { kind: "nix-build", installables: ["nixpkgs#hello"] },
        configuration: { domain: "a.example" },
        type: "mastodon",
        mode: "replace",
        interrupt: "never",
        priority: "high",
        requires: { systems: ["x86_64-linux"], features: ["kvm"], labels: ["site=a"], isolation: "bwrap", pool: "big" },
        limits: { memoryBytes: 536_870_912, taskCount: 100, workspaceBytes: 1_073_741_824, logBytes: 1_048_576 },
        hold: true,
        summary: "more",
        env: { A: "b" },
      },
    });
  });

  it("reads a script from a file", async () => {
    writeFileSync(join(folder, "job.sh"), "echo from a file");
    expect(await request({ shell: "@job.sh" })).toMatchObject({ body: { task: { script: "echo from a file" } } });
  });

  it("is about the commit of the checkout when the task needs one, and names the lane by its folder", async () => {
    const radicle = { ...checkout, repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5" };
    const source = { repository: radicle.repository, commit: checkout.commit, ref: "refs/heads/main" };
    expect(await request({}, { checkout: radicle, deployment: undefined })).toEqual({
      deployment: deploymentOf(checkout),
      body: { task: { kind: "repository" }, source },
      notes: [],
    });
    expect(await request({ build: [".#default"] }, { checkout: radicle })).toMatchObject({ body: { source } });
  });

  it("uses the folder itself where broker and runner are on this machine", async () => {
    expect(await request({ task: "test" }, { checkout, isLocal: true })).toMatchObject({
      body: { task: { kind: "repository", task: "test" }, source: { repository: `file://${checkout.root}` } },
    });
    expect(await request({ repository: true }, { checkout })).toMatchObject({
      exit: 2,
      what: expect.stringContaining("can be fetched"),
    });
  });

  it("says when changes are not committed", async () => {
    const dirty = { ...checkout, dirty: true };
    expect(await request({ repository: true }, { checkout: dirty, isLocal: true })).toMatchObject({
      notes: [expect.stringContaining("not committed")],
    });
    expect(await request({ shell: "true" }, { checkout: dirty })).toMatchObject({ notes: [] });
  });

  it("takes a commit by any name that git knows, and its branch only if it is the one checked out", async () => {
    const flags = { shell: "true", source: "https://git.example/a", commit: "main", ref: "stable" };
    expect(await request(flags, { checkout })).toMatchObject({
      body: { source: { repository: "https://git.example/a", commit: checkout.commit, ref: "refs/heads/stable" } },
    });
    expect(await request({ ...flags, commit: "nope" }, { checkout })).toMatchObject({
      exit: 2,
      what: expect.stringContaining("nope"),
    });
  });

  it.each<[string, JobFlags, string]>([
    ["no task outside of a checkout", {}, "No task"],
    ["two tasks", { shell: "true", build: ["x"] }, "More than one task"],
    ["two modes", { shell: "true", replace: true, latest: true }, "More than one mode"],
    ["a repository without commit", { repository: true, source: "https://git.example/a" }, "needs a commit"],
    ["a file that is not there", { shell: "@gone.sh" }, "gone.sh cannot be read"],
    ["a configuration that is no JSON", { shell: "true", config: "file" }, "file is not JSON"],
  ])("is refused with %s", async (_, flags, what) =>
    expect(await request(flags)).toMatchObject({ exit: 2, what: expect.stringContaining(what) }),
  );

  it("is refused with a pointer to what is wrong in it", async () => {
    expect(await request({ build: ["--impure"] })).toMatchObject({
      exit: 2,
      errors: [{ pointer: "/task/installables/0" }],
    });
  });
});

describe("the checkout around a folder", () => {
  it("is what git says of it", async () => {
    expect(checkout).toEqual({
      root: git("rev-parse", "--show-toplevel"),
      commit: git("rev-parse", "HEAD"),
      ref: "refs/heads/main",
      dirty: false,
      repository: null,
    });
    git("remote", "add", "origin", "git@example.org:a.git");
    expect((await readCheckout(folder))?.repository).toBeNull();
    git("remote", "set-url", "origin", "https://git.example/a.git");
    expect((await readCheckout(folder))?.repository).toBe("https://git.example/a.git");
    git("remote", "add", "rad", "rad://z3gqcJUoA1n9HaHKufZs5FCSGazv5/z6MkvXqBsnj3nFG3Gzihxosmauw1cqBrVduEzed6yQhodNbd");
    expect((await readCheckout(folder))?.repository).toBe("rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5");
    writeFileSync(join(folder, "file"), "two");
    expect((await readCheckout(folder))?.dirty).toBe(true);
    expect(await readCheckout(tmpdir())).toBeNull();
  });

  it("never takes an option for a commit", async () => {
    expect(await findCommit(folder, "--help")).toBeNull();
    expect(await findCommit(folder, "HEAD")).toBe(checkout.commit);
  });

  it.each([
    ["/a/site", "site"],
    ["/a/My site!", "My-site-"],
    ["/a/.hidden", "hidden"],
    ["/", null],
  ])("names the lane of %s %s", (root, name) => expect(deploymentOf({ root })).toBe(name));
});

it.each([
  ["http://localhost:8787", true],
  ["http://127.0.0.1:1", true],
  ["http://[::1]:1", true],
  ["https://plumule.example", false],
  ["http://localhost.evil.example", false],
])("%s is local: %s", (url, local) => expect(isLocalUrl(url)).toBe(local));
