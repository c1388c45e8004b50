import { readFileSync } from "node:fs";
import { JOB_STATES, isFinalJobState } from "@plumule/protocol";
import { expect, it } from "vitest";
import { EDGES } from "#durable-objects/deployment/core/edges.ts";

const DOCUMENT = readFileSync(new URL("../../docs/state-machine.md", import.meta.url), "utf8");

/** The edges of the one mermaid graph, as `from, cause, to`. */
function drawnEdges(): string[] {
  const graphs = [...DOCUMENT.matchAll(/```mermaid\n(.*?)```/gs)];
  expect(graphs).toHaveLength(1);
  const lines = graphs[0]![1]!.split("\n").filter((line) => line.includes("-->"));
  return lines
    .flatMap((line) => {
      const match = /^\s*(\[\*\]|\w+) --> (\[\*\]|\w+)(?:: (.+))?$/.exec(line);
      if (match === null) throw new Error(`cannot read the edge "${line}"`);
      const [, from, to, causes] = match;
      if (to === "[*]") return [];
      return (causes ?? "").split(", ").map((cause) => `${from === "[*]" ? "null" : from}, ${cause}, ${to}`);
    })
    .toSorted();
}

it("is drawn with exactly the edges of the code", () => {
  expect(drawnEdges()).toEqual(EDGES.map(({ from, cause, to }) => `${from}, ${cause}, ${to}`).toSorted());
});

it("draws every state, and its end exactly where a state is final", () => {
  const ends = [...DOCUMENT.matchAll(/^\s*(\w+) --> \[\*\]$/gm)].map(([, state]) => String(state));
  expect(ends.toSorted()).toEqual(JOB_STATES.filter((state) => isFinalJobState(state)).toSorted());
  for (const state of JOB_STATES) expect(DOCUMENT).toContain(`\`${state}\``);
});

it("lets no final state but unknown be left, and nothing that is being stopped succeed", () => {
  expect(EDGES.filter(({ from }) => from !== null && isFinalJobState(from)).map(({ from }) => from)).toEqual([
    "unknown",
    "unknown",
    "unknown",
  ]);
  expect(EDGES.filter(({ from, to }) => from === "cancelling" && (to === "succeeded" || to === "skipped"))).toEqual([]);
});
