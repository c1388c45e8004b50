import {
  didKeyOf,
  draftJobResult,
  type JobResultInput,
  LIMITS,
  parseHex,
  REGISTRATION_PAYLOAD_TYPE,
  sha256Hex,
  signEnvelope,
  type Signer,
  signerFromSeed,
  signWebhook,
  STATEMENT_PAYLOAD_TYPE,
  utf8,
} from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { ask, problemIn, runPath, settled, told } from "./edge-harness.ts";
import {
  ABSENT_JOB,
  ABSENT_RUN,
  bad,
  type Bad,
  by,
  post,
  put,
  refuses,
  runner,
  running,
  setStage,
  tenant,
} from "./edge-stage.ts";

/*
 * Inputs that somebody will send and that are signed, or should be; numbered like the rows of `test/unit/bad-inputs.test.ts`, which says for
 * every row where the rest of it is proved. Each is answered with its code, and nothing stored has changed.
 */

/** Keys that decode to nothing, or under which signatures can be made without a secret; the last is of mixed order. */
const WEAK_KEYS = [
  `01${"00".repeat(31)}`,
  `ec${"ff".repeat(30)}7f`,
  `${"00".repeat(31)}80`,
  "00".repeat(32),
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "ff".repeat(32).replace(/^ff/, "ec"),
  `01${"00".repeat(30)}80`,
  `ed${"ff".repeat(30)}7f`,
  "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
].map((hex) => didKeyOf(parseHex(hex) ?? new Uint8Array(32)));

let bridge: Signer;
let stranger: Signer;
let registration: string;

beforeAll(async () => {
  await setStage();
  [bridge, stranger] = (await Promise.all([1, 2].map((byte) => signerFromSeed(new Uint8Array(32).fill(byte))))) as [
    Signer,
    Signer,
  ];
  const body = { triggers: [], hooks: [{ id: "seed", keys: [didKeyOf(bridge.publicKey)] }] };
  const headers = { "if-match": '"v0"' };
  await told(ask("PUT", `${tenant.at}/triggers`, by("admin", { body, headers })), 200);
  const made = await told<{ token: string }>(ask("POST", `${tenant.at}/runner-registrations`, by("operate")), 201);
  registration = made.token;
  await prepare();
  await settled(tenant);
});

const hooks: Record<string, Record<string, string>> = {};
const statements: Record<string, unknown> = {};
const registrations: unknown[] = [];
const BODY = '{"type":"push"}';

/** Signs what the rows need signed: their tables cannot wait. */
async function prepare(): Promise<void> {
  const now = Math.floor(Date.now() / 1000);
  const sign = async (
    changes: { timestampSeconds?: number; id?: string },
    signer = bridge,
  ): Promise<Record<string, string>> => ({
    ...(await signWebhook({ id: "msg-1", timestampSeconds: now, body: utf8(BODY), signer, ...changes })),
  });
  // A second of slack on the side that time itself moves.
  hooks["old"] = await sign({ timestampSeconds: now - LIMITS.webhookToleranceSeconds - 1 });
  hooks["early"] = await sign({ timestampSeconds: now + LIMITS.webhookToleranceSeconds + 30 });
  hooks["good"] = await sign({});
  hooks["stranger"] = await sign({}, stranger);
  const session = (payloadType: string, payload: unknown, signer: Signer): Promise<unknown> =>
    signEnvelope(payloadType, utf8(JSON.stringify(payload)), signer);
  statements["type"] = await session("application/json", {}, runner.signer);
  statements["other type"] = await session(REGISTRATION_PAYLOAD_TYPE, {}, runner.signer);
  statements["stranger"] = await statement({}, stranger);
  statements["borrowed keyid"] = withKeyid(await statement({}, stranger), runner.id);
  statements["other job"] = await statement({ job: ABSENT_JOB, run: ABSENT_RUN });
  statements["other epoch"] = await statement({ epoch: running.epoch + 1 });
  statements["other run"] = await statement({ run: ABSENT_RUN });
  statements["commit"] = await statement({
    source: { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit: "1".repeat(40) },
  });
  statements["no subject"] = await reworded((told) => ({ ...told, subject: [] }));
  statements["md5"] = await reworded((told) => ({
    ...told,
    subject: [{ name: "x", digest: { md5: "0".repeat(32) } }],
  }));
  statements["upper case"] = await reworded((told) => ({
    ...told,
    subject: [{ name: "x", digest: { sha256: "A".repeat(64) } }],
  }));
  for (const key of WEAK_KEYS) {
    const proof = {
      audience: `https://broker.test${tenant.at}`,
      runner: key,
      tokenSha256: await sha256Hex(utf8(registration)),
      issuedAt: new Date().toISOString(),
    };
    registrations.push(withKeyid(await session(REGISTRATION_PAYLOAD_TYPE, proof, stranger), key));
  }
}

