import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readRepositorySteps, readTaskFile, type Wanted } from "../../runner/src/task-file/read.ts";
import type { Step } from "../../runner/src/task-file/steps.ts";
import { strangersFault } from "../../runner/src/task-file/strangers.ts";

let checkout: string;
beforeEach(async () => {
  checkout = await mkdtemp(join(tmpdir(), "plumule-task-file-"));
});
afterEach(() => rm(checkout, { recursive: true, force: true }));

/** Eight lists, each of ten aliases of the one before: a hundred million items in half a kilobyte. */
const unfolding = (): string => {
  const names = ["a", "b", "c", "d", "e", "f", "g", "h"];
  const lists = names.map(
    (name, index) =>
      `${name}: &${name} [${Array(10)
        .fill(index === 0 ? "x" : `*${names[index - 1]}`)
        .join(",")}]`,
  );
  return `${lists.join("\n")}\njobs: *h\n`;
};

const write = async (path: string, text: string): Promise<void> => {
  await mkdir(dirname(join(checkout, path)), { recursive: true });
  await writeFile(join(checkout, path), text);
};

describe("the work that a repository describes", () => {
  it("is its own file first, in the order of the file", async () => {
    await write(".radicle/plumule.yaml", "jobs:\n  test:\n    shell: make test\n  build:\n    build: [.#a, .#b]\n");
    await write(".radicle/native.yaml", "shell: make\n");
    expect(await readRepositorySteps(checkout, {})).toEqual({
      found: ".radicle/plumule.yaml",
      steps: [
        { name: "test", task: { kind: "shell", script: "make test" } },
        { name: "build", task: { kind: "nix-build", installables: [".#a", ".#b"] } },
      ],
      schedules: {},
    });
  });

  it("is the native file of radicle-native-ci next, then the flake", async () => {
    await write("flake.nix", "{ }");
    expect(await readRepositorySteps(checkout, {})).toEqual({
      found: "flake.nix",
      steps: [{ name: "flake", task: { kind: "flake" } }],
      schedules: {},
    });
    await write(".radicle/native.yaml", "shell: |\n  make\n");
    expect(await readRepositorySteps(checkout, {})).toEqual({
      found: ".radicle/native.yaml",
      steps: [{ name: "native", task: { kind: "shell", script: "make\n" } }],
      schedules: {},
    });
  });

  it("is one job by name when the submit asks for it", async () => {
    await write(".radicle/plumule.yaml", "jobs: { a: { shell: x }, b: { shell: y } }");
    expect(await readRepositorySteps(checkout, { job: "b" })).toMatchObject({ steps: [{ name: "b" }] });
    expect(await readRepositorySteps(checkout, { job: "c" })).toMatchObject({
      refused: "task-invalid",
      detail: expect.stringContaining("it has a, b"),
    });
  });

  it("leaves out what is for schedules alone, unless one of them is asked for", async () => {
    await write(
      ".radicle/plumule.yaml",
      `schedules:
  nightly: { cron: "0 3 * * *", jobs: deep }
  weekly: { cron: "0 4 * * sun" }
jobs:
  test: { shell: x }
  lint: { shell: y }
  deep: { on: schedule, shell: z, needs: lint }
`,
    );
    const names = async (wanted: Wanted): Promise<unknown> => {
      const read = await readRepositorySteps(checkout, wanted);
      return "refused" in read ? read.detail : read.steps.map(({ name }) => name);
    };
    expect(await names({})).toEqual(["test", "lint"]);
    expect(await names({ schedule: "nightly" })).toEqual(["lint", "deep"]);
    expect(await names({ schedule: "weekly" })).toEqual(["test", "lint", "deep"]);
    expect(await names({ job: "deep" })).toEqual(["lint", "deep"]);
    expect(await names({ schedule: "constructor" })).toBe(
      ".radicle/plumule.yaml has no schedule `constructor`; it has nightly, weekly.",
    );
  });

  it.each([
    ["an unknown field", "jobs: { a: { shell: x, sudo: true } }"],
    ["no jobs", "jobs: {}"],
    ["a name that is none", "jobs: { 'A B': { shell: x } }"],
    ["an installable that is an option", "jobs: { a: { build: --impure } }"],
    ["no YAML", "jobs: [\n"],
    ["aliases that unfold without end", unfolding()],
  ])("is refused with %s", async (_, text) => {
    await write(".radicle/plumule.yaml", text);
    await expect(
      readRepositorySteps(checkout, {}).catch((error: unknown) => ({ thrown: String(error) })),
    ).resolves.toMatchObject({ refused: "task-invalid" });
  });

  it("is refused when the file is a link, which could lead out of the checkout", async () => {
    await mkdir(join(checkout, ".radicle"));
    await symlink("/etc/hostname", join(checkout, ".radicle/plumule.yaml"));
    expect(await readRepositorySteps(checkout, {})).toMatchObject({ refused: "task-invalid" });
  });

  it("is nothing when there is no file at all: a green job that ran nothing would be a lie", async () => {
    expect(await readRepositorySteps(checkout, {})).toMatchObject({ refused: "nothing-to-do" });
  });
});

