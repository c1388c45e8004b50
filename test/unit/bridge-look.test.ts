import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Seen } from "../../bridge/src/core/moves.ts";
import { readFollowed } from "../../bridge/src/followed.ts";
import { look, type Look, type Telling } from "../../bridge/src/look.ts";
import { openRepository } from "../../bridge/src/storage.ts";
import { newPerson, type Person, type RepositoryKind, StorageRepository } from "../support/radicle.ts";

const ZEROS = "0".repeat(40);
const telling: Telling = {
  audience: "https://broker.example/v1/acme",
  seeds: ["https://seed.example"],
  followed: async () => new Set(),
  selection: { repositories: null, people: null },
};

let home: string;
let [alice, bob]: [Person, Person] = [newPerson(), newPerson()];
let repository: StorageRepository;
let seen: Seen | null;
let first: string;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "plumule-look-"));
  [alice, bob] = [newPerson(), newPerson()];
  seen = null;
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

/** Looks, and remembers what was seen, as a bridge does. */
async function lookAgain(change: Partial<Telling> = {}): Promise<Look> {
  const opened = openRepository(join(home, "storage"), repository.id);
  try {
    const found = await look(opened, seen, { ...telling, ...change }, repository.seconds * 1_000);
    seen = found.seen ?? seen;
    return found;
  } finally {
    opened.objects.close();
  }
}

/** What a look says: a line per move. */
async function told(change: Partial<Telling> = {}): Promise<string[]> {
  const name = new Map([alice, bob].map(({ did }, at) => [did, ["alice", "bob"][at]]));
  return (await lookAgain(change)).findings.map((finding) =>
    finding.push === null
      ? `${finding.move.ref}: ${finding.why}`
      : `${finding.push.type} ${finding.push.ref} ${finding.push.before?.slice(0, 7)}..${finding.push.after.slice(0, 7)} ${name.get(finding.push.author ?? "") ?? "-"}`,
  );
}

/** A repository of Alice with one commit, which was seen. */
async function open(kind: Partial<RepositoryKind> = {}): Promise<void> {
  repository = new StorageRepository(home, { delegates: [alice], ...kind });
  first = repository.commit("one");
  repository.push(alice, { "refs/heads/main": first });
  repository.setCanonical("refs/heads/main", first);
  await lookAgain({ selection: { repositories: new Set([repository.id]), people: null } });
  repository.seconds += 10;
}

const short = (oid: string): string => oid.slice(0, 7);

