import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readRepositorySteps } from "../../runner/src/task-file/read.ts";
import { type Step, strangersFault } from "../../runner/src/task-file/steps.ts";

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
    expect(await readRepositorySteps(checkout, undefined)).toEqual({
      found: ".radicle/plumule.yaml",
      steps: [
        { name: "test", task: { kind: "shell", script: "make test" } },
        { name: "build", task: { kind: "nix-build", installables: [".#a", ".#b"] } },
      ],
    });
  });

  it("is the native file of radicle-native-ci next, then the flake", async () => {
    await write("flake.nix", "{ }");
    expect(await readRepositorySteps(checkout, undefined)).toEqual({
      found: "flake.nix",
      steps: [{ name: "flake", task: { kind: "flake" } }],
    });
    await write(".radicle/native.yaml", "shell: |\n  make\n");
    expect(await readRepositorySteps(checkout, undefined)).toEqual({
      found: ".radicle/native.yaml",
      steps: [{ name: "native", task: { kind: "shell", script: "make\n" } }],
    });
  });

  it("is one job by name when the submit asks for it", async () => {
    await write(".radicle/plumule.yaml", "jobs: { a: { shell: x }, b: { shell: y } }");
    expect(await readRepositorySteps(checkout, "b")).toMatchObject({ steps: [{ name: "b" }] });
    expect(await readRepositorySteps(checkout, "c")).toMatchObject({
      refused: "task-invalid",
      detail: expect.stringContaining("it has a, b"),
    });
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
      readRepositorySteps(checkout, undefined).catch((error: unknown) => ({ thrown: String(error) })),
    ).resolves.toMatchObject({ refused: "task-invalid" });
  });

  it("is refused when the file is a link, which could lead out of the checkout", async () => {
    await mkdir(join(checkout, ".radicle"));
    await symlink("/etc/hostname", join(checkout, ".radicle/plumule.yaml"));
    expect(await readRepositorySteps(checkout, undefined)).toMatchObject({ refused: "task-invalid" });
  });

  it("is nothing when there is no file at all: a green job that ran nothing would be a lie", async () => {
    expect(await readRepositorySteps(checkout, undefined)).toMatchObject({ refused: "nothing-to-do" });
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

  it.each<[string, Step["task"]]>([
    ["effect", { kind: "effect", installable: ".#deploy" }],
    ...["secrets", "locks", "isolation", "timeouts", "pool", "requires", "anything"].map(
      (field): [string, Step["task"]] => [field, { kind: "shell", script: "make", [field]: "x" }],
    ),
  ])("may not ask for %s", (field, task) => {
    expect(strangersFault({ name: "x", task })).toContain(field);
  });
});
