import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import {
  parseDerivationFile,
  parseDerivations,
  parseDryRun,
  planBuild,
  type DerivationNode,
  type Plan,
} from "./plan.ts";
import { NEW_COMMANDS, capture, captureOk, type NixContext } from "./run.ts";

/** Store paths per command, far below the kernel's limit for arguments. */
const PATHS_PER_COMMAND = 500;

/** The plan for derivations: what would be built, what fetched, what is there. Incomplete when `context.signal` aborts. */
export async function planTargets(context: NixContext, roots: readonly string[]): Promise<Plan> {
  const dryRun = await captureOk(context, ["nix-store", "--realise", "--dry-run", ...roots]);
  const plan = parseDryRun(dryRun.stderr);
  const building = await describeDerivations(context, [...new Set([...roots, ...plan.willBuild])]);
  const known = new Set(building.map(({ drv }) => drv));
  const toBuild = new Set(plan.willBuild);
  const frontier = new Set(building.filter(({ drv }) => toBuild.has(drv)).flatMap(({ inputs }) => inputs));
  const inputs = await describeDerivations(
    context,
    [...frontier].filter((drv) => !known.has(drv)),
  );
  return planBuild(roots, [...building, ...inputs], plan);
}

/**
 * What the store's derivations look like, without their own inputs' derivations. Their files say it at once; Nix is asked about those that
 * cannot be read here, as in a store whose folder lies elsewhere than its paths say. Incomplete when `context.signal` aborts.
 */
export async function describeDerivations(context: NixContext, drvs: readonly string[]): Promise<DerivationNode[]> {
  const nodes = drvs.flatMap((drv) => readDerivation(drv) ?? []);
  const known = new Set(nodes.map(({ drv }) => drv));
  const unread = drvs.filter((drv) => !known.has(drv));
  for (let from = 0; from < unread.length; from += PATHS_PER_COMMAND) {
    const batch = unread.slice(from, from + PATHS_PER_COMMAND);
    const shown = await capture(context, ["nix", ...NEW_COMMANDS, "derivation", "show", ...batch]);
    // 2.8 has the command under its older name only.
    const { stdout } =
      shown.exitCode === 0 ? shown : await captureOk(context, ["nix", ...NEW_COMMANDS, "show-derivation", ...batch]);
    if (context.signal?.aborted === true) break;
    nodes.push(...parseDerivations(stdout, dirname(batch[0] ?? "")));
  }
  return nodes;
}

function readDerivation(drv: string): DerivationNode | null {
  try {
    return parseDerivationFile(drv, readFileSync(drv, "utf8"));
  } catch {
    return null;
  }
}