describe("a look at a repository", () => {
  it("takes a first clone, whatever is in it, for what was there before", async () => {
    repository = new StorageRepository(home, { delegates: [alice] });
    const commit = repository.commit("one");
    repository.push(alice, { "refs/heads/main": commit, "refs/tags/v1": commit });
    const found = await lookAgain();
    expect([found.findings, found.why]).toEqual([[], "seen for the first time: what is there is history"]);
    expect(seen?.remotes).toHaveProperty(alice.node);
    expect((await lookAgain()).seen).toBeNull();
  });

  it("tells a push with what the broker has to know of it", async () => {
    await open();
    const second = repository.commit("two\n\nmore", [first]);
    repository.push(alice, { "refs/heads/main": second });
    const { findings } = await lookAgain({ followed: async () => new Set([alice.did]) });
    expect(findings).toMatchObject([
      {
        id: expect.stringMatching(/^rad_[0-9a-f]{40}$/),
        push: {
          type: "push",
          audience: telling.audience,
          repository: `rad:${repository.id}`,
          urls: [`https://seed.example/${repository.id}.git`],
          ref: "refs/heads/main",
          before: first,
          after: second,
          author: alice.did,
          message: "two",
          delegates: [alice.did],
          followed: true,
          paths: ["file"],
        },
      },
    ]);
  });

  it("tells each of several pushes that nobody looked at in between, in their order", async () => {
    await open();
    const second = repository.commit("two", [first]);
    repository.push(alice, { "refs/heads/main": second });
    const third = repository.commit("three", [second]);
    repository.push(alice, { "refs/heads/main": third });
    expect(await told()).toEqual([
      `push refs/heads/main ${short(first)}..${short(second)} alice`,
      `push refs/heads/main ${short(second)}..${short(third)} alice`,
    ]);
    expect(await told()).toEqual([]);
  });

  it("tells branches that are made and deleted, and tags by the commits that they lead to", async () => {
    await open();
    const tag = repository.tagObject("v1", first);
    repository.push(alice, { "refs/heads/next": first, "refs/tags/v1": tag });
    expect(await told()).toEqual([
      `push refs/heads/next ${short(ZEROS)}..${short(first)} alice`,
      `tag refs/tags/v1 ${short(ZEROS)}..${short(first)} alice`,
    ]);
    repository.push(alice, { "refs/heads/next": null, "refs/tags/v1": null });
    expect(await told()).toEqual([
      `push refs/heads/next ${short(first)}..${short(ZEROS)} alice`,
      `tag refs/tags/v1 ${short(first)}..${short(ZEROS)} alice`,
    ]);
  });

  it("tells what the repository itself moves to, unless a delegate's push says the same", async () => {
    await open();
    const second = repository.commit("two", [first]);
    repository.push(alice, { "refs/heads/main": second });
    repository.setCanonical("refs/heads/main", second);
    expect(await told()).toEqual([
      `push refs/heads/main ${short(first)}..${short(second)} alice`,
      "refs/heads/main: a delegate's push says the same",
    ]);
    const third = repository.commit("three", [second]);
    repository.setCanonical("refs/heads/main", third);
    repository.setCanonical("refs/tags/v2", third);
    expect(await told()).toEqual([
      `push refs/heads/main ${short(second)}..${short(third)} -`,
      `tag refs/tags/v2 ${short(ZEROS)}..${short(third)} -`,
    ]);
  });

  it("ignores comments and labels, and does not mind refs that no job can name", async () => {
    await open();
    const comment = repository.patchOperation([{ type: "label", labels: ["x"] }], [], []);
    repository.push(alice, {
      [`refs/cobs/xyz.radicle.patch/${comment}`]: comment,
      [`refs/cobs/xyz.radicle.issue/${comment}`]: comment,
      "refs/heads/a#b": first,
      "refs/notes/commits": first,
    });
    expect(await told()).toEqual([
      "refs/cobs/xyz.radicle.issue/" + comment + ": what people say starts nothing",
      `refs/cobs/xyz.radicle.patch/${comment}: what people say about a patch starts nothing; a new revision moves its branch too`,
      "refs/heads/a#b: ref: a ref below refs/heads, refs/tags or refs/patches",
      "refs/notes/commits: only branches, tags and patches start jobs",
    ]);
  });

  it("passes over a commit from which the ref has moved on before anybody fetched it", async () => {
    await open();
    const gone = "1".repeat(40);
    repository.signRefs(alice.node, alice.privateKey, `${gone} refs/heads/main\n`, seen!.remotes[alice.node]);
    expect(await told()).toEqual(["refs/heads/main: 1111111 leads to no commit here: the ref has moved on since"]);
  });

  it("follows a history that was rewritten from what was seen", async () => {
    await open();
    const second = repository.commit("two", [first]);
    const text = `${second} refs/heads/main\n`;
    repository.signRefs(alice.node, alice.privateKey, text, undefined);
    expect(await told()).toEqual([`push refs/heads/main ${short(first)}..${short(second)} alice`]);
  });
});

describe("a patch", () => {
  const revision = (oid: string, base: string): object => ({ type: "revision", description: "", base, oid });

  it("is told when it is opened and with every revision, with what it is to be merged into", async () => {
    await open();
    const head = repository.commit("fix", [first]);
    const opened = repository.patchOperation(
      [revision(head, first), { type: "edit", title: "Fix", target: "delegates" }],
      [],
      [head, first],
    );
    const refs = { branch: `refs/heads/patches/${opened}`, object: `refs/cobs/xyz.radicle.patch/${opened}` };
    repository.push(bob, { [refs.branch]: head, [refs.object]: opened });
    const made = await lookAgain();
    expect(made.findings.filter(({ push }) => push !== null)).toMatchObject([
      {
        push: {
          type: "patch",
          ref: `refs/patches/${opened}`,
          patch: opened,
          before: ZEROS,
          after: head,
          base: first,
          author: bob.did,
          message: "fix",
        },
      },
    ]);
    const comment = repository.patchOperation([{ type: "revision.comment", body: "hm" }], [opened], []);
    repository.push(bob, { [refs.object]: comment });
    expect((await lookAgain()).findings.map(({ push }) => push)).toEqual([null]);
    const main = repository.commit("main moves", [first]);
    const better = repository.commit("fix better", [main]);
    const revised = repository.patchOperation([revision(better, main)], [comment], [better, main]);
    repository.push(bob, { [refs.branch]: better, [refs.object]: revised });
    expect((await lookAgain()).findings.filter(({ push }) => push !== null)).toMatchObject([
      { push: { type: "patch", patch: opened, before: head, after: better, base: main } },
    ]);
  });

  it("is told of a delegate who revises it in their own namespace", async () => {
    await open();
    const head = repository.commit("fix", [first]);
    const opened = repository.patchOperation([revision(head, first)], [], [head, first]);
    repository.push(bob, {
      [`refs/heads/patches/${opened}`]: head,
      [`refs/cobs/xyz.radicle.patch/${opened}`]: opened,
    });
    await lookAgain();
    const better = repository.commit("mine", [head]);
    const revised = repository.patchOperation([revision(better, first)], [opened], [better, first]);
    repository.push(alice, {
      [`refs/heads/patches/${opened}`]: better,
      [`refs/cobs/xyz.radicle.patch/${opened}`]: revised,
    });
    expect((await told()).filter((line) => line.startsWith("patch"))).toEqual([
      `patch refs/patches/${opened} ${short(ZEROS)}..${short(better)} alice`,
    ]);
  });
});

