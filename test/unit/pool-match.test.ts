import { ISOLATION_LEVELS, LIMITS, PRIORITIES } from "@plumule/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Ability, Needs, Ticket } from "../../durable-objects/pool/calls.ts";
import { Backlog } from "../../durable-objects/pool/core/backlog.ts";
import { fits, lacks, signatureOf } from "../../durable-objects/pool/core/fit.ts";
import { Fleet, OFFLINE_MS } from "../../durable-objects/pool/core/fleet.ts";
import { AGING_MS, compare, rankOf } from "../../durable-objects/pool/core/order.ts";

const BASE = Date.parse("2026-11-01T00:00:00Z");
const anyone = (): boolean => true;

const offer = (over: Partial<Ability> = {}): Ability => {
  const plain = { systems: ["x86_64-linux"], features: [], labels: [], isolation: "process-group" as const };
  return { name: "king", ...plain, version: "1", capacity: 1, ...over };
};

const ticket = (job: string, over: Partial<Ticket> = {}): Ticket => {
  return { deployment: `of-${job}`, job, number: 1, priority: "normal", needs: {}, queuedAt: BASE, avoid: [], ...over };
};

const some = (names: string[]): fc.Arbitrary<string[]> => fc.subarray(names);
const needsArbitrary: fc.Arbitrary<Needs> = fc.record(
  {
    systems: some(["x86_64-linux", "aarch64-linux"]),
    features: some(["kvm", "effects"]),
    labels: some(["host:king", "host:queen"]),
    isolation: fc.constantFrom(...ISOLATION_LEVELS),
    protocol: fc.constantFrom(1, 2),
  },
  { requiredKeys: [] },
);
const offerArbitrary: fc.Arbitrary<Ability> = fc
  .record({
    systems: some(["x86_64-linux", "aarch64-linux"]),
    features: some(["kvm", "effects"]),
    labels: some(["host:king", "host:queen"]),
    isolation: fc.constantFrom(...ISOLATION_LEVELS),
    capacity: fc.integer({ min: 1, max: 3 }),
    protocol: fc.constantFrom(1, 2),
  })
  .map(offer);
const ticketArbitrary: fc.Arbitrary<Omit<Ticket, "job">> = fc.record({
  deployment: fc.constantFrom("a", "b", "c", "d"),
  number: fc.constant(1),
  priority: fc.constantFrom(...PRIORITIES),
  needs: needsArbitrary,
  queuedAt: fc.integer({ min: BASE, max: BASE + 5 * AGING_MS }),
  avoid: fc.constant([]),
});
const ticketsArbitrary = fc
  .array(ticketArbitrary, { maxLength: 40 })
  .map((tickets) => tickets.map((one, index) => ({ ...one, job: `job-${index}` })));

function backlogOf(tickets: readonly Ticket[]): Backlog {
  const backlog = new Backlog();
  for (const one of tickets) backlog.put(one);
  return backlog;
}

/** Hands out everything that an offer fits, one at a time, as a pool with one runner does. */
function handOut(backlog: Backlog, to: Ability): Ticket[] {
  const served: Ticket[] = [];
  for (let entry = backlog.best(to, anyone); entry !== null; entry = backlog.best(to, anyone)) {
    backlog.hold(entry);
    backlog.remove(entry);
    backlog.served(entry.ticket.deployment);
    served.push(entry.ticket);
  }
  return served;
}

describe("fitting", () => {
  it("agrees with what is lacking, and alike needs and offers have one signature", () => {
    fc.assert(
      fc.property(needsArbitrary, offerArbitrary, (needs, offered) => {
        expect(fits(needs, offered)).toBe(lacks(needs, offered).length === 0);
        const shuffled = { ...needs, ...(needs.systems && { systems: needs.systems.toReversed() }) };
        expect(signatureOf(shuffled)).toBe(signatureOf(needs));
      }),
    );
  });

  it.each<[string, Needs, Partial<Ability>, string[]]>([
    ["nothing is needed", {}, {}, []],
    ["a system", { systems: ["aarch64-linux"] }, {}, ["system aarch64-linux"]],
    ["one of two systems", { systems: ["x86_64-linux", "aarch64-linux"] }, {}, ["system aarch64-linux"]],
    ["a feature", { features: ["kvm"] }, { features: ["effects"] }, ["feature kvm"]],
    ["a label", { labels: ["host:king"] }, {}, ["label host:king"]],
    ["weaker isolation", { isolation: "bwrap" }, {}, ["isolation bwrap (has process-group)"]],
    ["equal isolation", { isolation: "bwrap" }, { isolation: "bwrap" }, []],
    ["stronger isolation", { isolation: "bwrap" }, { isolation: "container" }, []],
  ])("names what is lacking: %s", (_, needs, offered, expected) => {
    expect(lacks(needs, offer(offered))).toEqual(expected);
  });
});

