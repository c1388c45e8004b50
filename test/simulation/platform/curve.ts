// In place of `@noble/ed25519`: whether a key is one to trust takes a millisecond, and a world asks it of few keys again and again.
import { Point as RealPoint } from "@noble/ed25519";

type Answers = { isSmallOrder(): boolean; isTorsionFree(): boolean };
const known = new Map<string, Answers>();

export const Point = {
  fromBytes(bytes: Uint8Array, zip215: boolean): Answers {
    const name = Buffer.from(bytes).toString("base64");
    const found = known.get(name);
    if (found !== undefined) return found;
    const point = RealPoint.fromBytes(bytes, zip215);
    const [small, free] = [point.isSmallOrder(), point.isTorsionFree()];
    const answers = { isSmallOrder: () => small, isTorsionFree: () => free };
    known.set(name, answers);
    return answers;
  },
};
