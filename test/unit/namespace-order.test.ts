import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Move, placePush, withBelievedPaths } from "../../durable-objects/namespace/core/order.ts";

type Sent = { from: string | null; to: string; number?: number; signer?: string; failed?: boolean };

function moveOf({ from, to, number, signer = "a", failed = false }: Sent, at: number): Move {
  return { id: String(at), signer, before: from, after: to, number: number ?? null, failed };
}

/** Where each push is placed when they arrive in this order. */
function placesOf(pushes: readonly Sent[]): string[] {
  const moves = pushes.map(moveOf);
  return moves.map((move, at) => {
    const { place, ...rest } = placePush(move, moves.slice(0, at));
    return "as" in rest ? `${place} ${rest.as}` : place;
  });
}

describe("pushes of one ref", () => {
  test.each<[string, Sent[], string[]]>([
    [
      "in order are each the newest",
      [
        { from: "1", to: "2" },
        { from: "2", to: "3" },
      ],
      ["newest", "newest"],
    ],
    [
      "seen by three seeds are one",
      [
        { from: "1", to: "2" },
        { from: "1", to: "2" },
        { from: null, to: "2" },
      ],
      ["newest", "same 0", "same 0"],
    ],
    [
      "of which the older comes late: it does not become the newest",
      [
        { from: "2", to: "3" },
        { from: "1", to: "2" },
      ],
      ["newest", "late 0"],
    ],
    [
      "that create, when the creation comes late",
      [
        { from: "1", to: "2" },
        { from: "0", to: "1" },
      ],
      ["newest", "late 0"],
    ],
    [
      "that go back and forth are all real",
      [
        { from: "1", to: "2" },
        { from: "2", to: "3" },
        { from: "3", to: "2" },
        { from: "3", to: "2" },
      ],
      ["newest", "newest", "newest", "same 2"],
    ],
    [
      "that were refused may be tried by the next seed",
      [
        { from: "1", to: "2", failed: true },
        { from: "1", to: "2" },
      ],
      ["newest", "newest"],
    ],
    [
      "that were refused are not tried when the ref has moved on",
      [
        { from: "1", to: "2", failed: true },
        { from: "2", to: "3" },
        { from: "1", to: "2" },
      ],
      ["newest", "newest", "late 1"],
    ],
    [
      "after a late one still follow the newest",
      [
        { from: "2", to: "3" },
        { from: "1", to: "2" },
        { from: "3", to: "4" },
      ],
      ["newest", "late 0", "newest"],
    ],
    [
      "from unknown commits are forced pushes",
      [
        { from: "1", to: "2" },
        { from: "8", to: "9" },
      ],
      ["newest", "newest"],
    ],
  ])("%s", (_, pushes, places) => {
    expect(placesOf(pushes)).toEqual(places);
  });

  test.each<[string, Sent[], string[]]>([
    [
      "a gap that commit ids cannot bridge",
      [
        { from: "3", to: "4", number: 3 },
        { from: "1", to: "2", number: 1 },
        { from: "2", to: "3", number: 2 },
      ],
      ["newest", "late 0", "late 0"],
    ],
    [
      "a way back to an old commit, without `before`",
      [
        { from: null, to: "2", number: 1 },
        { from: null, to: "3", number: 2 },
        { from: null, to: "2", number: 3 },
      ],
      ["newest", "newest", "newest"],
    ],
    [
      "the same number again is the same push",
      [
        { from: null, to: "2", number: 1 },
        { from: null, to: "2", number: 1 },
      ],
      ["newest", "same 0"],
    ],
    [
      "numbers of another sender say nothing",
      [
        { from: "1", to: "2", number: 9 },
        { from: "2", to: "3", number: 1, signer: "b" },
      ],
      ["newest", "newest"],
    ],
    [
      "a slow seed with numbers of its own brings copies, whatever its numbers",
      [
        { from: "0", to: "1", number: 1, signer: "b" },
        { from: "1", to: "2", number: 7 },
        { from: "2", to: "3", number: 8 },
        { from: "1", to: "2", number: 2, signer: "b" },
      ],
      ["newest", "newest", "newest", "same 1"],
    ],
  ])("with numbers of their sender: %s", (_, pushes, places) => {
    expect(placesOf(pushes)).toEqual(places);
  });

  test("numbered by their sender end at the greatest number, in whatever order they arrive", () => {
    const history = fc.uniqueArray(fc.integer({ min: 2, max: 60 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(history, (arrival) => {
        const moves = arrival.map((number, at) => moveOf({ from: String(number - 1), to: String(number), number }, at));
        const newest = moves.filter((move, at) => placePush(move, moves.slice(0, at)).place === "newest");
        expect(newest.at(-1)?.number).toBe(Math.max(...arrival));
      }),
    );
  });

  test("without numbers, two that follow each other end at the later one, in either order and with copies", () => {
    const copies = fc
      .array(fc.constantFrom(0, 1), { minLength: 2, maxLength: 8 })
      .filter((which) => new Set(which).size === 2);
    fc.assert(
      fc.property(copies, (arrival) => {
        const pushes: Sent[] = [
          { from: "1", to: "2" },
          { from: "2", to: "3" },
        ];
        const moves = arrival.map((which, at) => moveOf(pushes[which]!, at));
        const newest = moves.filter((move, at) => placePush(move, moves.slice(0, at)).place === "newest");
        expect(newest.at(-1)?.after).toBe("3");
        expect(new Set(newest.map(({ after }) => after)).size).toBe(newest.length);
      }),
    );
  });
});

describe("the paths of a push", () => {
  const push = {
    type: "push",
    audience: "",
    repository: "rad:z3g",
    ref: "refs/heads/main",
    after: "d",
    paths: ["a"],
  } as const;
  const believed = (before: string | null, history: readonly Sent[], type: "push" | "patch" = "push"): boolean =>
    withBelievedPaths({ ...push, paths: ["a"], type, before }, history.map(moveOf)).paths !== undefined;

  test.each([
    ["the first of a ref", "x", [], true],
    ["one that follows the newest", "c", [{ from: "b", to: "c" }], true],
    ["one that follows something that was not told", "x", [{ from: "b", to: "c" }], false],
    ["one that does not say what it follows", null, [{ from: "b", to: "c" }], false],
    [
      "one that follows what was not the last",
      "b",
      [
        { from: "a", to: "b" },
        { from: "b", to: "c" },
      ],
      false,
    ],
    [
      "one after a late one and a copy",
      "c",
      [
        { from: "b", to: "c" },
        { from: "a", to: "b" },
        { from: "b", to: "c" },
      ],
      true,
    ],
  ])("are those of %s: %j", (_, before, history, expected) => expect(believed(before, history)).toBe(expected));

  test("of a patch are all of it, whatever came before", () => {
    expect(believed("x", [{ from: "b", to: "c" }], "patch")).toBe(true);
  });
});