describe("the order of tickets", () => {
  it("is total and does not depend on the order in which tickets came", () => {
    fc.assert(
      fc.property(ticketsArbitrary, (tickets) => {
        const forwards = backlogOf(tickets).first(100);
        const backwards = backlogOf(tickets.toReversed()).first(100);
        expect(backwards.map((entry) => entry.ticket.job)).toEqual(forwards.map((entry) => entry.ticket.job));
        forwards.forEach((entry, index) => {
          for (const later of forwards.slice(index + 1)) {
            expect(compare(entry, later)).toBeLessThan(0);
            expect(compare(later, entry)).toBeGreaterThan(0);
          }
        });
      }),
    );
  });

  it("puts urgent work first, and counts ten minutes of waiting as one class", () => {
    const queuedAt = BASE;
    const order = PRIORITIES.map((priority) => rankOf(priority, queuedAt));
    expect(order).toEqual(order.toSorted((a, b) => b - a));
    expect(rankOf("low", queuedAt)).toBe(rankOf("urgent", queuedAt + 3 * AGING_MS));
  });

  it("starves nobody: what comes four classes later goes behind, whatever its class and whoever was served", () => {
    fc.assert(
      fc.property(ticketArbitrary, fc.constantFrom(...PRIORITIES), fc.nat(1_000), (old, priority, turn) => {
        const late = ticket("late", { priority, queuedAt: old.queuedAt + 4 * AGING_MS });
        expect(compare({ ticket: { ...old, job: "old" }, turn }, { ticket: late, turn: 0 })).toBeLessThan(0);
      }),
    );
  });

  it("gives deployments of equal rank their turns", () => {
    const many = ["a1", "a2", "a3", "a4"].map((job, at) => ticket(job, { deployment: "a", queuedAt: BASE + at }));
    const others = ["b1", "c1", "b2"].map((job, at) => ticket(job, { deployment: job[0]!, queuedAt: BASE + 10 + at }));
    const served = handOut(backlogOf([...many, ...others]), offer());
    expect(served.map(({ job }) => job)).toEqual(["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
  });

  it("never lets one deployment of equal rank be ahead of a waiting one by more than one turn", () => {
    const sized = fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 2, maxLength: 5 });
    fc.assert(
      fc.property(sized, (sizes) => {
        const tickets = sizes.flatMap((size, of) =>
          Array.from({ length: size }, (_, at) =>
            ticket(`${of}-${at}`, { deployment: `d${of}`, queuedAt: BASE + 10 * of + at }),
          ),
        );
        const left = new Map(sizes.map((size, of) => [`d${of}`, size]));
        const turns = new Map(sizes.map((_, of) => [`d${of}`, 0]));
        for (const { deployment } of handOut(backlogOf(tickets), offer())) {
          left.set(deployment, left.get(deployment)! - 1);
          turns.set(deployment, turns.get(deployment)! + 1);
          for (const [other, count] of left)
            if (count > 0) expect(turns.get(deployment)! - turns.get(other)!).toBeLessThanOrEqual(1);
        }
      }),
    );
  });
});

