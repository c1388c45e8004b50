import {
  conditionHolds,
  describeCondition,
  didKeyOf,
  LIMITS,
  runnersAble,
  type SecretBinding,
  type SecretCondition,
  type SecretFacts,
  secretConditionSchema,
  signEnvelope,
  signerFromSeed,
  signRecipient,
  submitBodySchema,
  toBase64,
  utf8,
  verifyRecipient,
  type SubmitBody,
  type Work,
  workSha256,
} from "@plumule/protocol";
import { newIdentity, openBox, recipientOf, sealSecret } from "@plumule/protocol/seal";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RECIPIENT_PAYLOAD_TYPE } from "../../protocol/src/secrets.ts";

const KING = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
const QUEEN = "did:key:z6Mkf5rGMoatrSj1f4CyvuHBeXJELe9RPdzo2PKGNCKVtZxP";
const REPOSITORY = "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const createdAt = "2026-11-21T10:00:00.000Z";
const binding: SecretBinding = {
  version: 1,
  namespace: "acme",
  name: "key",
  workSha256: "a".repeat(64),
  condition: { and: [] },
  expiresAt: null,
};

describe("a box", () => {
  it("is opened by each runner that it was sealed to, and gives the very bytes and the binding", async () => {
    const [one, two] = await Promise.all([newIdentity(), newIdentity()]);
    const value = Uint8Array.from([0, 10, 255, 13, 10, 123]);
    const sealed = await sealSecret(value, binding, [one.recipient, two.recipient]);
    for (const { identity } of [one, two])
      expect(await openBox(sealed.ok ? sealed.value : "", identity)).toEqual({ ok: true, value: { binding, value } });
  });

  it("is opened by nobody else, and by nobody once a bit of it is changed", async () => {
    const { identity, recipient } = await newIdentity();
    const stranger = await newIdentity();
    const sealed = await sealSecret(utf8("correct horse"), binding, [recipient]);
    const box = sealed.ok ? sealed.value : "";
    expect(await openBox(box, stranger.identity)).toMatchObject({ ok: false, code: "not-sealed-to-us" });
    const bytes = Buffer.from(box, "base64");
    for (const at of [0, 60, bytes.length >> 1, bytes.length - 1]) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 1;
      expect(await openBox(toBase64(damaged), identity)).toMatchObject({ ok: false });
    }
    expect(await openBox("not base64", identity)).toMatchObject({ ok: false, code: "bad-box" });
  });

  it("holds the greatest secret, for the greatest number of runners, within the limit of the wire", async () => {
    const { recipient } = await newIdentity();
    const recipients = Array.from({ length: LIMITS.secretRunners }, () => recipient);
    const condition: SecretCondition = { or: Array.from({ length: 8 }, () => ({ delegate: KING })) };
    const sealed = await sealSecret(new Uint8Array(LIMITS.secretBytes), { ...binding, condition }, recipients);
    expect(sealed.ok && sealed.value.length).toBeLessThanOrEqual(LIMITS.secretBoxCharacters);
    expect(await sealSecret(new Uint8Array(LIMITS.secretBytes + 1), binding, [recipient])).toMatchObject({ ok: false });
    expect(await sealSecret(new Uint8Array(), binding, [recipient])).toMatchObject({ ok: false, code: "empty" });
  });

  it("has an identity that tells its recipient", async () => {
    const { identity, recipient } = await newIdentity();
    expect(identity).toMatch(/^AGE-SECRET-KEY-1[A-Z0-9]{58}$/);
    expect(await recipientOf(identity)).toBe(recipient);
  });
});

