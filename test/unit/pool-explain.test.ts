import type { Assignment, Requires, Waiting } from "@plumule/protocol";
import { waitingSchema } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import type { Ability, Needs } from "../../durable-objects/pool/calls.ts";
import { Deliveries } from "../../durable-objects/pool/core/deliveries.ts";
import { explain, outlookOf } from "../../durable-objects/pool/core/explain.ts";
import type { Candidate } from "../../durable-objects/pool/core/explain.ts";
import { isNews, toldOf } from "../../durable-objects/pool/core/news.ts";

const KING = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
const QUEEN = "did:key:z6Mkf5rGMoatrSj1f4CyvuHBeXJELe9RPdzo2PKGNCKVtZxP";
const seenAt = Date.parse("2026-11-01T12:00:00Z");

const runner = (over: Partial<Candidate> = {}, offer: Partial<Ability> = {}): Candidate => {
  const plain = { name: "king", systems: ["x86_64-linux"], features: [], labels: [], version: "1", capacity: 1 };
  return {
    id: KING,
    seenAt,
    online: true,
    drained: false,
    ...over,
    offer: { ...plain, isolation: "process-group", ...offer },
  };
};
const queen = (over: Partial<Candidate> = {}, offer: Partial<Ability> = {}): Candidate =>
  runner({ id: QUEEN, ...over }, { name: "queen", ...offer });
const why = (needs: Needs, position: number, runners: Candidate[]): Waiting =>
  waitingSchema.parse(explain(needs, position, outlookOf(needs, runners), "default"));

const arm: Requires = { systems: ["aarch64-linux"] };
const demanding: Requires = { systems: ["x86_64-linux"], features: ["kvm"], labels: ["host:king"], isolation: "bwrap" };

type Row = [string, Needs, number, Candidate[], Waiting["reason"], string[] | null, string];
describe("why a ticket waits", () => {
  it.each<Row>([
    [
      "nobody is there",
      {},
      0,
      [],
      "no-runner",
      null,
      "No runner is online in pool default. Start one: `plumule runner start`",
    ],
    [
      "its runner is only too old",
      { systems: ["x86_64-linux"], protocol: 2 },
      0,
      [runner()],
      "no-runner",
      ["protocol 2 (has 1)"],
      "No runner offers x86_64-linux with protocol 2. Nearest: king, which lacks protocol 2 (has 1). Update plumule on king and start its runner again, or start another: `plumule runner start --system x86_64-linux`",
    ],
    [
      "its runner is too old for more than one reason",
      { systems: ["aarch64-linux"], protocol: 2 },
      0,
      [runner()],
      "no-runner",
      ["system aarch64-linux", "protocol 2 (has 1)"],
      "No runner offers aarch64-linux with protocol 2. Nearest: king, which lacks system aarch64-linux, protocol 2 (has 1). Start one: `plumule runner start --system aarch64-linux`",
    ],
    [
      "a newer runner is busy",
      { protocol: 2 },
      0,
      [runner(), queen({}, { protocol: 2 })],
      "runners-busy",
      null,
      "Next in pool default, where 1 runner fits and none is free yet. Shorten the wait: `plumule runner start`",
    ],
    [
      "no runner has the system",
      arm,
      0,
      [runner()],
      "no-runner",
      ["system aarch64-linux"],
      "No runner offers aarch64-linux. Nearest: king, which offers x86_64-linux. Start one: `plumule runner start --system aarch64-linux`",
    ],
    [
      "several things are lacking",
      demanding,
      0,
      [runner()],
      "no-runner",
      ["feature kvm", "label host:king", "isolation bwrap (has process-group)"],
      "No runner offers x86_64-linux with feature kvm, label host:king, isolation bwrap. Nearest: king, which lacks feature kvm, label host:king, isolation bwrap (has process-group). Start one: `plumule runner start --system x86_64-linux --feature kvm --label host:king --isolation bwrap`",
    ],
    [
      "the one that fits is offline",
      {},
      0,
      [runner({ online: false })],
      "no-runner",
      ["a connection (last seen 2026-11-01T12:00:00.000Z)"],
      "No runner is online in pool default. Nearest: king, which lacks a connection (last seen 2026-11-01T12:00:00.000Z). Start one: `plumule runner start`",
    ],
    [
      "the one that fits is drained",
      {},
      0,
      [runner({ drained: true })],
      "runners-drained",
      ["leave to work (drained)"],
      `Every runner that fits is drained. Let king take work again: \`plumule runner undrain ${KING}\``,
    ],
    [
      "a drained one fits and an offline one is there",
      {},
      0,
      [runner({ online: false }), queen({ drained: true })],
      "runners-drained",
      ["leave to work (drained)"],
      `Every runner that fits is drained. Let queen take work again: \`plumule runner undrain ${QUEEN}\``,
    ],
    [
      "one drained, one that works",
      {},
      0,
      [runner({ drained: true }), queen()],
      "runners-busy",
      null,
      "Next in pool default, where 1 runner fits and none is free yet. Shorten the wait: `plumule runner start`",
    ],
    [
      "others go first",
      {},
      1,
      [runner(), queen()],
      "position",
      null,
      "1 job goes first in pool default, where 2 runners fit. Shorten the wait: `plumule runner start`",
    ],
    [
      "many others go first",
      arm,
      7,
      [runner({}, { systems: ["aarch64-linux"] })],
      "position",
      null,
      "7 jobs go first in pool default, where 1 runner fits. Shorten the wait: `plumule runner start --system aarch64-linux`",
    ],
  ])("%s", (_, needs, position, runners, reason, missing, detail) => {
    const waiting = why(needs, position, runners);
    const { protocol: _protocol, ...required } = needs;
    expect(waiting).toMatchObject({ reason, detail, needs: required, position });
    expect(waiting.nearest?.lacks ?? null).toEqual(missing);
  });

  it("names the runner that lacks least, whatever the order in which they polled", () => {
    const near = queen({}, { systems: ["aarch64-linux"] });
    const needs = { systems: ["aarch64-linux"], features: ["kvm"] };
    for (const runners of [
      [runner(), near],
      [near, runner()],
    ])
      expect(why(needs, 0, runners).nearest).toEqual({ runner: QUEEN, lacks: ["feature kvm"] });
  });
});

