import { describe, expect, it } from "vitest";
import { byNode, byNodeTable, type NodeRun } from "../../cli/src/by-node.ts";
import { at, plain } from "./cli-fixtures.ts";

const [one, other] = ["did:key:z6MkvXqBsnj3nFG3Gzihxosmauw1cqBrVduEzed6yQhodNbd", "did:key:z6MkOtherOtherOther"];
const run = (node: string, status: NodeRun["status"], seconds: number): NodeRun => ({
  node,
  run: `run-${seconds}`,
  status,
  url: `https://broker.example/j/${seconds}`,
  at: Date.parse(at(seconds)),
});

describe("runs of a commit by node", () => {
  const runs = [run(one, "failed", 0), run(other, "succeeded", 1), run(one, "succeeded", 2), run(one, "started", 3)];

  it("tell of each node how its runs stand and which is the latest, whatever order they come in", () => {
    const found = byNode(runs.toReversed());
    expect(found).toEqual(byNode(runs));
    expect(found).toEqual([
      { node: one, latest: runs[3], started: [runs[3]], succeeded: [runs[2]], failed: [runs[0]] },
      { node: other, latest: runs[1], started: [], succeeded: [runs[1]], failed: [] },
    ]);
    expect(byNode([])).toEqual([]);
  });

  it("are a row for each node", () => {
    expect(plain(byNodeTable(byNode(runs), Date.parse(at(10))))).toBe(
      [
        "NODE           STARTED  SUCCEEDED  FAILED  LATEST     AGE  SEE",
        "z6MkvXqB…dNbd  1        1          1       started    7s   https://broker.example/j/3",
        "z6MkOthe…ther  0        1          0       succeeded  9s   https://broker.example/j/1",
      ].join("\n"),
    );
  });
});
