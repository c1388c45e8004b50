import {
  type JobView,
  jobChecks,
  lacksOf,
  type MatchedJob,
  type MatchedRunner,
  matchRunners,
  type RunnerMatch,
  runnerChecks,
} from "@plumule/protocol";
import { describe, expect, it } from "vitest";

const KING = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
const QUEEN = "did:key:z6Mkf5rGMoatrSj1f4CyvuHBeXJELe9RPdzo2PKGNCKVtZxP";
const now = Date.parse("2026-11-01T12:00:00Z");

const anyone: MatchedJob = {
  wants: {},
  pool: "default",
  sealedTo: null,
  trusted: null,
  free: null,
  taken: [],
  avoid: [],
};
const job = (over: Partial<MatchedJob> = {}): MatchedJob => ({ ...anyone, ...over });
const offer = {
  name: "king",
  systems: ["x86_64-linux"],
  features: ["kvm"],
  labels: ["host:king"],
  isolation: "userns" as const,
  version: "1",
  capacity: 2,
};
const king = (over: Partial<MatchedRunner> = {}): MatchedRunner => ({
  id: KING,
  name: "king",
  pool: "default",
  state: "online",
  drained: false,
  revoked: false,
  offer,
  protocol: 2,
  busy: 0,
  seenAt: "2026-11-01T12:00:00.000Z",
  ...over,
});
const queen = (over: Partial<MatchedRunner> = {}): MatchedRunner => king({ id: QUEEN, name: "queen", ...over });
const lacks = (one: MatchedJob, runner: MatchedRunner): string[] => lacksOf({ checks: runnerChecks(one, runner) });

describe("what keeps a runner from a job", () => {
  it("is nothing where it has everything, and each thing that was compared is told all the same", () => {
    const wants = { systems: ["x86_64-linux"], labels: ["host:king"], isolation: "userns" as const, protocol: 2 };
    const checks = runnerChecks(job({ wants, sealedTo: [KING], trusted: [KING], free: [KING] }), king());
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checks.map(({ name }) => name)).toEqual([
      "registration",
      "pool",
      "connection",
      "system",
      "label",
      "isolation",
      "protocol",
      "secrets",
      "trust",
      "quorum",
      "drain",
      "capacity",
    ]);
    expect(checks).toContainEqual({ name: "label", needed: "host:king", has: "host:king", ok: true });
  });

  it.each<[string, Partial<MatchedJob>, Partial<MatchedRunner>, string[]]>([
    ["a system", { wants: { systems: ["aarch64-linux"] } }, {}, ["system aarch64-linux"]],
    ["two labels of three", { wants: { labels: ["a", "host:king", "b"] } }, {}, ["label a", "label b"]],
    ["the leave to let strangers in", { wants: { features: ["untrusted"] } }, {}, ["feature untrusted"]],
    ["isolation", { wants: { isolation: "bwrap" } }, {}, ["isolation bwrap (has userns)"]],
    ["a newer version", { wants: { protocol: 2 } }, { protocol: 1 }, ["protocol 2 (has 1)"]],
    [
      "a version, of a runner that never said one",
      { wants: { protocol: 2 } },
      { protocol: null },
      ["protocol 2 (has 1)"],
    ],
    ["the pool", { pool: "arm" }, {}, ["pool arm (has default)"]],
    ["a connection", {}, { state: "offline" }, ["connection online (has offline, last seen 2026-11-01T12:00:00.000Z)"]],
    ["a first poll", {}, { offer: null }, ["offer what it can do (has not known until it polls)"]],
    ["its registration", {}, { revoked: true }, ["registration a key in good standing (has revoked)"]],
    [
      "leave to work",
      {},
      { drained: true, drain: { note: "new disk", deadlineAt: null, end: "wait" } },
      ["drain leave to work (has drained: new disk)"],
    ],
    ["a free place", {}, { busy: 2 }, ["capacity a free place (has 2 of 2 taken)"]],
    [
      "the key of the secrets",
      { sealedTo: [QUEEN] },
      {},
      ["secrets a key that the job's secrets are sealed to (has sealed to another runner)"],
    ],
    ["trust", { trusted: [QUEEN], free: [QUEEN] }, {}, ["trust a vote that counts (has not in the trust policy)"]],
    ["a vote of its own", { taken: [KING] }, {}, ["quorum no part in its quorum yet (has a part)"]],
    [
      "an operator without a part",
      { trusted: [KING, QUEEN], free: [], taken: [QUEEN] },
      {},
      ["quorum no part in its quorum yet (has an operator with a part)"],
    ],
  ])("is %s", (_, wanted, runner, expected) => {
    expect(lacks(job(wanted), king(runner))).toEqual(expected);
  });

  it("comes with the next step", () => {
    const [missing] = runnerChecks(job({ wants: { labels: ["gpu"] } }), king()).filter(({ ok }) => !ok);
    expect(missing?.next).toBe("`plumule runner start --label gpu`");
    const [stranger] = runnerChecks(job({ wants: { features: ["untrusted"] } }), king()).filter(({ ok }) => !ok);
    expect(stranger?.next).toContain("--untrusted");
  });
});

