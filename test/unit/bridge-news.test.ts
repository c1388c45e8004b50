import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readNews } from "@plumule/bridge";
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { type Heads, movesSince, type Seen, seenNext } from "../../bridge/src/core/moves.ts";
import { explanationData, explanationLines } from "../../cli/src/bridge-lines.ts";

const rid = "rad:zR8pU9csJBztrM1142SZZQyc3vxd";
const node = "z6Mkgoi9jH8TZvHEu3AEuarnmZL1nkMWMeLbhZtYJkMy1sEr";
const id = rid.slice("rad:".length);

describe("an event of the node", () => {
  it("is known as radicle-node 0.21.1 writes it", () => {
    const recorded = readFileSync(join(import.meta.dirname, "../fixtures/radicle-events.jsonl"), "utf8");
    const lines = recorded.trimEnd().split("\n");
    const news = lines.map(readNews);
    expect(news.filter(({ look }) => look !== null)).toEqual([
      { event: "localRefsAnnounced", look: id },
      { event: "refsFetched", look: id },
      { event: "canonicalRefUpdated", look: id },
      { event: "refsFetched", look: id },
      { event: "refsFetched", look: id },
    ]);
    const silent = new Set(news.flatMap((one) => (one.look === null ? [one.event] : [])));
    expect(silent).toEqual(new Set(["uploadPack", "refsAnnounced", "refsSynced"]));
    expect(news.flatMap((one) => (one.look === null ? [one.why] : [])).join()).not.toContain("does not know");
  });

  test.each([
    [{ type: "refsFetched", rid, remote: node, updated: [] }, "moved nothing"],
    [{ type: "refsFetched", rid, remote: node, updated: [{ skipped: { name: "refs/x", oid: "0" } }] }, "moved nothing"],
    [{ type: "refsFetched", rid: "heartwood", updated: [] }, "names no repository"],
    [{ type: "localRefsAnnounced", rid: `rad://${id}/../x` }, "names no repository"],
    [{ type: "seedDiscovered", rid, nid: node }, "who has a repository"],
    [{ type: "seedDropped", rid, nid: node }, "who has a repository"],
    [{ type: "inventoryAnnounced", nid: node, inventory: [rid], timestamp: 1 }, "who has a repository"],
    [{ type: "peerConnected", nid: node }, "about a peer"],
    [{ type: "peerDisconnected", nid: node, reason: "x" }, "about a peer"],
    [{ type: "nodeAnnounced", nid: node, alias: "a" }, "about a peer"],
    [{ type: "somethingNew", rid }, "does not know the event"],
    [{ error: "node is shutting down" }, "node is shutting down"],
    [["refsFetched"], "no JSON object"],
    ["{", "no JSON object"],
  ])("starts nothing, and says why: %j", (event, why) => {
    expect(readNews(typeof event === "string" ? event : JSON.stringify(event))).toMatchObject({
      look: null,
      why: expect.stringContaining(why) as string,
    });
  });
});

describe("what moved", () => {
  const table = fc.dictionary(
    fc.constantFrom("refs/heads/a", "refs/heads/b", "refs/tags/c"),
    fc.constantFrom("1", "2", "3"),
  );

  it("is the same whether somebody looked after every push or only after the last", () => {
    fc.assert(
      fc.property(fc.array(table, { minLength: 1, maxLength: 8 }), fc.nat(7), (tables, looked) => {
        const steps = tables.map((refs, at) => ({ at: String(at), signedAt: 0, refs: new Map(Object.entries(refs)) }));
        const heads = (count: number): Heads => ({
          remotes: new Map(count === 0 ? [] : [[node, String(count - 1)]]),
          canonical: new Map(),
        });
        const seenAt = (count: number): Seen => seenNext(null, heads(count), 0)!;
        const history = (from: number, to: number): ReturnType<typeof movesSince> =>
          movesSince(seenAt(from), heads(to), [
            { node, base: from === 0 ? null : steps[from - 1]!.refs, steps: steps.slice(from, to) },
          ]);
        const middle = Math.min(looked, tables.length);
        expect([...history(0, middle), ...history(middle, tables.length)]).toEqual(history(0, tables.length));
      }),
    );
  });

  it("changes what is remembered only when something did", () => {
    const heads: Heads = { remotes: new Map([[node, "1"]]), canonical: new Map([["refs/heads/main", "2"]]) };
    const seen = seenNext(null, heads, 5);
    expect(seen).toEqual({
      version: 1,
      sinceAt: 5,
      revision: 1,
      remotes: { [node]: "1" },
      canonical: { "refs/heads/main": "2" },
    });
    expect(seenNext(seen, heads, 6)).toBeNull();
    // A node that the storage has let go is remembered: it may come back.
    expect(seenNext(seen, { ...heads, remotes: new Map() }, 6)).toBeNull();
    expect(seenNext(seen, { ...heads, canonical: new Map() }, 6)).toMatchObject({ sinceAt: 5, revision: 2 });
  });
});

it("a dry run says a line for each event and each move, and the same as data", () => {
  const event = { kind: "event", news: readNews(JSON.stringify({ type: "peerConnected", nid: node })) } as const;
  expect(explanationLines(event)).toEqual(["peerConnected → nothing: it is about a peer, not about refs"]);
  const move = { node, ref: "refs/heads/main", before: null, after: "a".repeat(40) };
  const found = {
    kind: "look",
    id,
    look: { findings: [{ move, push: null, why: "no" }], seen: null, why: null, faults: [] },
  };
  expect(explanationLines(found as Parameters<typeof explanationLines>[0])).toEqual([
    `${rid} refs/heads/main nothing to aaaaaaa by ${node} → nothing: no`,
  ]);
  expect(explanationData(found as Parameters<typeof explanationData>[0])).toEqual([
    { repository: rid, ...move, push: null, why: "no" },
  ]);
});
