import { constants } from "node:fs";
import { access, mkdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { type EmbeddedBroker, startEmbeddedBroker } from "./embedded-broker.ts";
import { type EmbeddedRunner, startEmbeddedRunner } from "./embedded-runner.ts";
import {
  type ConfirmedCredentials,
  loadCredentials,
  LOCAL_NAMESPACE,
  mintRegistration,
  openLocalNamespace,
  writePrivately,
} from "./local-namespace.ts";

/** What to start. */
export type InstanceOptions = {
  port: number;
  host: string;
  stateDir: string;
  runner: boolean;
  /** Builds go into a Nix store inside `stateDir` even where the system's could be used. */
  ownStore?: boolean;
};

/** Broker and runner on this machine. `stop` ends both; the state stays. */
export type Instance = {
  url: string;
  /** May do everything in the namespace. */
  token: string;
  broker: EmbeddedBroker;
  runner: EmbeddedRunner | null;
  /** `graceMs` is what running jobs get to end, unless `hurry` aborts; they begin again with the next start. */
  stop(graceMs: number, hurry: AbortSignal): Promise<void>;
};

/** Says what happens, and who says it. */
export type Say = (who: "broker" | "runner", line: string) => void;

/**
 * Starts a broker and, unless told otherwise, one runner, with everything in `stateDir`, and writes `dev.json` there, where the command line
 * finds them. A second start on the same folder goes on where the first ended.
 */
export async function startInstance(options: InstanceOptions, say: Say): Promise<Instance | { refused: string }> {
  const { stateDir } = options;
  const opened = await openBroker(options, say);
  if ("refused" in opened) return opened;
  const { broker, credentials } = opened;
  const runner = options.runner ? await startRunner(broker, credentials, options, say) : null;
  if (runner !== null && "refused" in runner) {
    await broker.stop();
    return runner;
  }
  const file = join(stateDir, "dev.json");
  const { url } = broker;
  const { token, adminToken } = credentials;
  await writePrivately(file, { url, namespace: LOCAL_NAMESPACE, token, adminToken, pid: process.pid });
  return {
    url,
    token,
    broker,
    runner,
    async stop(graceMs, hurry) {
      // First the file: nobody should be sent to a broker that is going.
      await rm(file, { force: true });
      await runner?.stop(graceMs, hurry);
      await broker.stop();
    },
  };
}

/** The page's token is made by the broker that hands it out, so the first start takes two. */
async function openBroker(
  { port, host, stateDir }: InstanceOptions,
  say: Say,
): Promise<{ broker: EmbeddedBroker; credentials: ConfirmedCredentials } | { refused: string }> {
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  const known = await loadCredentials(stateDir);
  const start = (pageToken: string | undefined): ReturnType<typeof startEmbeddedBroker> => {
    const page = pageToken === undefined ? {} : { page: { namespace: LOCAL_NAMESPACE, token: pageToken } };
    const { adminToken } = known;
    return startEmbeddedBroker({ port, host, stateDir, adminToken, ...page }, (line) => say("broker", line));
  };
  const broker = await start(known.pageToken);
  if ("refused" in broker) return broker;
  const credentials = await openLocalNamespace(broker.url, stateDir, known);
  if (credentials.pageToken === known.pageToken) return { broker, credentials };
  await broker.stop();
  const again = await start(credentials.pageToken);
  return "refused" in again ? again : { broker: again, credentials };
}

/** The folder of the Nix store that an instance has for itself. */
export function nixStoreOf(stateDir: string): string {
  return join(stateDir, "nix");
}

async function startRunner(
  { url }: EmbeddedBroker,
  { token }: ConfirmedCredentials,
  { stateDir, ownStore = false }: InstanceOptions,
  say: Say,
): Promise<EmbeddedRunner | { refused: string }> {
  const store = !ownStore && (await hasUsableStore()) ? {} : { nixStore: nixStoreOf(stateDir) };
  return startEmbeddedRunner(
    {
      url,
      namespace: LOCAL_NAMESPACE,
      state: join(stateDir, "runner"),
      registration: await mintRegistration(url, token),
      capacity: Math.min(availableParallelism(), 4),
      // Broker, runner and the repositories belong to the person at this machine.
      allowLocal: true,
      // What this command starts ends with it.
      outlive: false,
      ...store,
    },
    (line) => say("runner", line),
  );
}

/** Whether this user may build into the system's Nix store, through its daemon or directly. */
async function hasUsableStore(): Promise<boolean> {
  const ways = ["/nix/var/nix/daemon-socket/socket", "/nix/store"].map((path) => access(path, constants.W_OK));
  return Promise.any(ways).then(
    () => true,
    () => false,
  );
}