it("whom the node follows is read from its policies, and is nobody where there are none", async () => {
  expect(await readFollowed(home)).toEqual(new Set());
  mkdirSync(join(home, "node"));
  const database = new DatabaseSync(join(home, "node/policies.db"));
  database.exec(
    `CREATE TABLE following (id text primary key not null, alias text default '', policy text default 'allow') STRICT;
     INSERT INTO following VALUES ('${alice.node}', 'alice', 'allow'), ('${bob.node}', '', 'block')`,
  );
  expect(await readFollowed(home)).toEqual(new Set([alice.did]));
  database.close();
});

describe("somebody who is new to the repository", () => {
  it("has told what they push from now on, but not what they forked", async () => {
    await open();
    repository.push(bob, { "refs/heads/main": first });
    expect(await told()).toEqual(["refs/heads/main: the repository's own ref has this commit already"]);
    const own = repository.commit("mine", [first]);
    repository.push(bob, { "refs/heads/main": own });
    expect(await told()).toEqual([`push refs/heads/main ${short(first)}..${short(own)} bob`]);
  });

  it("has nothing told of what they signed before the repository was seen here", async () => {
    await open();
    repository.seconds -= 3_600;
    const old = repository.commit("long ago", [first]);
    repository.push(bob, { "refs/heads/old": old });
    repository.seconds += 3_600;
    const fresh = repository.commit("today", [first]);
    repository.push(bob, { "refs/heads/fresh": fresh });
    expect(await told()).toEqual([`push refs/heads/fresh ${short(ZEROS)}..${short(fresh)} bob`]);
  });
});

describe("signed refs", () => {
  it("count only with the signature of the node whose they are", async () => {
    await open();
    const second = repository.commit("two", [first]);
    const parent = seen!.remotes[alice.node];
    repository.signRefs(alice.node, bob.privateKey, `${second} refs/heads/main\n`, parent);
    const found = await lookAgain();
    expect(found.findings).toEqual([]);
    expect(found.faults).toEqual([expect.stringMatching(/^z6Mk.* not signed by this node$/)]);
    // What comes after is compared with what was signed before.
    repository.push(alice, { "refs/heads/main": second });
    expect(await told()).toEqual([`push refs/heads/main ${short(first)}..${short(second)} alice`]);
  });

  it("count only in their own repository, at their own place", async () => {
    await open();
    const [second, parent] = [repository.commit("two", [first]), seen!.remotes[alice.node]];
    const sign = (lines: string[]): string =>
      repository.signRefs(alice.node, alice.privateKey, `${lines.join("\n")}\n`, parent);
    sign([`${second} refs/heads/main`, `${second} refs/rad/root`]);
    expect((await lookAgain()).faults).toEqual([expect.stringContaining("signed for another repository")]);
    sign([`${second} refs/heads/main`, `${second} refs/rad/sigrefs-parent`]);
    expect((await lookAgain()).faults).toEqual([expect.stringContaining("another place in the history")]);
    sign([`${second} refs/heads/main`, "no line of a table"]);
    expect((await lookAgain()).faults).toEqual([expect.stringContaining("no list of refs")]);
  });
});

describe("what is selected", () => {
  it("leaves out people whom nobody named, but not what the repository itself moves to", async () => {
    await open();
    const selection = { repositories: null, people: new Set([bob.did]) };
    const second = repository.commit("two", [first]);
    repository.push(alice, { "refs/heads/main": second });
    repository.setCanonical("refs/heads/main", second);
    repository.push(bob, { "refs/heads/his": second });
    expect((await told({ selection })).toSorted()).toEqual(
      [
        `refs/heads/main: ${alice.did} is not one of those of --follow`,
        `push refs/heads/his ${short(ZEROS)}..${short(second)} bob`,
        `push refs/heads/main ${short(first)}..${short(second)} -`,
      ].toSorted(),
    );
  });

  it("has private repositories only by name, without public seeds, and without those who may not see them", async () => {
    await open({ allow: [] });
    const second = repository.commit("two", [first]);
    repository.push(alice, { "refs/heads/main": second });
    repository.push(bob, { "refs/heads/main": second });
    expect(await lookAgain()).toMatchObject({ seen: null, why: expect.stringContaining("private") as string });
    const selection = { repositories: new Set([repository.id]), people: null };
    const { findings } = await lookAgain({ selection });
    expect(findings).toHaveLength(2);
    const [own, other] = [alice, bob].map(({ node }) => findings.find(({ move }) => move.node === node));
    expect(own?.push).toMatchObject({ author: alice.did });
    expect(own?.push).not.toHaveProperty("urls");
    expect(other).toMatchObject({ push: null, why: expect.stringContaining("neither a delegate") as string });
  });
});
