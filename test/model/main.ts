// The larger scopes of the model, for a night: `npm run model`, or `npm run model -- <words of a scope's name>`.
import { REAL } from "./core.ts";
import { describeFailure, describeFound, describeTrace } from "./report.ts";
import { largeLockScopes, lockScopes } from "./lock-scopes.ts";
import { searchLocks } from "./lock-steps.ts";
import { REAL_LOCKS } from "./lock-world.ts";
import { defaultScopes, largeScopes } from "./scopes.ts";
import { search } from "./search.ts";

/** States that fit into the memory of an ordinary machine, with the steps between them about 100 bytes each. */
const MAX_STATES = 100_000_000;

/** How often a search that goes on says how far it is, ms. */
const TELL_MS = 30_000;

const words = process.argv.slice(2).join(" ");
let failed = false;
for (const scope of [...defaultScopes(), ...largeScopes()].filter(({ name }) => name.includes(words))) {
  let told = performance.now();
  const found = search(REAL, scope, MAX_STATES, (soFar) => {
    if (performance.now() - told < TELL_MS) return;
    told = performance.now();
    process.stderr.write(`${describeFound(scope, soFar)} so far\n`);
  });
  process.stdout.write(`${describeFound(scope, found)}\n`);
  if (found.failure === null) continue;
  failed = true;
  process.stdout.write(`${describeFailure(scope, found.failure)}\n`);
}
for (const scope of [...lockScopes(), ...largeLockScopes()].filter(({ name }) => name.includes(words))) {
  const found = searchLocks(REAL_LOCKS, scope, MAX_STATES);
  process.stdout.write(`${describeFound(scope, found)}\n`);
  if (found.failure === null) continue;
  failed = true;
  process.stdout.write(`${describeTrace(found.failure)}\n`);
}
process.exitCode = failed ? 1 : 0;
