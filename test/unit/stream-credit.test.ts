import { LIMITS } from "@plumule/protocol";
import * as fc from "fast-check";
import { expect, it } from "vitest";
import { FULL_CREDIT, isStalled, redeem, roomIn, shareOf, spend, type Credit } from "#durable-objects/shared/credit.ts";
import { wholeCharacters } from "#durable-objects/shared/log-feed.ts";

const unread = ({ marks, characters }: Credit): number =>
  marks.reduce((sum, mark) => sum + mark.characters, characters);

it("never leaves a client without room that has nothing to send back, however its share changes", () => {
  const steps = fc.array(
    fc.record({
      length: fc.integer({ min: 1, max: 400_000 }),
      sockets: fc.integer({ min: 1, max: LIMITS.sockets }),
      returns: fc.boolean(),
    }),
  );
  fc.assert(
    fc.property(steps, (script) => {
      let credit = FULL_CREDIT;
      let number = 0;
      for (const { length, sockets, returns } of script) {
        const share = shareOf(sockets);
        const before = unread(credit);
        if (roomIn(credit, share) > 0)
          credit = spend(credit, "x".repeat(length), share, () => ({ number: (number += 1), at: 0 })).credit;
        expect(unread(credit)).toBeLessThanOrEqual(Math.max(before, LIMITS.socketBufferBytes + length));
        if (roomIn(credit, share) <= 0) expect(credit.marks.length).toBeGreaterThan(0);
        if (returns && credit.marks.length > 0) credit = redeem(credit, credit.marks.at(-1)?.number ?? 0) ?? credit;
        if (returns) expect(credit.marks).toHaveLength(0);
      }
    }),
    { numRuns: 200 },
  );
});

it("gives a share that all sockets together can have", () => {
  expect(shareOf(0)).toBe(LIMITS.socketBufferBytes);
  expect(shareOf(1)).toBe(LIMITS.socketBufferBytes);
  expect(shareOf(LIMITS.sockets) * LIMITS.sockets).toBeLessThanOrEqual(LIMITS.objectBufferBytes);
});

it("takes a mark back once, with those before it, and no other", () => {
  const marks = [1, 2, 3].map((number) => ({ number, at: 0, characters: 10 }));
  const credit = { marks, characters: 5 };
  expect(redeem(credit, 2)).toEqual({ marks: [marks[2]], characters: 5 });
  expect(redeem(credit, 4)).toBeNull();
});

it("calls a client stalled only when it is out of room and its oldest mark is old", () => {
  const share = 100;
  const full = { marks: [{ number: 1, at: 1_000, characters: 100 }], characters: 0 };
  expect(isStalled(full, share, 1_000 + LIMITS.socketStallMs)).toBe(false);
  expect(isStalled(full, share, 1_001 + LIMITS.socketStallMs)).toBe(true);
  expect(isStalled(full, 2 * share, 1_001 + LIMITS.socketStallMs)).toBe(false);
  expect(isStalled(FULL_CREDIT, share, Number.MAX_SAFE_INTEGER)).toBe(false);
});

it("cuts text only between characters, wherever it is cut", () => {
  const bytes = new TextEncoder().encode("aé€🌱z");
  const ends = Array.from(bytes, (_, length) => wholeCharacters(bytes.subarray(0, length)));
  expect(ends).toEqual([0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10]);
  expect(wholeCharacters(bytes)).toBe(bytes.length);
  expect(wholeCharacters(Uint8Array.of(0x80, 0x80, 0x80, 0x80))).toBe(4);
});