describe("the backlog", () => {
  it("hands out exactly the tickets that fit, each once, and the best of them first", () => {
    fc.assert(
      fc.property(ticketsArbitrary, offerArbitrary, (tickets, offered) => {
        const backlog = backlogOf(tickets);
        const best = backlog.first(100).find((entry) => fits(entry.ticket.needs, offered));
        const served = handOut(backlog, offered);
        expect(served[0]?.job).toBe(best?.ticket.job);
        const fitting = tickets.filter((one) => fits(one.needs, offered)).map((one) => one.job);
        expect(served.map((one) => one.job).sort()).toEqual(fitting.sort());
        expect(backlog.size).toBe(tickets.length - fitting.length);
      }),
    );
  });

  it("counts as position what the least burdened fitting kind of runner would take first", () => {
    fc.assert(
      fc.property(ticketsArbitrary, fc.array(offerArbitrary, { maxLength: 4 }), (tickets, offers) => {
        const backlog = backlogOf(tickets);
        const order = backlog.first(100);
        order.forEach((entry, place) => {
          const ahead = order.slice(0, place).map((other) => other.ticket.needs);
          const lines = offers
            .filter((one) => fits(entry.ticket.needs, one))
            .map((one) => ahead.filter((needs) => fits(needs, one)).length);
          const own = ahead.filter((needs) => signatureOf(needs) === signatureOf(entry.ticket.needs)).length;
          expect(backlog.position(entry, offers)).toBe(lines.length > 0 ? Math.min(...lines) : own);
        });
      }),
    );
  });

  it("keeps a held entry from everybody, takes its newer ticket, and gives it back at its new place", () => {
    const backlog = backlogOf([ticket("one"), ticket("two", { queuedAt: BASE + 1 })]);
    const held = backlog.best(offer(), anyone)!;
    backlog.hold(held);
    expect(backlog.best(offer(), anyone)?.ticket.job).toBe("two");
    expect(backlog.put(ticket("one", { number: 2, priority: "urgent", needs: { features: ["kvm"] } }))).toBe(held);
    expect(backlog.best(offer({ features: ["kvm"] }), anyone)?.ticket.job).toBe("two");
    backlog.giveBack(held);
    expect(backlog.best(offer({ features: ["kvm"] }), anyone)?.ticket).toMatchObject({ job: "one", number: 2 });
    expect(backlog.best(offer(), anyone)?.ticket.job).toBe("two");
  });

  it("does not bring back what was removed while it was held, nor remove what came after it", () => {
    const backlog = backlogOf([ticket("one")]);
    const held = backlog.best(offer(), anyone)!;
    backlog.hold(held);
    backlog.remove(held);
    const next = backlog.put(ticket("one", { number: 2 }));
    backlog.giveBack(held);
    backlog.remove(held);
    expect(backlog.get("one")).toBe(next);
    expect(backlog.first(10)).toEqual([next]);
  });

  it("answers a poll among 10,000 tickets in far less than a look at each would take", () => {
    const backlog = new Backlog();
    for (let at = 0; at < 10_000; at++)
      backlog.put(ticket(`job-${at}`, { needs: { labels: [`kind:${at % 10}`] }, queuedAt: BASE + at }));
    let looked = 0;
    const allowed = (): boolean => ++looked > 0;
    expect(backlog.best(offer({ labels: ["kind:7"] }), allowed)?.ticket.job).toBe("job-7");
    expect(backlog.best(offer({ labels: ["kind:none"] }), allowed)).toBeNull();
    expect(looked).toBe(1);
  });
});

