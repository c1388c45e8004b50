import { LIMITS, type Quorum, quorumSchema } from "@plumule/protocol";
import { InvalidArgumentError } from "commander";
import { durationOf } from "./times.ts";

/** For flags that may be given several times. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

/** For flags that take a whole number of at least `least`. */
export function wholeNumber(least: number): (value: string) => number {
  return (value) => {
    const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
    if (!(number >= least)) throw new InvalidArgumentError(`A whole number of at least ${least} is expected.`);
    return number;
  };
}

/** For flags `NAME=VALUE` that may be given several times. */
export function collectPairs(value: string, before: Record<string, string> = {}): Record<string, string> {
  const at = value.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("NAME=VALUE is expected.");
  return { ...before, [value.slice(0, at)]: value.slice(at + 1) };
}

/** For flags `AGREE/REPLICAS` such as `2/3`, or `AGREE` alone, which is all of them. */
export function quorumOf(value: string): Quorum {
  const [, agree, replicas] = /^(\d{1,2})(?:\/(\d{1,2}))?$/.exec(value) ?? [];
  const parsed = quorumSchema.safeParse({ agree: Number(agree), replicas: Number(replicas ?? agree) });
  if (agree === undefined || !parsed.success)
    throw new InvalidArgumentError(
      `AGREE/REPLICAS is expected, such as 2/3: at most ${LIMITS.quorumReplicas} replicas.`,
    );
  return parsed.data;
}

/** For flags that take a time such as `30m` or `8h`, as ms. */
export function msOf(value: string): number {
  const ms = durationOf(value);
  if (ms === null) throw new InvalidArgumentError("Give it as 30m, 8h or 2d.");
  return ms;
}

/** For flags that take a size: a number of bytes, or one with a unit such as `512MiB`, `4G` (1024 each) or `2GB` (1000 each). */
export function bytesOf(value: string): number {
  const [, digits = "", unit = "", base = ""] = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(iB|B)?$/i.exec(value.trim()) ?? [];
  const power = unit === "" ? 0 : "KMGT".indexOf(unit.toUpperCase()) + 1;
  const bytes = Math.floor(Number(digits) * (unit !== "" && base.toUpperCase() === "B" ? 1000 : 1024) ** power);
  if (digits === "" || !Number.isSafeInteger(bytes))
    throw new InvalidArgumentError("A size such as 512MiB or 4GiB is expected.");
  return bytes;
}
