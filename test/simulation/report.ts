import { execFileSync } from "node:child_process";
import type { Fault } from "./platform/faults.ts";
import type { Outcome } from "./simulate.ts";

/** What was simulated, added up. */
export class Tally {
  seedCount = 0;
  #simulatedMs = 0;
  #stepCount = 0;
  #eventCount = 0;
  readonly #faults = new Map<Fault, number>();

  add({ simulatedMs, stepCount, eventCount, faults }: Outcome): void {
    this.seedCount += 1;
    this.#simulatedMs += simulatedMs;
    this.#stepCount += stepCount;
    this.#eventCount += eventCount;
    for (const [fault, count] of Object.entries(faults))
      this.#faults.set(fault as Fault, (this.#faults.get(fault as Fault) ?? 0) + count);
  }

  /** How often each fault struck. */
  get faults(): ReadonlyMap<Fault, number> {
    return this.#faults;
  }

  describe(): string {
    const hours = (this.#simulatedMs / 3_600_000).toFixed(1);
    const faults = [...this.#faults].toSorted(([, a], [, b]) => b - a).map(([fault, count]) => `${count} ${fault}`);
    const total = [...this.#faults.values()].reduce((sum, count) => sum + count, 0);
    return [
      `${this.seedCount} seeds, ${hours} simulated hours, ${this.#stepCount} steps, ${this.#eventCount} events checked`,
      `${total} faults: ${faults.join(", ")}`,
    ].join("\n");
  }
}

/** One line that says what broke and how to see it again. */
export function describeFailure({ seed, violation }: Outcome): string {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: import.meta.dirname })
    .toString()
    .trim();
  const [what = ""] = (violation ?? "").split("\n");
  return `seed ${seed} at ${commit}: ${what} (npm run simulate -- --seed ${seed} --trace)`;
}