describe("runners beside a job", () => {
  const names = (matches: RunnerMatch[]): string[] => matches.map(({ name, ok }) => `${name}${ok ? " fits" : ""}`);

  it("come with the nearest first, by name where they are as near", () => {
    const wants = { systems: ["x86_64-linux"], labels: ["gpu"] };
    const runners = [
      queen({ state: "offline", name: "z" }),
      queen(),
      king(),
      queen({ name: "far", offer: null, pool: "x" }),
    ];
    expect(names(matchRunners(job({ wants }), runners))).toEqual(["king", "queen", "z", "far"]);
    const able = queen({ offer: { ...offer, labels: ["gpu"] } });
    expect(names(matchRunners(job({ wants }), [king(), able]))).toEqual(["queen fits", "king"]);
  });

  it("hold it against a runner that it lost the job only while there is another", () => {
    const avoid = [KING];
    expect(names(matchRunners(job({ avoid }), [king(), queen()]))).toEqual(["queen fits", "king"]);
    expect(names(matchRunners(job({ avoid }), [king(), queen({ busy: 2 })]))).toEqual(["king", "queen"]);
    expect(names(matchRunners(job({ avoid }), [king(), queen({ drained: true })]))).toEqual(["king fits", "queen"]);
  });
});

describe("what of a job keeps it from every runner", () => {
  const waiting = (reason: string, detail: string): JobView["waiting"] =>
    ({ reason, detail, needs: null, nearest: null, position: 0, etaMs: null }) as JobView["waiting"];
  const lacking = (view: Pick<JobView, "state" | "waiting" | "reason">, until = now + 1): string[] =>
    lacksOf({ checks: jobChecks(view, until, now) });

  it.each<[string, Pick<JobView, "state" | "waiting" | "reason">, string[]]>([
    ["nothing", { state: "queued", waiting: waiting("no-runner", "x"), reason: null }, []],
    [
      "its lane",
      { state: "queued", waiting: waiting("position", "1 job first."), reason: null },
      ["position the first place (has 1 job first.)"],
    ],
    [
      "an approval",
      { state: "held", waiting: waiting("approval", "Ask."), reason: null },
      ["approval an approval (has Ask.)"],
    ],
    [
      "what only a later broker knows",
      { state: "queued", waiting: waiting("tide", "Low."), reason: null },
      ["tide nothing in the way (has Low.)"],
    ],
    [
      "a lock, without saying who has it",
      {
        state: "queued",
        waiting: {
          reason: "position",
          detail: "Waits for king.",
          needs: null,
          nearest: null,
          position: 0,
          etaMs: null,
          lock: { name: "host:king", ahead: 1, holder: { deployment: "x", job: "y", state: "works" } },
        },
        reason: null,
      },
      ["lock host:king (has Waits for lock host:king, which another job has or gets first.)"],
    ],
    ["its run", { state: "running", waiting: null, reason: null }, ["state queued (has running)"]],
    [
      "its end",
      { state: "failed", waiting: null, reason: { code: "queue-timeout", detail: "It waited too long." } },
      ["state queued (has failed (It waited too long.))"],
    ],
  ])("is %s", (_, view, expected) => {
    expect(lacking(view)).toEqual(expected);
  });

  it("is the end of its time in the queue", () => {
    expect(lacking({ state: "queued", waiting: null, reason: null }, now)).toEqual([
      "queue-timeout time to wait (has 2026-11-01T12:00:00.000Z is the end of its time in the queue)",
    ]);
  });
});
