import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  attemptOfRun,
  commitSchema,
  deploymentIdSchema,
  formatSequence,
  formatTime,
  formatTimeOrNull,
  jobCreatedAt,
  jobIdSchema,
  jobOfRun,
  makeJobId,
  namespaceIdSchema,
  refSchema,
  runIdOf,
  runIdSchema,
  runnerIdSchema,
  timeSchema,
} from "../../protocol/src/ids.ts";

const times = fc.integer({ min: 0, max: 2 ** 47 });
const randomness = fc.uint8Array({ minLength: 8, maxLength: 8 });

describe("a job id", () => {
  it("is a UUIDv7 that tells its time and sorts by it", () => {
    fc.assert(
      fc.property(times, randomness, randomness, (now, one, two) => {
        const id = makeJobId(now, one);
        expect(jobIdSchema.safeParse(id).success).toBe(true);
        expect(jobCreatedAt(id)).toBe(now);
        expect(id < makeJobId(now + 1, two)).toBe(true);
      }),
    );
  });

  it("keeps 62 of its 64 random bits", () => {
    const ids = Array.from({ length: 64 }, (_, bit) => {
      const random = new Uint8Array(8);
      random[bit >> 3] = 0x80 >> (bit & 7);
      return makeJobId(0, random);
    });
    expect(new Set([...ids, makeJobId(0, new Uint8Array(8))]).size).toBe(63);
  });

  it("is not made of less randomness", () => {
    expect(() => makeJobId(0, new Uint8Array(7))).toThrow(RangeError);
  });
});

describe("a run id", () => {
  it("names its job and its attempt, and is no job id", () => {
    fc.assert(
      fc.property(times, randomness, fc.integer({ min: 1, max: 0xfff }), (now, random, attempt) => {
        const job = makeJobId(now, random);
        const run = runIdOf(job, attempt);
        expect(runIdSchema.safeParse(run).success).toBe(true);
        expect(jobIdSchema.safeParse(run).success).toBe(false);
        expect(runIdSchema.safeParse(job).success).toBe(false);
        expect([jobOfRun(run), attemptOfRun(run)]).toEqual([job, attempt]);
      }),
    );
  });

  it.each([0, -1, 4096, 1.5, Number.NaN])("has no attempt %d", (attempt) => {
    expect(() => runIdOf(makeJobId(0, new Uint8Array(8)), attempt)).toThrow(RangeError);
  });
});

describe("a name", () => {
  const cases = [
    {
      schema: namespaceIdSchema,
      good: ["a", "a-b", "0", "x".repeat(63)],
      bad: ["", "A", "-a", "a-", "a.b", "a/b", "@directory", "x".repeat(64), "a\n"],
    },
    {
      schema: deploymentIdSchema,
      good: ["web", "A.b_c-d", "1"],
      bad: ["", ".", "..", "-x", ".x", "a/b", "a b", "a%2f", "ä", "x".repeat(129), "a\n"],
    },
    {
      schema: commitSchema,
      good: ["a".repeat(40), "0".repeat(64)],
      bad: ["", "HEAD", "A".repeat(40), "a".repeat(41), `--${"a".repeat(38)}`, `${"a".repeat(40)}\n`],
    },
    {
      schema: refSchema,
      good: ["refs/heads/main", "refs/tags/v1.0", "refs/heads/a/b-c", "refs/patches/9af2"],
      bad: [
        "main",
        "refs/heads/",
        "refs/heads/-x",
        "refs/heads/.x",
        "refs/heads/a..b",
        "refs/heads/a.lock",
        "refs/heads/a.lock/b",
        "refs/heads/a//b",
        "refs/notes/x",
        "refs/heads/a b",
        `refs/heads/${"x".repeat(255)}`,
      ],
    },
    {
      schema: runnerIdSchema,
      good: [`did:key:z6Mk${"k".repeat(44)}`],
      bad: ["did:key:z6Mk", `did:key:z6Mk${"0".repeat(44)}`, `did:web:z6Mk${"k".repeat(44)}`],
    },
  ];
  it.each(cases.flatMap(({ schema, good }) => good.map((name) => ({ schema, name }))))(
    "may be $name",
    ({ schema, name }) => {
      expect(schema.safeParse(name).success).toBe(true);
    },
  );
  it.each(cases.flatMap(({ schema, bad }) => bad.map((name) => ({ schema, name }))))(
    "may not be $name",
    ({ schema, name }) => {
      expect(schema.safeParse(name).success).toBe(false);
    },
  );
});

it("writes sequences so that the order of text is the order of numbers", () => {
  const sequence = fc.integer({ min: 0, max: 1e15 });
  fc.assert(fc.property(sequence, sequence, (a, b) => formatSequence(a) < formatSequence(b) === a < b));
});

it("writes times as the wire reads them", () => {
  expect(timeSchema.parse(formatTime(1_760_000_000_123))).toBe("2025-10-09T08:53:20.123Z");
  expect([formatTimeOrNull(null), formatTimeOrNull(0)]).toEqual([null, "1970-01-01T00:00:00.000Z"]);
});