/** Every fault of a text as `line:column: detail`. */
const faultsIn = (text: string, path = ".radicle/plumule.yaml"): string[] => {
  const reading = readTaskFile(path, text);
  return "faults" in reading ? reading.faults.map(({ line, column, detail }) => `${line}:${column}: ${detail}`) : [];
};

describe("the faults of a task file", () => {
  it.each<[string, string, string[]]>([
    ["a tab", "jobs:\n\ta: { shell: x }\n", ["2:1: a tab; YAML is indented with spaces"]],
    [
      "a name that stands twice",
      "jobs:\n  a: { shell: x }\n  b: { shell: x }\n  a: { shell: y }\n",
      ["4:3: this name stands twice"],
    ],
    [
      "two documents",
      "jobs: { a: { shell: x } }\n---\njobs: {}\n",
      ["2:1: a second document begins here; a file holds one"],
    ],
    ["an alias of nothing", "a: &a 1\nb: *a\njobs: *c\n", ["3:7: no anchor `c` stands before this"]],
    ["a tag", "jobs: !!js/function x\n", ["1:7: Unresolved tag: tag:yaml.org,2002:js/function"]],
    ["a reserved name", "jobs:\n  __proto__: { shell: x }\n", ["2:3: `__proto__` cannot be a name"]],
    ["nothing", "", ["1:1: expected object, received null"]],
    ["neither kind", "jobs:\n  a: { env: {} }\n", ["2:6: needs one of `shell`, `build` and `effect`"]],
    ["both kinds", "jobs:\n  a: { shell: x, build: .#a }\n", ["2:6: needs one of `shell`, `build` and `effect`"]],
    [
      "an environment for Nix",
      "jobs:\n  a: { build: .#a, env: { A: b } }\n",
      ["2:25: `env` is for `shell`; a build of Nix sees none of it"],
    ],
    ["a number", "jobs:\n  a: { shell: x, matrix: { v: [3.10] } }\n", ["2:32: not a text: put it in quotes"]],
    [
      "a variable of the runner",
      "jobs:\n  a: { shell: x, env: { PATH: y, NIX_PATH: y } }\n",
      [
        "2:25: `PATH`: this name is reserved for the runner; the script can export it",
        "2:34: `NIX_PATH`: this name is reserved for the runner; the script can export it",
      ],
    ],
    [
      "a circle and a job behind it",
      "jobs:\n  a: { shell: x, needs: b }\n  b: { shell: x, needs: c }\n  c: { shell: x, needs: b }\n",
      ["3:25: the jobs need each other in a circle: b needs c needs b"],
    ],
    [
      "a job that needs what is not there, and one twice",
      "jobs:\n  test: { shell: x, needs: tset }\n  b: { shell: x, needs: [test, test] }\n",
      ["2:28: there is no job `tset`; did you mean test?", "3:32: `test` stands twice"],
    ],
    [
      "a value that makes an option",
      'jobs:\n  a: { build: "{x}", matrix: { x: ["--impure"] } }\n',
      ["2:15: `--impure`: an installable without white space that does not start with a hyphen"],
    ],
    [
      "more steps than are run",
      `jobs:\n  a:\n    shell: x\n    matrix:\n${["a", "b", "c", "d", "e", "f", "g", "h"]
        .map((name) => `      ${name}: [${Array.from({ length: 64 }, (_, at) => `"${at}"`).join(",")}]\n`)
        .join("")}`,
      [`2:3: with this job the file has ${64 ** 8} steps; at most 256 are run`],
    ],
    [
      "schedules that cannot be kept",
      `schedules:
  nightly: { cron: "0 3 30 2 *", jobs: [tset], branch: trunk }
  often: { cron: 5, jobs: test }
jobs:
  test: { shell: x, needs: deep, cron: x }
  deep: { shell: x, on: schedule }
`,
      [
        "2:20: no day of any year is meant by it",
        "2:41: there is no job `tset`; did you mean test?",
        "2:48: `branch` is not a field of a schedule; did you mean branches?",
        "3:18: not a text: put it in quotes",
        "5:28: `test` is run for every push, and `deep` is for schedules alone",
        "5:34: `cron`: schedules stand beside `jobs`, and name theirs; a job that is for them alone has `on: schedule`",
      ],
    ],
    [
      "jobs that no push or no schedule runs",
      "jobs: { a: { shell: x, on: schedule }, b: { shell: x, on: push } }\n",
      ["1:28: no schedule runs it", '1:59: expected "schedule"'],
    ],
    [
      "a file without a job for a push",
      "schedules: { n: { cron: 0 3 * * * } }\njobs: { a: { shell: x, on: schedule } }\n",
      ["2:1: all are for schedules alone, which a push that succeeds brings: give one of them no `on`"],
    ],
    [
      "what the submit says, and what is no name of its kind",
      'jobs:\n  a: { shell: x, matrix: { s: [a b] }, requires: { pool: p, systems: ["{s}"] }, locks: "Host", limits: {} }\n',
      [
        "2:52: `pool`: which machines are asked is not for the file of a commit to say: give it in the trigger rule, or with `plumule submit --pool`",
        "2:88: `Host`: a-z, 0-9 and . _ : / -, starting with a letter or digit",
        "2:96: `limits`: the file of a commit cannot set them: give them with `plumule submit --max-memory|--max-tasks|--max-workspace|--max-log`",
      ],
    ],
    [
      "a place that no value makes a system",
      'jobs:\n  a: { shell: x, matrix: { s: [a b] }, requires: { systems: ["{s}"] } }\n',
      ["2:62: `a b`: 1 to 128 of A-Z, a-z, 0-9 and . _ : / = -, starting with a letter or digit"],
    ],
  ])("tell of %s, and where", (_, text, faults) => {
    expect(faultsIn(text)).toEqual(faults);
  });

  it("are told for what unfolds or nests without end, without unfolding it", () => {
    expect(faultsIn(unfolding())).toEqual(["2:8: the aliases of this file unfold into far more than it holds"]);
    expect(faultsIn(`jobs: ${"[".repeat(20_000)}`)[0]).toContain("nested too deep");
  });

  it("are found in moments in a file that was made to take long", () => {
    const names = Array.from({ length: 40_000 }, (_, index) => `k${index.toString(36)}:`).join("\n");
    expect(faultsIn(names)).toHaveLength(100);
  });

  it("are all told at once by lint, and the first by a run", async () => {
    const text = "jobs:\n  a: { shel: x }\n  b: { shell: x, limits: {}, needs: [c] }\n";
    expect(faultsIn(text)).toHaveLength(4);
    await write(".radicle/plumule.yaml", text);
    expect(await readRepositorySteps(checkout, {})).toEqual({
      refused: "task-invalid",
      detail:
        ".radicle/plumule.yaml cannot be used: line 2, column 6: needs one of `shell`, `build` and `effect` (and 3 more: `plumule lint` shows all)",
    });
  });
});

