import fc from "fast-check";
import { LIMITS } from "@plumule/protocol";
import { describe, expect, it } from "vitest";
import { type LockRequest, settleLocks } from "../../durable-objects/namespace/core/locks.ts";

const START = Date.UTC(2026, 0, 1);
const CHECK_MS = 30_000;

/** What deployments say, one after the other; each deployment has one job of its own name. */
class Table {
  requests: readonly LockRequest[] = [];
  now = START;
  told: string[] = [];

  ask(deployment: string, locks: string[], number = 1): ReturnType<typeof settleLocks>["answer"] {
    return this.#say({ deployment, released: [], wanted: { job: `job of ${deployment}`, number, locks } });
  }

  release(deployment: string, number = 1): void {
    this.#say({ deployment, released: [{ job: `job of ${deployment}`, number }], wanted: null });
  }

  #say(call: Parameters<typeof settleLocks>[1]): ReturnType<typeof settleLocks>["answer"] {
    const { requests, tell, answer } = settleLocks(this.requests, call, this.now);
    this.requests = requests;
    this.told = tell.map(({ deployment, heldAt }) => `${deployment} ${heldAt === null ? "waits" : "holds"}`);
    return answer;
  }

  get holders(): string[] {
    return this.requests.filter(({ heldAt }) => heldAt !== null).map(({ deployment }) => deployment);
  }
}

function tableOf(...asked: [string, string[]][]): Table {
  const table = new Table();
  for (const [deployment, locks] of asked) table.ask(deployment, locks);
  return table;
}

describe("a lock", () => {
  it("goes to whoever asks first, and then to whoever asked next, who is told", () => {
    const table = new Table();
    expect(table.ask("a", ["x"])).toEqual({ number: 1, wait: null });
    const holder = { deployment: "a", job: "job of a", state: "works" };
    expect(table.ask("b", ["x"])).toEqual({ number: 1, wait: { name: "x", ahead: 1, holder } });
    expect(table.ask("c", ["x"])?.wait).toEqual({ name: "x", ahead: 2, holder });
    table.release("a");
    expect(table.told).toEqual(["b holds"]);
    expect(table.holders).toEqual(["b"]);
  });

  it("is one for several who ask twice or give back twice", () => {
    const table = tableOf(["a", ["x"]], ["b", ["x"]], ["a", ["x"]], ["b", ["x"]]);
    expect(table.requests).toHaveLength(2);
    table.release("a");
    table.release("a");
    expect(table.holders).toEqual(["b"]);
  });

  it("stays with a later request when word about an earlier one comes late", () => {
    const table = tableOf(["a", ["x"]]);
    table.ask("a", ["x"], 5);
    table.release("a", 1);
    expect(table.holders).toEqual(["a"]);
    expect(table.ask("a", ["x"], 1)).toEqual({ number: 5, wait: null });
    table.release("a", 5);
    expect(table.requests).toEqual([]);
  });

  it("of another deployment is not given back by somebody else's word", () => {
    const table = tableOf(["a", ["x"]]);
    settleLocks(table.requests, { deployment: "b", released: [{ job: "job of a", number: 9 }], wanted: null }, START);
    expect(table.holders).toEqual(["a"]);
  });

  it("is asked after while others wait for it, but not at every question", () => {
    const table = tableOf(["a", ["x"]], ["b", ["x"]]);
    expect(table.told).toEqual([]);
    table.now += CHECK_MS;
    table.ask("b", ["x"]);
    expect(table.told).toEqual(["a holds"]);
    table.ask("c", ["x"]);
    expect(table.told).toEqual(["b waits"]);
    table.ask("b", ["x"]);
    expect(table.told).toEqual([]);
  });
});

describe("several locks", () => {
  it("are all held or none", () => {
    const table = tableOf(["a", ["x"]], ["b", ["y", "x"]]);
    expect(table.holders).toEqual(["a"]);
    table.release("a");
    expect(table.holders).toEqual(["a", "b"].slice(1));
  });

  it("are kept for the first, so that whoever needs many is not overtaken for ever", () => {
    const table = tableOf(["a", ["x"]], ["b", ["x", "y"]]);
    const holder = { deployment: "b", job: "job of b", state: "waits" };
    expect(table.ask("c", ["y"])?.wait).toEqual({ name: "y", ahead: 1, holder });
    table.release("a");
    expect(table.holders).toEqual(["b"]);
  });

  it("of those that share none are held at the same time", () => {
    expect(tableOf(["a", ["x"]], ["b", ["y"]], ["c", ["z"]]).holders).toEqual(["a", "b", "c"]);
  });

  it("are refused a place beyond the limit, and get one when there is one", () => {
    const table = new Table();
    const locks = Array.from({ length: LIMITS.lockRequests }, (_, index): LockRequest => ({
      position: index + 1,
      deployment: `d${index}`,
      job: `job of d${index}`,
      number: 1,
      locks: [`x${index}`],
      askedAt: START,
      heldAt: START,
      checkedAt: START,
    }));
    table.requests = locks;
    expect(table.ask("late", ["y"])?.wait).toEqual({ name: "y", ahead: LIMITS.lockRequests });
    expect(table.requests).toHaveLength(LIMITS.lockRequests);
    table.release("d0");
    expect(table.ask("late", ["y"])?.wait).toBeNull();
  });
});

it("whatever is said in whatever order: no lock is held twice, nobody is overtaken, and all have their turn", () => {
  const names = fc.uniqueArray(fc.constantFrom("x", "y", "z"), { minLength: 1 });
  const deployment = fc.constantFrom("a", "b", "c", "d", "e");
  const word = fc.record({ deployment, locks: names, ends: fc.boolean(), number: fc.integer({ min: 1, max: 3 }) });
  fc.assert(
    fc.property(fc.array(word, { maxLength: 30 }), (words) => {
      const table = new Table();
      for (const { deployment: of, locks, ends, number } of words) {
        const held = new Set(table.holders);
        if (ends) table.release(of, number);
        else table.ask(of, table.requests.find((one) => one.deployment === of)?.locks.slice() ?? locks, number);
        const holding = table.requests.filter(({ heldAt }) => heldAt !== null);
        const taken = holding.flatMap((one) => one.locks);
        expect(new Set(taken).size).toBe(taken.length);
        for (const [index, one] of table.requests.entries()) {
          const first = table.requests
            .slice(0, index)
            .every((other) => !other.locks.some((x) => one.locks.includes(x)));
          expect(one.heldAt !== null).toBe(first);
        }
        for (const one of held) expect(table.holders.includes(one) || (ends && one === of)).toBe(true);
      }
      for (let left = table.requests.length; left > 0; left -= 1) {
        const [first = ""] = table.holders;
        table.release(first, 3);
      }
      expect(table.requests).toEqual([]);
    }),
    { numRuns: 300 },
  );
});
