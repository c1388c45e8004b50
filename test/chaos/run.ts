import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkHistory } from "./check.ts";
import type { Counts } from "./counts.ts";
import type { Finding } from "./history.ts";
import { type RoundPlan, runRound } from "./round.ts";

/** What a round came to. `folder` is there when something was found: it holds the history and what the runners said. */
export type RoundReport = { findings: readonly Finding[]; counts: Counts; folder: string | null };

/** Runs one round in a folder of its own, and checks its history. Nothing is kept of a round in which nothing was found. */
export async function runAndCheck(
  plan: RoundPlan,
  say: (line: string) => void = () => {},
  leave: AbortSignal = new AbortController().signal,
): Promise<RoundReport> {
  const folder = await mkdtemp(join(tmpdir(), "plumule-chaos-"));
  const { history, counts } = await runRound(plan, { folder, say, leave }).catch((cause: unknown) => {
    throw new Error(`${plan.seed}: the round broke off; what there is of it is in ${folder}`, { cause });
  });
  const findings = checkHistory(history);
  if (findings.length > 0) {
    await writeFile(join(folder, "history.json"), JSON.stringify({ plan, findings, counts, history }, null, 1));
    return { findings, counts, folder };
  }
  // A Nix store makes its folders read-only.
  execFileSync("chmod", ["-R", "u+w", folder]);
  await rm(folder, { recursive: true, force: true });
  return { findings, counts, folder: null };
}

/** One line per finding, with where the history is. */
export function describeFindings(seed: string, { findings, folder }: RoundReport): string {
  return findings.length === 0
    ? `${seed}: every promise was kept`
    : [
        `${seed}: ${findings.length} broken, history in ${folder}`,
        ...findings.map(({ promise, detail }) => `  ${promise}: ${detail}`),
      ].join("\n");
}
