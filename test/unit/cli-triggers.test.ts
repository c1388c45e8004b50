import type { Trigger, TriggersTest } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { testLines, triggerTable } from "../../cli/src/commands/triggers.ts";
import { plain } from "./cli-fixtures.ts";

const rule: Trigger = {
  name: "code",
  refs: ["refs/heads/**", "!refs/heads/wip/*"],
  deployment: "site",
  task: { kind: "repository" },
};

describe("plumule triggers", () => {
  it("lists rules with all that they ask, also one named as what every object has", () => {
    const named = { ...rule, name: "constructor", events: ["tag" as const] };
    const rows = triggerTable({ triggers: [rule, named], paths: { code: ["**", "!**.md"] } }).map(plain);
    expect(rows[1]).toMatch(
      /^code +all +all +refs\/heads\/\*\*, !refs\/heads\/wip\/\* +all +\*\*, !\*\*\.md +site +repository$/,
    );
    expect(rows[2]).toMatch(/^constructor +tag +all +.* +all +all +site +repository$/);
  });

  it("explains what is met, what is not and what nobody knows, and lets no name of a file write to the terminal", () => {
    const answer: TriggersTest = {
      version: 3,
      push: null,
      detail: "the same push came as delivery d",
      results: [
        {
          trigger: "code",
          deployment: "site",
          detail: "held: a stranger",
          approvers: ["did:key:z"],
          limits: { memoryBytes: 2 ** 30, taskCount: 64 },
          checks: [
            { name: "ref", ok: true, detail: "fine" },
            { name: "paths", ok: true, assumed: true, detail: "not known" },
          ],
        },
        {
          trigger: "docs",
          deployment: null,
          detail: "no",
          checks: [{ name: "paths", ok: false, detail: "\u001b[2J\nx" }],
        },
      ],
    };
    const lines = testLines(answer).map(plain);
    expect(lines.slice(1, -1)).toEqual([
      "! nothing starts: the same push came as delivery d",
      "✓ code → site  held: a stranger",
      "    ✓ ref: fine",
      "    ? paths: not known",
      "    may approve: did:key:z",
      "    at most: memory 1.0 GiB; 64 tasks",
      "✗ docs  no",
    ]);
    expect(lines.at(-1)).toMatch(/^ {4}✗ paths: /);
    for (const text of ["\u001b[2J", "\n"]) expect(testLines(answer).join("")).not.toContain(text);
  });
});
