import { waitMs } from "@plumule/protocol";
import { BROKER_KILLS, type MortalBroker } from "./broker.ts";
import type { Counts } from "./counts.ts";
import { type MortalRunner, RUNNER_KILLS } from "./fleet.ts";
import { type Random, randomOf } from "./random.ts";

/** How often who is killed: mean times between two kills, ms. */
export type KillPlan = { seed: string; brokerKillEveryMs: number; runnerKillEveryMs: number };

/** Kills broker and runners, each on its own time, until `over`; all of them are back when it resolves. */
export async function killAround(
  { seed, brokerKillEveryMs, runnerKillEveryMs }: KillPlan,
  broker: MortalBroker,
  runners: readonly MortalRunner[],
  over: AbortSignal,
): Promise<Pick<Counts, "brokerKills" | "runnerKills">> {
  const counts = { brokerKills: 0, runnerKills: 0 };
  const around = async (everyMs: number, random: Random, act: () => Promise<void>): Promise<void> => {
    for (;;) {
      await waitMs(random.between(everyMs / 2, (everyMs * 3) / 2), over);
      if (over.aborted) return;
      await act();
    }
  };
  const ofBroker = randomOf(`${seed} end of broker`);
  const ofRunners = randomOf(`${seed} end of runners`);
  await Promise.all([
    around(brokerKillEveryMs, ofBroker, async () => {
      counts.brokerKills += 1;
      await broker.kill(ofBroker.pick(BROKER_KILLS), ofBroker.between(0, 800));
    }),
    around(runnerKillEveryMs, ofRunners, async () => {
      const runner = runners[ofRunners.between(0, runners.length - 1)];
      if (runner === undefined) return;
      counts.runnerKills += 1;
      await runner.kill(ofRunners.pick(RUNNER_KILLS), ofRunners.between(0, 1_000));
    }),
  ]);
  return counts;
}

/** Measures the engine's memory until `stop`, which answers the most that it ever was, bytes. */
export function measureEngine(broker: MortalBroker): { stop(): number } {
  let maxBytes = 0;
  const timer = setInterval(() => (maxBytes = Math.max(maxBytes, broker.engineBytes())), 250);
  return {
    stop() {
      clearInterval(timer);
      return maxBytes;
    },
  };
}