describe("news for a deployment", () => {
  const at = (position: number): Waiting => why({}, position, [runner()]);
  it.each<[string, Waiting, Waiting, boolean]>([
    ["nothing has changed", at(4), at(4), false],
    ["one step ahead in a long line", at(9), at(8), false],
    ["the position has halved", at(9), at(4), true],
    ["the line has doubled", at(3), at(8), true],
    ["it is next", at(1), at(0), true],
    ["the last runner has left", at(4), why({}, 4, []), true],
    ["another runner is nearest", why(arm, 0, [runner()]), why(arm, 0, [queen()]), true],
  ])("%s", (_, before, now, news) => {
    expect(isNews(toldOf(before), now)).toBe(news);
  });

  it("tells at most a logarithm of the line while it empties", () => {
    let [told, count] = [toldOf(at(1_000)), 0];
    for (let position = 999; position >= 0; position--) {
      if (!isNews(told, at(position))) continue;
      told = toldOf(at(position));
      count += 1;
    }
    expect(count).toBeLessThanOrEqual(11);
    expect(told.position).toBe(0);
  });

  it("after an eviction, when only the reason is known, tells only of another sort of reason", () => {
    const known = { reason: "position", nearest: null, position: null };
    expect(isNews(known, at(0))).toBe(false);
    expect(isNews(known, why({}, 0, []))).toBe(true);
    expect(isNews(null, at(3))).toBe(true);
  });
});

describe("deliveries", () => {
  const assignment = (run: string): Assignment => ({ run }) as Assignment;
  it("are repeated for the same runner and key, for a minute", () => {
    const deliveries = new Deliveries();
    deliveries.keep("king", "key", assignment("run"), 0);
    expect(deliveries.get("king", "key", 59_999)).toEqual({ run: "run" });
    expect(deliveries.get("queen", "key", 1)).toBeNull();
    expect(deliveries.get("king", "other", 1)).toBeNull();
    expect(deliveries.get("king", "key", 60_000)).toBeNull();
  });

  it("are bounded, and gone with their runner", () => {
    const deliveries = new Deliveries();
    for (let at = 0; at < 201; at++) deliveries.keep("king", `${at}`, assignment(`${at}`), 0);
    expect(deliveries.get("king", "0", 0)).toBeNull();
    expect(deliveries.get("king", "1", 0)).toEqual({ run: "1" });
    deliveries.forget("king");
    expect(deliveries.get("king", "200", 0)).toBeNull();
  });
});