describe("the file of another tool", () => {
  it("is one of Ambient CI, as far as it is scripts, each after the one before it", async () => {
    await write(
      ".radicle/ambient.yaml",
      "pre_plan:\n  - action: shell\n    shell: a\nplan:\n  - action: shell\n    shell: b\n  - { action: shell, shell: c }\n",
    );
    expect(await readRepositorySteps(checkout, {})).toEqual({
      found: ".radicle/ambient.yaml",
      steps: [
        { name: "pre_plan-1", task: { kind: "shell", script: "a" } },
        { name: "plan-1", task: { kind: "shell", script: "b" }, needs: ["pre_plan-1"] },
        { name: "plan-2", task: { kind: "shell", script: "c" }, needs: ["plan-1"] },
      ],
      schedules: {},
    });
    await write(".radicle/native.yaml", "shell: n\n");
    expect(await readRepositorySteps(checkout, {})).toMatchObject({ found: ".radicle/native.yaml" });
  });

  it("is one of Ambient CI with actions that are one command of cargo", async () => {
    await write(".radicle/ambient.yaml", "pre_plan: [{ action: cargo_fetch }]\nplan: [{ action: cargo_fmt }]\n");
    expect(await readRepositorySteps(checkout, {})).toMatchObject({
      steps: [
        { name: "pre_plan-1", task: { kind: "shell", script: expect.stringContaining("cargo fetch --locked") } },
        { name: "plan-1", task: { kind: "shell", script: "cargo fmt --check" }, needs: ["pre_plan-1"] },
      ],
    });
    expect(faultsIn("plan:\n  - { action: cargo_fmt, shel: x }\n", "ambient.yaml")[0]).toMatch(/`shel` is not done/);
  });

  it("is refused where it asks for what is not done here", () => {
    expect(faultsIn("plan:\n  - action: dput\n  - action: deb\n", "x/ambient.yaml")).toEqual([
      "2:13: `dput` is done by Ambient itself and not here: write it as `action: shell` with the command in `shell`",
      "3:13: `deb` is done by Ambient itself and not here: write it as `action: shell` with the command in `shell`",
    ]);
    expect(faultsIn("plan: []\n", "ambient.yaml")).toEqual(["1:1: no plan has an action"]);
    expect(faultsIn("image: x\nplan:\n  - { action: shell, shel: x }\n", "ambient.yaml")[0]).toMatch(
      /^1:1: `image` is not/,
    );
    expect(faultsIn("plan:\n  - { action: shell }\n", "ambient.yaml")[0]).toMatch(/^2:5: expected string/);
    expect(faultsIn("shell: x\nimage: y\n", "native.yaml")[0]).toMatch(/^2:1: `image` is not done here/);
  });
});

