import { didKeyOf } from "@plumule/protocol";
import { type Broker, connectBroker, type StandaloneCalls } from "../broker.ts";
import { type RunnerConfig, type RunnerFolders } from "../config.ts";
import { countCalls, type Counters } from "../health/counters.ts";
import type { Journal } from "../journal.ts";
import type { JournalRecord, SpoolRecord } from "../records.ts";
import type { Spool } from "../spool.ts";
import { Desk } from "./desk.ts";
import { withDesk } from "./local-broker.ts";

/** Who gives the runner work: the broker, the runner itself, or both. `broker` is what the runner asks; `remote` the one that is told what was done without it. */
export type Givers = { broker: Broker; remote: StandaloneCalls | null; desk: Desk | null };

type Connection = Omit<Parameters<typeof connectBroker>[0], "baseUrl" | "namespace" | "runner">;

/** Opens whoever the configuration names; its schema wants at least one. */
export async function openGivers(
  { url, namespace, follow }: RunnerConfig,
  { standalone: folder, runs }: RunnerFolders,
  {
    connection,
    counters,
    journal,
    spool,
    say,
  }: {
    connection: Connection;
    counters: Counters;
    journal: Journal<JournalRecord>;
    spool: Spool<SpoolRecord>;
    say: (line: string) => void;
  },
): Promise<Givers> {
  const runner = didKeyOf(connection.signer.publicKey);
  const remote =
    url === undefined ? null : countCalls(connectBroker({ ...connection, baseUrl: url, namespace, runner }), counters);
  if (follow.length === 0) {
    if (remote === null) throw new Error("a runner without a broker follows a repository");
    return { broker: remote, remote, desk: null };
  }
  const known = new Set([...journal.list().keys(), ...spool.pending().map(({ runId }) => runId)]);
  const now = (): number => Date.now();
  const deps = { folder, runs, namespace, hasBroker: remote !== null, now, say };
  const desk = await Desk.open(deps, (run) => known.has(run));
  say(`following ${follow.join(", ")}`);
  return { broker: withDesk(remote, desk, now), remote, desk };
}
