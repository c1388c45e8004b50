// One process that simulates: it is told seeds by its arguments, and tells what became of each in a line of JSON.
import { hookModules, type SourceChange } from "./platform/modules.ts";
import type { SimulateOptions, Product } from "./simulate.ts";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    from: { type: "string" },
    count: { type: "string", default: "1" },
    trace: { type: "boolean", default: false },
    changes: { type: "string", default: "[]" },
    bug: { type: "string" },
  },
});
hookModules(JSON.parse(values.changes) as SourceChange[]);
const { currentWorld, enterWorld, replaceGlobals } = await import("./platform/globals.ts");
const { World } = await import("./platform/world.ts");
const write = process.stdout.write.bind(process.stdout);
replaceGlobals();
// Modules may draw a number when they are loaded.
enterWorld(new World(0));
const { default: app, Deployment, Namespace, Pool } = await import("../../src/worker.ts");
const { startRunner } = await import("../../runner/src/runner.ts");
// What the product loads when it needs it has to be there, since loading takes turns of the real event loop.
await import("@plumule/protocol/seal");
await import("../../runner/src/secrets/run-secrets.ts");
const { simulate } = await import("./simulate.ts");
// What a promise of the product rejects with and nobody hears is a fault of the product.
process.on("unhandledRejection", (error) => currentWorld().fault(error));

if (!values.trace) Error.stackTraceLimit = 3;
const product = { app, Deployment, Namespace, Pool, startRunner } as unknown as Product;
const first = Number(values.from);
for (let seed = first; seed < first + Number(values.count); seed += 1) {
  const options: SimulateOptions = {
    say: values.trace ? (line) => write(`${line}\n`) : null,
    ...(values.bug === undefined ? {} : { bug: values.bug as NonNullable<SimulateOptions["bug"]> }),
  };
  write(`${JSON.stringify(await simulate(product, seed, options))}\n`);
}
process.exit(0);