describe("a runner's recipient", () => {
  const signer = (fill: number): ReturnType<typeof signerFromSeed> => signerFromSeed(new Uint8Array(32).fill(fill));

  it("is believed when the runner's own key has signed it", async () => {
    const [king, { recipient }] = await Promise.all([signer(1), newIdentity()]);
    const runner = didKeyOf(king.publicKey);
    const envelope = await signRecipient({ recipient, createdAt }, king);
    expect(await verifyRecipient(envelope, runner)).toEqual({ ok: true, value: { runner, recipient, createdAt } });
  });

  it("is not believed when a broker puts its own there, however it signs it", async () => {
    const [king, broker, { recipient }] = await Promise.all([signer(1), signer(2), newIdentity()]);
    const runner = didKeyOf(king.publicKey);
    const own = await signRecipient({ recipient, createdAt }, broker);
    const renamed = { ...own, signatures: own.signatures.map(({ sig }) => ({ keyid: runner, sig })) };
    const statement = utf8(JSON.stringify({ runner, recipient, createdAt }));
    const foreign = await signEnvelope(RECIPIENT_PAYLOAD_TYPE, statement, broker);
    for (const envelope of [own, renamed, foreign])
      expect(await verifyRecipient(envelope, runner)).toMatchObject({ ok: false, code: "bad-recipient" });
  });

  it("is not believed when the runner signed it for another purpose, or for another runner", async () => {
    const [king, { recipient }] = await Promise.all([signer(1), newIdentity()]);
    const runner = didKeyOf(king.publicKey);
    const statement = { runner, recipient, createdAt };
    const other = await signEnvelope("application/vnd.in-toto+json", utf8(JSON.stringify(statement)), king);
    const named = await signEnvelope(
      RECIPIENT_PAYLOAD_TYPE,
      utf8(JSON.stringify({ ...statement, runner: KING })),
      king,
    );
    for (const envelope of [other, named])
      expect(await verifyRecipient(envelope, runner)).toMatchObject({ ok: false, code: "bad-recipient" });
  });
});

describe("the digest of a job's work", () => {
  const work: Work = {
    namespace: "acme",
    deployment: "blog",
    teardown: false,
    spec: {
      task: { kind: "shell", script: "deploy" },
      source: { repository: REPOSITORY, commit: "a".repeat(40), ref: "refs/heads/main" },
      configuration: { domain: "example.org", replicas: 2 },
      env: { STAGE: "production", REGION: "eu" },
      type: "deploy",
    },
  };
  const { spec } = work;

  it("is the same for equal work, whatever the order of its keys, and however it is queued", async () => {
    const reordered: Work = {
      teardown: false,
      deployment: "blog",
      namespace: "acme",
      spec: {
        ...spec,
        env: { REGION: "eu", STAGE: "production" },
        configuration: { replicas: 2, domain: "example.org" },
        mode: "replace",
        priority: "urgent",
        secrets: [{ name: "key" }],
      },
    };
    expect(await workSha256(reordered)).toBe(await workSha256(work));
  });

  it("survives the way over the wire", async () => {
    const sent = submitBodySchema.parse(JSON.parse(JSON.stringify(spec)));
    expect(await workSha256({ ...work, spec: sent })).toBe(await workSha256(work));
  });

  it("is the same for what a schedule runs of a task file, and another for one of its jobs", async () => {
    const digest = (task: SubmitBody["task"]): Promise<string> => workSha256({ ...work, spec: { ...spec, task } });
    const whole = await digest({ kind: "repository" });
    expect(await digest({ kind: "repository", schedule: "nightly" })).toBe(whole);
    expect(await digest({ kind: "repository", task: "deep" })).not.toBe(whole);
    const both = { ...spec, task: { kind: "repository", task: "deep", schedule: "nightly" } };
    expect(submitBodySchema.safeParse(both).error?.issues[0]?.path).toEqual(["task", "schedule"]);
  });

  const others: Record<string, Work> = {
    namespace: { ...work, namespace: "evil" },
    deployment: { ...work, deployment: "shop" },
    teardown: { ...work, teardown: true },
    task: { ...work, spec: { ...spec, task: { kind: "shell", script: "deploy; cat $PLUMULE_SECRETS/*" } } },
    configuration: { ...work, spec: { ...spec, configuration: { domain: "example.com", replicas: 2 } } },
    environment: { ...work, spec: { ...spec, env: { STAGE: "production", REGION: "eu", BASH_ENV: "$(evil)" } } },
    type: { ...work, spec: { ...spec, type: "destroy" } },
    commit: { ...work, spec: { ...spec, source: { ...spec.source!, commit: "b".repeat(40) } } },
    ref: { ...work, spec: { ...spec, source: { ...spec.source!, ref: "refs/heads/evil" } } },
    source: { ...work, spec: { task: spec.task, configuration: spec.configuration, env: spec.env!, type: "deploy" } },
  };
  it.each(Object.entries(others))("is another when the %s is another", async (_, other) => {
    expect(await workSha256(other)).not.toBe(await workSha256(work));
  });
});

