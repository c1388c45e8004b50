import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  didKeyOf,
  type SecretBinding,
  type SecretFacts,
  signerFromSeed,
  type SubmitBody,
  utf8,
  verifyRecipient,
  workSha256,
} from "@plumule/protocol";
import { newIdentity, sealSecret } from "@plumule/protocol/seal";
import { afterAll, describe, expect, it } from "vitest";
import { memoryFolder, removeSecretFiles, sweepSecretFiles, writeSecretFiles } from "../../runner/src/secrets/files.ts";
import { openIdentity, signedRecipient } from "../../runner/src/secrets/identity.ts";
import { type Asker, openSecrets, type OpenResult } from "../../runner/src/secrets/open.ts";

const scratch = mkdtempSync(join(tmpdir(), "plumule-secrets-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const RUN = "0199a0b1-c2d3-7001-8abc-0123456789ab";
const OTHER_RUN = "0199a0b1-c2d3-7002-8abc-0123456789ab";
const REPOSITORY = "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const KING = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
const nowMs = Date.parse("2026-11-21T10:00:00.000Z");

describe("the key that secrets are sealed to", () => {
  it("is made once, for its user alone, and published with a signature of the runner", async () => {
    const path = join(scratch, "made", "age.key");
    const made = await openIdentity(path);
    expect(await openIdentity(path)).toEqual(made);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const signer = await signerFromSeed(new Uint8Array(32).fill(3));
    if ("refused" in made) throw new Error(made.refused);
    const envelope = await signedRecipient(made, signer);
    expect(await signedRecipient(made, signer)).toEqual(envelope);
    expect(await verifyRecipient(envelope, didKeyOf(signer.publicKey))).toMatchObject({
      ok: true,
      value: { recipient: made.recipient },
    });
  });

  it("is refused when others may read it, and when it is no key", async () => {
    const open = join(scratch, "open.key");
    await openIdentity(open);
    chmodSync(open, 0o644);
    expect(await openIdentity(open)).toEqual({ refused: `${open} has mode 644; run chmod 600 on it` });
    const path = join(scratch, "other", "age.key");
    await openIdentity(path);
    spawnSync("sed", ["-i", "s/^AGE-SECRET-KEY-1.*/AGE-SECRET-KEY-1QQQQ/", path]);
    expect(await openIdentity(path)).toMatchObject({ refused: expect.stringContaining("holds no age identity") });
  });
});

describe("a box", () => {
  const spec: SubmitBody = {
    task: { kind: "shell", script: "deploy" },
    source: { repository: REPOSITORY, commit: "a".repeat(40), ref: "refs/heads/main" },
  };
  const asker: Asker = { namespace: "acme", deployment: "blog", teardown: false, spec };
  const fromCommit: Asker = { ...asker, spec: { ...spec, task: { kind: "repository" } } };
  const here: SecretFacts = { deployment: "blog", repository: REPOSITORY, branch: "main", delegate: KING };

  /** What a job gets for one box with this binding. */
  async function give(
    change: Partial<SecretBinding>,
    to: Asker = asker,
    facts: SecretFacts[] = [here],
    name = "key",
  ): Promise<OpenResult> {
    const { identity, recipient } = await newIdentity();
    const condition: SecretBinding["condition"] = { and: [] };
    const workSha = await workSha256(asker);
    const binding = { version: 1 as const, namespace: "acme", name: "key", condition, expiresAt: null };
    const sealed = await sealSecret(utf8("hunter2!"), { ...binding, workSha256: workSha, ...change }, [recipient]);
    const secrets = [{ name, box: sealed.ok ? sealed.value : "", runners: [KING] }];
    const job = { ...to, spec: { ...to.spec, secrets } };
    return openSecrets(job, { identity, facts: async () => facts, nowMs });
  }

  it("sealed for a job's work is opened for it, and again when the same work is tried again", async () => {
    expect(await give({})).toEqual({ ok: true, secrets: { key: utf8("hunter2!") } });
  });

  const moved: Record<string, [Partial<SecretBinding>, Asker?, string?]> = {
    "another task": [{}, { ...asker, spec: { ...spec, task: { kind: "shell", script: "cat $PLUMULE_SECRETS/*" } } }],
    "another environment": [{}, { ...asker, spec: { ...spec, env: { BASH_ENV: "evil" } } }],
    "another commit": [{}, { ...asker, spec: { ...spec, source: { ...spec.source!, commit: "b".repeat(40) } } }],
    "another deployment": [{}, { ...asker, deployment: "shop" }],
    "a teardown": [{}, { ...asker, teardown: true }],
    "a stranger, even one that was approved": [{}, { ...asker, untrusted: true }],
    "another namespace": [{ namespace: "evil" }],
    "another name": [{}, asker, "other"],
    "a time that is over": [{ expiresAt: "2026-11-21T10:00:00.000Z" }],
    "work whose condition does not hold": [{ condition: { branch: "release" } }],
  };
  it.each(Object.entries(moved))("is not opened for %s", async (_, [change, to, name]) => {
    expect(await give(change, to, [here], name)).toMatchObject({ ok: false, elsewhere: false });
  });

  it("that is sealed to another runner may be opened there", async () => {
    const { recipient } = await newIdentity();
    const binding: SecretBinding = {
      version: 1,
      namespace: "acme",
      name: "key",
      workSha256: null,
      condition: { and: [] },
      expiresAt: null,
    };
    const sealed = await sealSecret(utf8("hunter2!"), binding, [recipient]);
    const job = { ...asker, spec: { ...spec, secrets: [{ name: "key", box: sealed.ok ? sealed.value : "" }] } };
    const { identity } = await newIdentity();
    expect(await openSecrets(job, { identity, facts: async () => [], nowMs })).toMatchObject({
      ok: false,
      elsewhere: true,
    });
  });

  describe("that is stored", () => {
    const stored = { workSha256: null, condition: { and: [{ repository: REPOSITORY }, { branch: "main" }] } };
    it("is opened for work that the commit itself describes, where the facts hold", async () => {
      expect(await give(stored, fromCommit)).toMatchObject({ ok: true });
      expect(await give({ workSha256: null, condition: { delegate: KING } }, fromCommit)).toMatchObject({ ok: true });
      expect(await give({ workSha256: null, condition: { deployment: "blog" } })).toMatchObject({ ok: true });
    });

    const strangers: Record<string, [Asker, SecretFacts[]]> = {
      "a script that somebody submits about that commit": [asker, [here]],
      "work whose environment somebody chose": [
        { ...fromCommit, spec: { ...fromCommit.spec, env: { A: "b" } } },
        [here],
      ],
      "a commit that is in no branch of the repository": [fromCommit, [{ ...here, repository: null, branch: null }]],
      "a branch of that name in another repository": [
        fromCommit,
        [
          { ...here, branch: null },
          { ...here, repository: "https://evil.example/r.git" },
        ],
      ],
    };
    it.each(Object.entries(strangers))("is not opened for %s", async (_, [to, facts]) => {
      expect(await give(stored, to, facts)).toMatchObject({ ok: false, elsewhere: false });
    });
  });
});

describe("opened secrets", () => {
  const secrets = { token: utf8("hunter2!"), "config.json": utf8('{"user":"me"}'), raw: Uint8Array.from([0xff, 0]) };

  it("lie in memory, in a folder of the runner's own, each for its user alone, and as Hercules' file", async () => {
    const root = memoryFolder(scratch);
    expect(root).toMatch(/^\/(dev\/shm|run\/user\/\d+)\/plumule-[0-9a-f]{16}$/);
    const { folder, hercules } = await writeSecretFiles(root!, RUN, secrets);
    expect([statSync(folder).mode & 0o777, statSync(join(folder, "..")).mode & 0o777]).toEqual([0o700, 0o700]);
    for (const [name, value] of Object.entries(secrets)) {
      expect(new Uint8Array(readFileSync(join(folder, name)))).toEqual(value);
      expect(statSync(join(folder, name)).mode & 0o777).toBe(0o400);
    }
    expect(statSync(hercules).mode & 0o777).toBe(0o400);
    expect(JSON.parse(readFileSync(hercules, "utf8"))).toEqual({
      token: { data: { value: "hunter2!" } },
      "config.json": { data: { user: "me" } },
      raw: { data: { base64: "/wA=" } },
    });
    await removeSecretFiles(root!, RUN);
    expect(readdirSync(root!)).toEqual([]);
    rmSync(root!, { recursive: true });
  });

  it("of runs that a crash has ended are removed at the next start, those of runs at work are not", async () => {
    const root = memoryFolder(join(scratch, "crash"))!;
    for (const run of [RUN, OTHER_RUN]) await writeSecretFiles(root, run, secrets);
    await sweepSecretFiles(root, (run) => run === RUN);
    expect(readdirSync(root)).toEqual([RUN]);
    await sweepSecretFiles(root, () => false);
    expect(readdirSync(root)).toEqual([]);
    rmSync(root, { recursive: true });
  });

  it("are not written into a folder that others can enter, nor anywhere when there is no memory", async () => {
    const root = join(scratch, "open-folder");
    mkdirSync(root);
    chmodSync(root, 0o755);
    await expect(writeSecretFiles(root, RUN, secrets)).rejects.toThrow("is not this runner's own folder");
    expect(readdirSync(root)).toEqual([]);
    expect(memoryFolder(scratch, [scratch, "/nowhere"])).toBeNull();
  });
});
