import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

/** A test file without its ending, and words of the tests' names. */
type Proof = readonly [file: string, ...names: string[]];

const signed = "workers/bad-inputs-signed";
const plain = "workers/bad-inputs";

/**
 * Thirty bad inputs, and where it is proved how each is answered. A row whose answer differs on purpose from what one might expect says why
 * beside its test.
 */
const ROWS: Readonly<Record<string, readonly Proof[]>> = {
  "1: a webhook from outside of the window of time": [
    [signed, "row 1:"],
    ["workers/namespace-hooks", "a time 301 s ago"],
    ["unit/trust-webhook", "that is %i s away from the clock"],
  ],
  "2: a webhook with a time that is none": [
    [signed, "row 2:"],
    ["unit/trust-webhook", "with the timestamp %j is refused"],
  ],
  "3: a webhook with an id that is none": [
    [signed, "row 3:"],
    ["unit/trust-webhook", "with the id %j is refused"],
  ],
  "4: a webhook that comes again, 50 times at once too": [["workers/namespace-hooks", "50 times at once too"]],
  "5: a webhook id with another body": [["workers/namespace-hooks", "the same id and another body is refused"]],
  "6: a webhook of a key that nobody trusts": [[signed, "rows 6 and 7:", "row 6:"]],
  "7: a signature that is none": [
    [signed, "rows 6 and 7:"],
    ["unit/trust-webhook", "may have eight signatures, not nine"],
  ],
  "8: a key that anybody can sign for": [
    [signed, "row 8:"],
    ["unit/trust-keys", "refuses %s as %s"],
    ["unit/trust-keys", "keeps out the key under which one signature is valid for every message"],
  ],
  "9: signatures of other people's test vectors": [
    ["unit/trust-keys", "of RFC 8032 are made and verified", "with the group order added to S are refused"],
  ],
  "10: a did:key that is spelled another way": [
    [signed, "row 10:"],
    ["unit/trust-keys", "with %s is refused"],
  ],
  "11: a payload of one type under another": [
    [signed, "row 11:"],
    ["unit/trust-dsse", "refuses the payload of one type under another"],
    ["unit/trust-dsse", "and then does not parse"],
  ],
  "12: two signatures of one key under two names": [
    ["unit/trust-dsse", "counts a key once, however often it signed and under whatever names"],
    ["unit/trust-verdict", "gives one vote to a key that the policy names under two operators"],
  ],
  "13: a keyid that names somebody else": [
    [signed, "row 13:"],
    ["unit/trust-dsse", "does not believe a keyid that names a trusted key"],
  ],
  "14: a statement of another job, or of an old epoch": [
    [signed, "row 14:"],
    ["workers/deployment-runs", "keeps a result that comes after the lease has gone as late"],
    ["workers/deployment-runs", "refuses every write with another token or an older epoch"],
  ],
  "15: a statement about another commit, or about nothing": [[signed, "row 15:"]],
  "16: a body that two readers could read differently": [
    [plain, "row 16:", "rows 16 and 17:"],
    ["workers/edge-writes", "that two readers could read differently is refused"],
    ["workers/namespace-hooks", "a trusted signature over"],
  ],
  "17: a body without an end, or packed": [
    [plain, "row 17:", "rows 16 and 17:"],
    ["workers/edge-writes", "that is too large is not read to its end"],
  ],
  "18: a result twice, late, superseded, or of another runner": [
    [plain, "row 18:"],
    ["workers/deployment-runs", "accepts a result once, answers it again the same, and refuses another one"],
    ["workers/deployment-runs", "keeps a result that comes after the lease has gone as late"],
    ["workers/deployment", "it ends superseded"],
  ],
  "19: log bytes at a place that is none": [
    [plain, "row 19:"],
    ["workers/edge-writes", "cannot change what a log holds"],
  ],
  "20: a log that floods, or attacks its reader": [
    ["e2e/page", "shows a log that was made to attack its reader as text that does nothing"],
    ["unit/page-sgr", "never lets a control through"],
    ["unit/cli-terminal-text", "never leaves a sequence but colours, whatever it is"],
    ["unit/runner-storage", "keeps head and tail of a log that is too long"],
  ],
  "21: a socket asked for by a foreign page": [[plain, "row 21:"]],
  "22: a ticket that is used, over, elsewhere, or in a URL": [
    [plain, "row 22:"],
    ["workers/namespace", "opens one socket of its origin, once", "ends after 30 s"],
  ],
  "23: a socket that never reads, says too much or nonsense, or comes a thousandfold": [
    ["workers/shared-watchers", "queues no more than its share for a reader that stands still"],
    ["workers/shared-watchers", "closes a socket that sends bytes, too much, or nonsense again and again"],
    ["workers/deployment-stream", "closes it when it stays silent, and serves the others"],
    ["workers/namespace", "is refused when too many wait"],
  ],
  "24: a cursor that nobody gave out, or whose events are gone": [
    [plain, "row 24:"],
    ["workers/shared-watchers", "starts over with a reset when a cursor is %s"],
  ],
  "25: two polls of one runner, and an answer that is lost": [
    ["workers/pool", "lets a second poll with the same key take the place of the first"],
    ["workers/deployment", "gives the same lease again to a claim with the same key"],
  ],
  "26: a name that leads elsewhere": [
    [plain, "row 26:"],
    ["unit/runner-storage", "refuses the key %j"],
    ["unit/runner-workspace", "never lies outside its folder"],
  ],
  "27: a ref, commit or repository that git would take for something else": [
    [plain, "row 27:"],
    [
      "unit/runner-workspace",
      "%j is refused",
      "runs nothing that a repository, an account or the environment asks for",
    ],
    ["unit/runner-hostile-git", "row 27:"],
  ],
  "28: an address inside": [
    [plain, "row 28:"],
    ["unit/outgoing", "%s may not: %s", "follows no redirect"],
  ],
  "29: a flake that attacks its builder": [["e2e/nix-hostile", "row 29:"]],
  "30: a credential that is wrong, or of somebody else": [
    [plain, "row 30:"],
    ["workers/edge-callers", "of another namespace finds nothing of this one"],
    ["workers/edge-taint", "learns nothing of another one at any door"],
    ["workers/edge-rate", "is stopped with the numbers, at every door, and changes nothing"],
  ],
  "extra: faults, alarms, clocks and policies": [
    [plain, "extra:"],
    ["workers/deployment-time", "sets the alarm again when it was lost", "wakes up by itself"],
    ["unit/deployment-core", "does nothing for a timer that is not due any more"],
    ["unit/runner-storage", "keeps the earlier record, and works on, when the disk refuses a write"],
    ["unit/trust-verdict", "is expired from the moment that the policy names"],
  ],
};

describe("a bad input", () => {
  it("has thirty rows", () => {
    const numbers = Object.keys(ROWS).map((row) => row.split(":")[0]);
    expect(numbers).toEqual([...Array.from({ length: 30 }, (_, at) => String(at + 1)), "extra"]);
  });

  it.each(Object.entries(ROWS))("%s: is tested where this table says", (_, proofs) => {
    for (const [file, ...names] of proofs) {
      const text = readFileSync(join(import.meta.dirname, "..", `${file}.test.ts`), "utf8");
      for (const name of names) expect(text.includes(name), `${file} has no test named "${name}"`).toBe(true);
    }
  });
});
