import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { didKeyOf } from "@plumule/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mirrorCommit } from "../../runner/src/mirror.ts";
import { commitSigner } from "../../runner/src/secrets/commit-signature.ts";
import { gatherFacts } from "../../runner/src/secrets/facts.ts";

const scratch = mkdtempSync(join(tmpdir(), "plumule-facts-"));
const [upstream, fork, keys] = [join(scratch, "upstream"), join(scratch, "fork"), join(scratch, "keys")];
const options = { mirrors: join(scratch, "mirrors"), policy: { allowLocal: true }, timeoutMs: 30_000 };
const commits: Record<"plain" | "signed" | "stranger" | "elsewhere", string> = {
  plain: "",
  signed: "",
  stranger: "",
  elsewhere: "",
};
let delegate = "";

const git = (cwd: string, ...args: string[]): string =>
  execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@b", ...args], {
    cwd,
    encoding: "utf8",
    env: { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" },
  }).trim();
const commit = (cwd: string, message: string, ...flags: string[]): string => {
  git(cwd, "commit", "--quiet", "--allow-empty", "-m", message, ...flags);
  return git(cwd, "rev-parse", "HEAD");
};
const signing = ["-c", "gpg.format=ssh", "-c", `user.signingKey=${keys}/key`];

beforeAll(() => {
  execFileSync("mkdir", [upstream, fork, keys]);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", join(keys, "key")]);
  const blob = Buffer.from(readFileSync(join(keys, "key.pub"), "utf8").split(" ")[1] ?? "", "base64");
  delegate = didKeyOf(new Uint8Array(blob.subarray(-32)));
  git(upstream, "init", "--quiet", "-b", "main");
  git(upstream, "config", "uploadpack.allowAnySHA1InWant", "true");
  commits.plain = commit(upstream, "plain");
  git(upstream, ...signing, "commit", "--quiet", "--allow-empty", "-S", "-m", "signed\n\ngpgsig is a word here");
  commits.signed = git(upstream, "rev-parse", "HEAD");
  git(upstream, "checkout", "--quiet", "--detach");
  commits.stranger = commit(upstream, "a patch that nobody took in");
  git(upstream, "update-ref", "refs/patches/1", commits.stranger);
  git(upstream, "checkout", "--quiet", "main");
  git(fork, "clone", "--quiet", upstream, ".");
  commits.elsewhere = commit(fork, "on main of a fork");
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("the signer of a commit", () => {
  const read = (oid: string): string => `${git(upstream, "cat-file", "commit", oid)}\n`;

  it("is the key that git's SSH signature is of", async () => {
    expect(await commitSigner(read(commits.signed))).toBe(delegate);
    expect(await commitSigner(read(commits.plain))).toBeNull();
  });

  it("is nobody when anything of the commit or the signature is changed", async () => {
    const object = read(commits.signed);
    const signature = /gpgsig [\s\S]*?-----END SSH SIGNATURE-----\n/.exec(object)?.[0] ?? "";
    const half = signature.length >> 1;
    const flipped = signature.slice(0, half) + (signature[half] === "A" ? "B" : "A") + signature.slice(half + 1);
    const changed = [
      object.replace("signed", "sigNed"),
      object.replace(/^author a/m, "author b"),
      object.replace(signature, flipped),
      object.replace(signature, signature + signature),
      object.replace(signature, "").replace("signed\n", `signed\n\n${signature}`),
      object.replace(signature, "gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n"),
    ];
    for (const one of changed) expect(await commitSigner(one)).toBeNull();
  });

  it("is nobody when the key has signed for another purpose", async () => {
    const object = read(commits.plain);
    writeFileSync(join(keys, "message"), object);
    execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", "file", "-f", join(keys, "key"), join(keys, "message")]);
    const armor = readFileSync(join(keys, "message.sig"), "utf8").trimEnd().replaceAll("\n", "\n ");
    const [head, ...rest] = object.split("\n\n");
    expect(await commitSigner(`${head}\ngpgsig ${armor}\n\n${rest.join("\n\n")}`)).toBeNull();
  });
});

describe("what a runner finds out about a commit", () => {
  type Facts = Awaited<ReturnType<typeof gatherFacts>>;
  async function factsOf(oid: string, ref: string, urls: string[] = []): Promise<Facts> {
    const source = { repository: `file://${upstream}`, commit: oid, ref, urls };
    expect(await mirrorCommit(source, options)).toMatchObject({ ok: true });
    return gatherFacts("blog", source, options);
  }
  const main = "refs/heads/main";

  it("is its signer, and the branch that is named, when the repository's own branch leads to it", async () => {
    expect(await factsOf(commits.signed, main)).toEqual([
      { deployment: "blog", repository: null, branch: null, delegate },
      { deployment: "blog", repository: `file://${upstream}`, branch: "main", delegate },
    ]);
    expect((await factsOf(commits.plain, main))[1]).toMatchObject({ branch: "main", delegate: null });
  });

  it("is nothing of the repository for a commit that only a patch leads to, whatever branch is named", async () => {
    const facts = await factsOf(commits.stranger, main);
    expect(facts).toEqual([{ deployment: "blog", repository: null, branch: null, delegate: null }]);
  });

  it("is no branch when another one is named than leads to it", async () => {
    expect((await factsOf(commits.signed, "refs/heads/release"))[1]).toMatchObject({ branch: null });
  });

  it("is said of the place that has it, not of the repository that is named first", async () => {
    const facts = await factsOf(commits.elsewhere, main, [`file://${fork}`]);
    expect(facts.map(({ repository, branch }) => [repository, branch])).toEqual([
      [null, null],
      [`file://${fork}`, "main"],
    ]);
  });

  it("changes with the repository: a branch that was taken back says nothing any more", async () => {
    git(upstream, "checkout", "--quiet", "-b", "soon-gone");
    const oid = commit(upstream, "pushed by mistake");
    expect((await factsOf(oid, "refs/heads/soon-gone"))[1]).toMatchObject({ branch: "soon-gone" });
    git(upstream, "checkout", "--quiet", "main");
    git(upstream, "branch", "--quiet", "-D", "soon-gone");
    expect(await factsOf(oid, "refs/heads/soon-gone")).toHaveLength(1);
  });
});