/** The statement of the run that is under way, as its runner would sign it, but for the changes. */
async function statement(changes: Partial<JobResultInput>, signer = runner.signer): Promise<unknown> {
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, await drafted(changes), signer);
}

async function drafted(changes: Partial<JobResultInput>): Promise<Uint8Array> {
  const at = new Date().toISOString();
  const draft = draftJobResult({
    source: null,
    namespace: tenant.ns,
    deployment: "web",
    job: running.job,
    run: running.run,
    epoch: running.epoch,
    kind: "shell",
    result: "succeeded",
    exitCode: 0,
    reason: null,
    taskSha256: running.taskSha256,
    configurationSha256: running.configurationSha256,
    startedAt: at,
    finishedAt: at,
    runner: { did: runner.id, version: "1", isolation: "process-group", system: "x86_64-linux" },
    log: { sha256: await sha256Hex(utf8("hello")), bytes: 5, truncated: false },
    outputs: [],
    ...changes,
  });
  if (!draft.ok) throw new Error(draft.detail);
  return draft.value.bytes;
}

/** A properly signed statement that says something else. */
async function reworded(change: (told: object) => object): Promise<unknown> {
  const told = JSON.parse(new TextDecoder().decode(await drafted({}))) as object;
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, utf8(JSON.stringify(change(told))), runner.signer);
}

function withKeyid(envelope: unknown, keyid: string): unknown {
  const { signatures, ...rest } = envelope as { signatures: object[] };
  return { ...rest, signatures: signatures.map((one) => ({ ...one, keyid })) };
}

function hook(headers: Record<string, string>): ReturnType<typeof post> {
  return post(`${tenant.at}/hooks/radicle/seed`, { body: BODY, headers });
}

