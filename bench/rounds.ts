import { randomUUID } from "node:crypto";
import { startEmbeddedBroker } from "../cli/src/dev/embedded-broker.ts";
import { openBroker } from "./broker.ts";
import { startWorker } from "./engine.ts";
import { openHttp } from "./http.ts";
import { type Measure, openScenarios } from "./latency.ts";
import type { Samples } from "./latency-report.ts";
import { listen } from "./socket.ts";

/** Rounds over all scenarios, so that a change of the machine's mood meets all of them. */
const ROUNDS = 3;
/** Samples that are thrown away at the beginning of each scenario in each round. */
const WARM_UP = 15;

/** Times every scenario beside the floors, `perRound` samples in each of three rounds; every other round goes backwards. */
export async function measureLatency(
  perRound: number,
  folderOf: (name: string) => string,
  say: (line: string) => void,
): Promise<Samples> {
  const samples: Record<Measure, number[]> = {
    floorPoll: [],
    floorFrame: [],
    fastPath: [],
    backlog: [],
    queuedEvent: [],
    runningEvent: [],
    cancel: [],
  };
  const floorRun = await startWorker({ file: "floor.ts", objects: { FLOOR: "Floor" }, folder: folderOf("floor") });
  const floor = openHttp(floorRun.url);
  const floorSocket = await listen(`${floorRun.url}/socket`);
  const adminToken = randomUUID();
  const run = await startEmbeddedBroker({ port: 0, stateDir: folderOf("broker"), adminToken }, say);
  if ("refused" in run) throw new Error(run.refused);
  try {
    const broker = await openBroker(run.url, adminToken);
    const scenarios = await openScenarios(floor, floorSocket, broker);
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const scenario of round % 2 === 0 ? scenarios : scenarios.toReversed()) {
        say(`round ${round + 1} of ${ROUNDS}: ${scenario.name}`);
        for (let index = -WARM_UP; index < perRound; index += 1) {
          const taken = Object.entries(await scenario.sample(index + WARM_UP)) as [Measure, number][];
          if (index >= 0) for (const [measure, ms] of taken) samples[measure].push(ms);
        }
      }
    }
    broker.http.close();
  } finally {
    floorSocket.close();
    floor.close();
    await run.stop();
    await floorRun.stop();
  }
  return samples;
}