describe("the fleet", () => {
  const fleetOf = (...runners: [string, Partial<Ability>, number?][]): Fleet => {
    const fleet = new Fleet();
    for (const [id, over, busy] of runners) {
      const { runner } = fleet.see(id, offer({ name: id, ...over }), busy ?? 0, false, BASE);
      fleet.park(runner, `key-${id}`);
    }
    return fleet;
  };
  const picked = (fleet: Fleet, needs: Needs = {}, avoid: string[] = []): string | undefined =>
    fleet.readyPoll(needs, avoid)?.runner.id;

  it("never offers a runner that does not fit, is drained or has no capacity left", () => {
    const fleets = fc.array(fc.record({ offered: offerArbitrary, busy: fc.nat(3), drained: fc.boolean() }));
    fc.assert(
      fc.property(fleets, needsArbitrary, (states, needs) => {
        const fleet = new Fleet();
        states.forEach(({ offered, busy, drained }, index) => {
          const { runner } = fleet.see(`r${index}`, offered, busy, drained, BASE);
          fleet.park(runner, "key");
        });
        const able = states.filter(
          (one) => fits(needs, one.offered) && !one.drained && one.busy < one.offered.capacity,
        );
        const poll = fleet.readyPoll(needs, []);
        expect(poll !== null).toBe(able.length > 0);
        if (poll === null) return;
        expect(lacks(needs, poll.runner.offer)).toEqual([]);
        expect(poll.runner.drained).toBe(false);
        expect(poll.runner.busy).toBeLessThan(poll.runner.offer.capacity);
      }),
    );
  });

  it("prefers the plainest machine, then the one that has waited longest", () => {
    const fleet = fleetOf(["rare", { features: ["kvm"] }], ["first", {}], ["second", {}]);
    expect(picked(fleet)).toBe("first");
    fleet.setAside(fleet.readyPoll({}, [])!);
    expect(picked(fleet)).toBe("second");
    fleet.setAside(fleet.readyPoll({}, [])!);
    expect(picked(fleet)).toBe("rare");
    expect(picked(fleet, { features: ["kvm"] })).toBe("rare");
  });

  it("avoids a runner only while another one that fits is online", () => {
    const fleet = fleetOf(["king", {}], ["queen", {}, 1], ["arm", { systems: ["aarch64-linux"] }]);
    const x86 = { systems: ["x86_64-linux"] };
    expect(picked(fleet, x86, ["king"])).toBeUndefined();
    expect(picked(fleet, x86, ["king", "queen"])).toBe("king");
    fleet.forget(fleet.get("queen")!);
    expect(picked(fleet, x86, ["king"])).toBe("king");
  });

  it("counts what is set aside and handed out against the capacity of a runner with several polls", () => {
    const fleet = new Fleet();
    const { runner } = fleet.see("king", offer({ capacity: 2 }), 1, false, BASE);
    fleet.park(runner, "one");
    fleet.park(runner, "two");
    const poll = fleet.readyPoll({}, [])!;
    fleet.setAside(poll);
    expect(fleet.readyPoll({}, [])).toBeNull();
    fleet.free(poll);
    expect(fleet.readyPoll({}, [])).not.toBeNull();
    fleet.assigned(runner);
    fleet.leave(poll);
    expect(fleet.readyPoll({}, [])).toBeNull();
    fleet.see("king", offer({ capacity: 2 }), 1, false, BASE + 1);
    expect(fleet.readyPoll({}, [])?.requestKey).toBe("two");
  });

  it("ends the oldest polls of a runner that holds more than its capacity", () => {
    const fleet = fleetOf(["king", { capacity: 2 }]);
    const king = fleet.get("king")!;
    expect(fleet.park(king, "second").ended).toEqual([]);
    expect(fleet.park(king, "third").ended.map((poll) => poll.requestKey)).toEqual(["key-king"]);
    expect(fleet.parkedCount).toBe(2);
  });

  it("takes a second poll with the same key as the same poll, with what is set aside for it", () => {
    const fleet = fleetOf(["king", {}]);
    const poll = fleet.readyPoll({}, [])!;
    fleet.setAside(poll);
    poll.over = true;
    expect(fleet.park(poll.runner, "key-king")).toEqual({ poll, ended: [] });
    expect(poll).toMatchObject({ state: "aside", over: false });
    expect(fleet.parkedCount).toBe(1);
  });

  it("takes a runner offline that has missed two holds, unless it has a poll parked", () => {
    const fleet = fleetOf(["king", {}]);
    const poll = fleet.readyPoll({}, [])!;
    expect(fleet.expire(BASE + OFFLINE_MS)).toBe(false);
    fleet.leave(poll);
    expect(fleet.nextExpiryAt()).toBe(BASE + 2 * LIMITS.pollHoldMs);
    expect(fleet.expire(BASE + OFFLINE_MS - 1)).toBe(false);
    expect(fleet.expire(BASE + OFFLINE_MS)).toBe(true);
    expect(fleet.nextExpiryAt()).toBeNull();
    expect(fleet.offers()).toEqual([]);
    expect(fleet.see("king", offer(), 0, false, BASE + OFFLINE_MS + 1).changed).toBe(true);
  });
});