function resultWith(name: string, changes: object = {}): ReturnType<typeof post> {
  const result = {
    epoch: running.epoch,
    outcome: "succeeded",
    exitCode: 0,
    reason: null,
    finishedAt: new Date().toISOString(),
    isolation: null,
    survivorsKilled: 0,
    log: { bytes: 5, sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", truncated: false },
    outputs: [],
    statements: [statements[name]],
    ...changes,
  };
  return post(`${runPath(tenant.at, running)}/result`, { token: running.leaseToken, body: result });
}

describe("webhooks", () => {
  refuses("row 1: signed outside of the window of time", () => [
    bad("301 s ago", hook(hooks["old"] ?? {}), "timestamp-out-of-window"),
    bad("ahead", hook(hooks["early"] ?? {}), "timestamp-out-of-window"),
  ]);

  refuses("row 2: with a time that is none", () =>
    ["1700000000abc", "1e9", "-1", "01700000000", "1700000000, 1700000000", "17000000000000"].map((time) =>
      bad(time, hook({ ...hooks["good"], "webhook-timestamp": time }), "invalid-parameter", {
        pointer: "webhook-timestamp",
      }),
    ),
  );

  refuses("row 3: with an id that is none", () =>
    ["a.1700000000", "x".repeat(300), "a\tb", "a b", "../a"].map((id) =>
      bad(id, hook({ ...hooks["good"], "webhook-id": id }), "invalid-parameter", { pointer: "webhook-id" }),
    ),
  );

  refuses("rows 6 and 7: whose signature is by nobody who is trusted, or is none", () => {
    const [, good = ""] = hooks["good"]?.["webhook-signature"]?.split(",") ?? [];
    const signatures = {
      "a key that nobody trusts": hooks["stranger"]?.["webhook-signature"] ?? "",
      "63 bytes": `v1a,${btoa("x".repeat(63))}`,
      "65 bytes": `v1a,${btoa("x".repeat(65))}`,
      "nothing signed": "v1a,",
      junk: "v1a,%%%%",
      "an empty HMAC": "v1,",
      "the Ed25519 signature as an HMAC": `v1,${good}`,
      "a scheme of tomorrow": `v2,${good}`,
      "a thousand": Array.from({ length: 1_000 }, () => "v1a,AAAA").join(" "),
      "a good one behind a thousand": `${Array.from({ length: 1_000 }, () => "v1a,AAAA").join(" ")} v1a,${good}`,
    };
    return Object.entries(signatures).map(([name, list]) =>
      bad(name, hook({ ...hooks["good"], "webhook-signature": list }), "bad-signature"),
    );
  });

  it("row 6: tells a stranger no more than a sender of nonsense", async () => {
    const answers = await Promise.all(
      [hooks["stranger"] ?? {}, { ...hooks["good"], "webhook-signature": "v1a,AAAA" }].map(async (headers) => {
        const { method, path, ask: asked } = hook(headers);
        const { instance: _, ...problem } = await problemIn(await ask(method, path, asked));
        return problem;
      }),
    );
    expect(answers[0]).toEqual(answers[1]);
  });
});

describe("keys", () => {
  refuses("row 8: that anybody can sign for, wherever a key enters", () =>
    WEAK_KEYS.flatMap((key, at): Bad[] => [
      bad(
        `trust ${at}`,
        put(
          `${tenant.at}/trust`,
          by("admin", {
            body: { version: 2, signers: [{ key, operator: "x" }], rules: [] },
            headers: { "if-match": '"v1"' },
          }),
        ),
        "weak-key",
        { pointer: "/signers/0/key" },
      ),
      bad(
        `member ${at}`,
        put(
          `${tenant.at}/members`,
          by("admin", { body: { members: [{ key, name: "x", role: "developer" }] }, headers: { "if-match": '"v0"' } }),
        ),
        "weak-key",
        { pointer: "/members/0/key" },
      ),
      bad(
        `hook ${at}`,
        put(
          `${tenant.at}/triggers`,
          by("admin", { body: { triggers: [], hooks: [{ id: "x", keys: [key] }] }, headers: { "if-match": '"v1"' } }),
        ),
        "weak-key",
      ),
      bad(
        `runner ${at}`,
        post(`${tenant.at}/runners`, { body: { token: registration, name: "x", proof: registrations[at] } }),
        "weak-key",
      ),
    ]),
  );

  refuses("row 10: that are spelled another way, or are of another kind", () => {
    const good = didKeyOf(bridge.publicKey);
    const keys = {
      "hex multibase": `did:key:fed01${"0".repeat(64)}`,
      "a key for encryption": "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
      "a byte short": good.slice(0, -1),
      "a byte long": `${good}1`,
      "leading zeros": good.replace("z6Mk", "z16Mk"),
      "a space": `${good} `,
      "upper case": good.toUpperCase(),
      "a fragment": `${good}#key`,
    };
    return Object.entries(keys).map(([name, key]) =>
      bad(
        name,
        put(
          `${tenant.at}/trust`,
          by("admin", {
            body: { version: 2, signers: [{ key, operator: "x" }], rules: [] },
            headers: { "if-match": '"v1"' },
          }),
        ),
        "invalid-body",
        { pointer: "/signers/0/key" },
      ),
    );
  });
});

describe("statements", () => {
  // A payload of another type is signed by the right key: what is wrong is the statement, so it is 422, and not parsed either.
  refuses("row 11: under another payload type", () => [
    bad("plain JSON", resultWith("type"), "invalid-statement", { detail: "payload-type" }),
    bad("a registration", resultWith("other type"), "invalid-statement", { detail: "payload-type" }),
  ]);

  refuses("row 13: by another key than the run's, whatever keyid they name", () => [
    bad("a stranger", resultWith("stranger"), "bad-signature"),
    bad("under the runner's name", resultWith("borrowed keyid"), "bad-signature"),
  ]);

  // With the live lease of another run the envelope itself is at fault, so it is 422; with the lease of an ended run it is 409.
  refuses("row 14: of another job, run or epoch", () => [
    bad("another job", resultWith("other job"), "invalid-statement", { pointer: "/statements/0" }),
    bad("another run", resultWith("other run"), "invalid-statement", { detail: "run" }),
    bad("another epoch", resultWith("other epoch"), "invalid-statement", { detail: "epoch" }),
    bad("an epoch that is over", resultWith("other epoch", { epoch: running.epoch + 1 }), "stale-lease"),
  ]);

  refuses("row 15: about another commit, or about nothing that can be checked", () => [
    bad("another commit", resultWith("commit"), "invalid-statement", { detail: "commit" }),
    bad("no subject", resultWith("no subject"), "invalid-statement"),
    bad("only an MD5", resultWith("md5"), "invalid-statement"),
    bad("a digest in upper case", resultWith("upper case"), "invalid-statement"),
  ]);
});
