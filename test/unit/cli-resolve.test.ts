import { describe, expect, it } from "vitest";
import { guess, newestOf } from "../../cli/src/resolve.ts";
import { COMMIT, job, JOB_ID, RUN_ID } from "./cli-fixtures.ts";

describe("what an argument may be, by its look", () => {
  it.each([
    [JOB_ID, { kind: "job", job: JOB_ID }],
    [RUN_ID, { kind: "run", run: RUN_ID, job: JOB_ID }],
    [COMMIT, { kind: "commit", commit: COMMIT }],
    ["0199", { kind: "prefix", prefix: "0199", attempt: null }],
    ["0199c0de-7a11", { kind: "prefix", prefix: "0199c0de-7a11", attempt: null }],
    ["0199c0de-7a11-7000-8", { kind: "prefix", prefix: "0199c0de-7a11-7000-8", attempt: null }],
    ["0199c0de-7a11-7002-8", { kind: "prefix", prefix: "0199c0de-7a11-7000-8", attempt: 2 }],
    ["abc", { kind: "name" }],
    ["mastodon-alice", { kind: "name" }],
    ["0199c0de7", { kind: "name" }],
    ["HEAD", { kind: "name" }],
    [".", { kind: "name" }],
  ])("%s", (text, expected) => expect(guess(text)).toEqual(expected));
});

describe("the job of a lane that matters", () => {
  const ids = [1, 2, 3].map((one) => `0199c0de-7a1${one}-7000-8000-000000000001`);
  it("is the last one that is not final, else the last of all", () => {
    const [first, second, third] = ids.map((id) => job({ id, state: "succeeded" }));
    expect(newestOf([third!, first!, second!])?.id).toBe(ids[2]);
    expect(newestOf([third!, { ...second!, state: "running" }, { ...first!, state: "queued" }])?.id).toBe(ids[1]);
    expect(newestOf([])).toBeUndefined();
  });
});
