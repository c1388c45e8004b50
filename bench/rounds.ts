import { randomUUID } from "node:crypto";
import { startEmbeddedBroker } from "../cli/src/dev/embedded-broker.ts";
import { openBroker } from "./broker.ts";
import { startWorker } from "./engine.ts";
import { openHttp } from "./http.ts";
import { type Measure, openScenarios } from "./latency.ts";
import type { Samples } from "./latency-report.ts";
import { listen } from "./socket.ts";

/** Rounds over all scenarios, and blocks in a round: what else the machine does meets all scenarios alike. */
const ROUNDS = 3;
const BLOCK_SAMPLES = 10;
/** Samples of each scenario that are thrown away at the beginning: until code is compiled. */
const WARM_UP = 30;

/** Times every scenario beside the floors in three rounds of so many blocks; every other block goes backwards. */
export async function measureLatency(
  blocksPerRound: number,
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
    for (const scenario of scenarios) for (let index = 0; index < WARM_UP; index += 1) await scenario(index);
    for (let block = 0; block < ROUNDS * blocksPerRound; block += 1) {
      if (block % blocksPerRound === 0) say(`round ${block / blocksPerRound + 1} of ${ROUNDS}`);
      for (const scenario of block % 2 === 0 ? scenarios : scenarios.toReversed()) {
        for (let index = 0; index < BLOCK_SAMPLES; index += 1) {
          const taken = Object.entries(await scenario(index)) as [Measure, number][];
          for (const [measure, ms] of taken) samples[measure].push(ms);
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