describe("a step that a stranger wrote", () => {
  it.each<[string, Step["task"]]>([
    ["a script", { kind: "shell", script: "make", develop: "." }],
    ["a script with packages", { kind: "shell", script: "make", packages: ["nixpkgs#gnumake"] }],
    ["a build", { kind: "nix-build", installables: [".#a"] }],
    ["whatever the flake offers", { kind: "flake" }],
  ])("may be %s", (_, task) => {
    expect(strangersFault({ name: "x", task })).toBeNull();
  });

  it("may have an environment, a matrix, needs, and less time", async () => {
    await write(
      ".radicle/plumule.yaml",
      "jobs: { b: { shell: x }, a: { shell: x, needs: b, env: { A: b }, matrix: { c: [d] }, timeouts: { runMs: 1 } } }",
    );
    const read = await readRepositorySteps(checkout, {});
    const asking = Object.assign({ name: "x", task: { kind: "flake" as const } }, { pool: "own" });
    expect("steps" in read && read.steps.map(strangersFault)).toEqual([null, null]);
    expect(strangersFault(asking)).toContain("pool");
  });

  it.each<[string, Step["task"]]>([
    ["effect", { kind: "effect", installable: ".#deploy" }],
    ...["secrets", "locks", "isolation", "timeouts", "pool", "requires", "anything"].map(
      (field): [string, Step["task"]] => [field, { kind: "shell", script: "make", [field]: "x" }],
    ),
  ])("may not ask for %s", (field, task) => {
    expect(strangersFault({ name: "x", task })).toContain(field);
  });
});
