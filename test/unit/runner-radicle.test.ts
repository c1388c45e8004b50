import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { admitUrl, type FetchUrl } from "../../runner/src/git.ts";
import { type FetchOptions, mirrorCommit, placesOf } from "../../runner/src/mirror.ts";
import { radiclePlaces, type RadiclePolicy } from "../../runner/src/radicle.ts";
import { newPerson, StorageRepository } from "../support/radicle.ts";

const [alice, bob] = [newPerson(), newPerson()];
const seed = "https://seed.example";
const { PATH } = process.env;

let home: string;
let repository: StorageRepository;
let first: string;
let policy: RadiclePolicy;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "plumule-source-"));
  policy = { home, seeds: [seed], privateRepositories: [] };
});
afterEach(() => {
  process.env["PATH"] = PATH;
  rmSync(home, { recursive: true, force: true });
});

function open(isPrivate: boolean): void {
  repository = new StorageRepository(home, { delegates: [alice], ...(isPrivate ? { allow: [] } : {}) });
  first = repository.commit("one");
  repository.push(alice, { "refs/heads/main": first });
  repository.setCanonical("refs/heads/main", first);
}

const options = (): FetchOptions => ({
  mirrors: join(home, "mirrors"),
  policy: { allowLocal: false, radicle: policy },
  timeoutMs: 20_000,
});
function mirror(commit: string, node = ""): ReturnType<typeof mirrorCommit> {
  const url = node === "" ? `rad:${repository.id}` : `rad://${repository.id}/${node}`;
  return mirrorCommit({ repository: url, commit }, options());
}
const places = (commit: string): ReturnType<typeof radiclePlaces> =>
  radiclePlaces(admitUrl(`rad:${repository.id}`, options().policy) as FetchUrl, commit, policy);

describe("a commit of rad:", () => {
  it("comes from the storage of the machine's node, by its id", async () => {
    open(false);
    expect(await mirror(first)).toMatchObject({ ok: true, fetched: true });
  });

  it("is refused when nobody has signed a ref that leads to it, although the storage has it", async () => {
    open(false);
    const loose = repository.commit("loose", [first]);
    expect(await mirror(loose)).toMatchObject({
      reason: "no-such-commit",
      detail: expect.stringContaining("signed") as string,
    });
    // A ref without a signature is no better.
    repository.git("update-ref", `refs/namespaces/${bob.node}/refs/heads/x`, loose);
    expect(await mirror(loose)).toMatchObject({ ok: false });
    const at = repository.git("rev-parse", `refs/namespaces/${alice.node}/refs/rad/sigrefs`);
    repository.signRefs(alice.node, bob.privateKey, `${loose} refs/heads/x\n`, at);
    expect(await mirror(loose)).toMatchObject({ ok: false });
    repository.push(bob, { "refs/heads/x": loose });
    expect(await mirror(loose)).toMatchObject({ ok: true });
  });

  it("counts as signed when a branch led to it before it was pushed anew, and when it lies behind a tag", async () => {
    open(false);
    const [replaced, tagged] = [repository.commit("two", [first]), repository.commit("three", [first])];
    repository.push(alice, { "refs/heads/main": replaced });
    repository.push(alice, { "refs/heads/main": first, "refs/tags/v1": repository.tagObject("v1", tagged) });
    expect(await mirror(replaced)).toMatchObject({ ok: true });
    expect(await mirror(tagged)).toMatchObject({ ok: true });
  });

  it("has to be signed by the node that the URL names", async () => {
    open(false);
    const own = repository.commit("mine", [first]);
    repository.push(bob, { "refs/heads/main": own });
    expect(await mirror(own, alice.node)).toMatchObject({ ok: false });
    expect(await mirror(own, bob.node)).toMatchObject({ ok: true });
  });

  it("of a private repository comes from the node alone, if the runner was told so, and from people who may push there", async () => {
    open(true);
    expect(await mirror(first)).toMatchObject({
      reason: "refused-url",
      detail: expect.stringContaining("--private") as string,
    });
    policy = { ...policy, privateRepositories: [`rad:${repository.id}`] };
    expect(await mirror(first)).toMatchObject({ ok: true });
    const foreign = repository.commit("foreign", [first]);
    repository.push(bob, { "refs/heads/main": foreign });
    expect(await mirror(foreign)).toMatchObject({ reason: "no-such-commit" });
    expect(await places("1".repeat(40))).toEqual({ places: [] });
  });

  it("that the node does not have yet is left to the seeds, and to nobody without them", async () => {
    open(false);
    const from = { url: `${seed}/${repository.id}.git`, protocol: "https" };
    expect(await places("1".repeat(40))).toEqual({ places: [from] });
    policy = { ...policy, seeds: [] };
    expect(await mirror("1".repeat(40))).toMatchObject({
      reason: "unreachable",
      detail: expect.stringContaining("no seed is known") as string,
    });
  });

  it("of a repository that no node here has is asked of git-remote-rad where there is one, then of the seeds", async () => {
    open(false);
    rmSync(join(home, "storage"), { recursive: true });
    const from = { url: `${seed}/${repository.id}.git`, protocol: "https" };
    process.env["PATH"] = "/nonexistent";
    expect(await places(first)).toEqual({ places: [from] });
  });
});

it("the branches of rad: are asked of the node alone: those of the repository, or of the node that the URL names", async () => {
  open(false);
  const own = repository.commit("mine", [first]);
  repository.push(bob, { "refs/heads/his": own });
  expect(await mirror(own)).toMatchObject({ ok: true });
  const asked = (url: string): ReturnType<typeof placesOf> => placesOf({ repository: url, commit: own }, options());
  expect(await asked(`rad:${repository.id}`)).toMatchObject([{ holds: false, branches: [] }]);
  await mirror(own, bob.node);
  const url = `rad://${repository.id}/${bob.node}`;
  expect(await asked(url)).toEqual([{ repository: url, holds: true, branches: ["his"] }]);
});
