import { InvalidArgumentError } from "commander";

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