describe("a condition", () => {
  const facts: SecretFacts = { deployment: "blog", repository: REPOSITORY, branch: "main", delegate: KING };
  const nothing: SecretFacts = { deployment: "blog", repository: null, branch: null, delegate: null };
  const rows: [SecretCondition, boolean, string][] = [
    [{ repository: REPOSITORY }, true, `repository=${REPOSITORY}`],
    [{ branch: "main" }, true, "branch=main"],
    [{ branch: "mai" }, false, "branch=mai"],
    [{ delegate: KING }, true, `delegate=${KING}`],
    [{ delegate: QUEEN }, false, `delegate=${QUEEN}`],
    [{ deployment: "shop" }, false, "deployment=shop"],
    [{ and: [] }, true, "always"],
    [{ or: [] }, false, "never"],
    [
      { and: [{ branch: "main" }, { or: [{ delegate: QUEEN }, { deployment: "blog" }] }] },
      true,
      `branch=main and (delegate=${QUEEN} or deployment=blog)`,
    ],
    [{ and: [{ branch: "main" }, { delegate: QUEEN }] }, false, `branch=main and delegate=${QUEEN}`],
  ];
  it.each(rows)("%j: %s, in words: %s", (condition, holds, words) => {
    expect(secretConditionSchema.parse(condition)).toEqual(condition);
    expect(conditionHolds(condition, facts)).toBe(holds);
    expect(describeCondition(condition)).toBe(words);
  });

  it("never holds because a fact is missing: what opens without facts opens with any", () => {
    const { condition } = fc.letrec<{ condition: SecretCondition }>((tie) => ({
      condition: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom<SecretCondition>({ repository: REPOSITORY }, { branch: "main" }, { delegate: KING }),
        fc.constantFrom<SecretCondition>({ deployment: "blog" }, { deployment: "shop" }),
        fc.record({ and: fc.array(tie("condition"), { maxLength: 3 }) }),
        fc.record({ or: fc.array(tie("condition"), { maxLength: 3 }) }),
      ),
    }));
    fc.assert(fc.property(condition, (one) => !conditionHolds(one, nothing) || conditionHolds(one, facts)));
  });

  it.each([[{ not: { branch: "main" } }], [{ branch: "main", deployment: "x" }], [{}], [true], [{ branch: 1 }]])(
    "is refused when it is %j",
    (condition) => {
      expect(secretConditionSchema.safeParse(condition).success).toBe(false);
    },
  );
});

describe("the runners that may take a job with secrets", () => {
  const sealed = (...runners: string[]): { name: string; box: string; runners: string[] } => ({
    name: "x",
    box: "AA==",
    runners,
  });
  it("are those that can open every box; any, for a job without one", () => {
    expect(runnersAble([])).toBeNull();
    expect(runnersAble([{ name: "stored" }])).toBeNull();
    expect(runnersAble([sealed(KING, QUEEN), sealed(QUEEN)])).toEqual([QUEEN]);
    expect(runnersAble([sealed(KING), sealed(QUEEN)])).toEqual([]);
  });
});
