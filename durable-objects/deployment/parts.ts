import { deploymentSource, type DeploymentId, type Event, type NamespaceId } from "@plumule/protocol";
import type { Env } from "../env.ts";
import { createEventLog, type EventLog } from "../shared/event-log.ts";
import { createHistory, type History } from "../shared/history.ts";
import { migrate } from "../shared/migrate.ts";
import { DIRECTORY, namespaceObject, poolObject } from "../shared/names.ts";
import { createWatchers, type Watchers } from "../shared/watchers.ts";
import { Answers } from "./answers.ts";
import { type Ballots, createBallots } from "./ballots.ts";
import { createDispatcher, type Dispatcher } from "./dispatcher.ts";
import { createExecs, type Execs } from "./execs.ts";
import { createFences } from "./fences.ts";
import { createHeldHeartbeats, type HeldHeartbeats } from "./held-heartbeats.ts";
import { createLedger, isPublished, type Ledger } from "./ledger.ts";
import { createLocks, type Locks } from "./locks.ts";
import { MIGRATIONS } from "./migrations.ts";
import { createPools, type Pools } from "./pools.ts";
import { createPublisher, type Publisher } from "./publisher.ts";
import { createRequests, type Requests } from "./requests.ts";
import { RunBytes } from "./run-bytes.ts";
import { Store } from "./store.ts";
import { createSummaries, type Summaries } from "./summaries.ts";

/** What a deployment is made of. */
export type Parts = {
  store: Store;
  bytes: RunBytes;
  log: EventLog;
  ledger: Ledger;
  answers: Answers;
  ballots: Ballots;
  requests: Requests;
  history: History;
  watchers: Watchers;
  held: HeldHeartbeats;
  execs: Execs;
  pools: Pools;
  dispatcher: Dispatcher;
  locks: Locks;
  publisher: Publisher;
  summaries: Summaries;
};

/** What a deployment object is called. */
export type Identity = { namespace: NamespaceId; deployment: DeploymentId };

/** Reads an object's name, `namespace/deployment`: both ids were checked at the edge, and neither holds a slash. Throws for any other object. */
export function identityOf(id: DurableObjectId): Identity {
  const [namespace, deployment] = id.name?.split("/") ?? [];
  if (namespace === undefined || deployment === undefined)
    throw new Error("a deployment object is named namespace/deployment");
  return { namespace, deployment };
}

/** Wires a deployment together, and brings its tables up to date. */
export function openParts(ctx: DurableObjectState, env: Env, { namespace, deployment }: Identity): Parts {
  const { storage } = ctx;
  migrate(storage, MIGRATIONS);
  const store = new Store(storage.sql);
  const bytes = new RunBytes(storage.sql);
  const log = createEventLog(storage, deploymentSource(namespace, deployment));
  const waitUntil = (work: Promise<unknown>): void => ctx.waitUntil(work);
  const now = (): number => Date.now();

  const pools = createPools((pool) => poolObject(env, namespace, pool));
  const namespaceCalls = namespaceObject(env, namespace);

  const committed = (events: readonly Event[]): void => {
    watchers.published(events);
    history.wake();
    held.wake();
    if (events.some(({ type }) => isPublished(type))) publisher.schedule();
    dispatcher.send();
    asking.locks.send();
    asking.summaries.send();
  };
  const publisher = createPublisher({
    log,
    fences: createFences(),
    waitUntil,
    now,
    ledger: () => ledger,
    publish: (call) => namespaceCalls.publish(call),
  });
  const ledger = createLedger({
    state: store.load(namespace, deployment),
    storage,
    store,
    bytes,
    log,
    now,
    publishAt: (more) => publisher.dueAt(more),
    committed,
  });
  const answers = new Answers({ store, bytes, log, state: () => ledger.state() });
  const history = createHistory(log);
  const held = createHeldHeartbeats();
  const watchers = createWatchers({
    ctx,
    log,
    snapshot: () => answers.snapshot(now()),
    readLog: (run, offset, limit) => answers.readLog(run, offset, limit),
  });
  const dispatcher = createDispatcher({ ledger: () => ledger, pools, store, answers, waitUntil });
  const asking = openAsking(env, { namespace, deployment }, { ledger, answers, store, waitUntil });

  void ctx.blockConcurrencyWhile(async () => {
    ledger.wokenWith(await storage.getAlarm());
    if (log.head() > ledger.state().lane.published) publisher.schedule();
  });
  return {
    store,
    bytes,
    log,
    ledger,
    answers,
    requests: createRequests(store),
    history,
    watchers,
    held,
    pools,
    dispatcher,
    publisher,
    ...asking,
  };
}

/** What asks the namespace for the sake of some jobs: whose votes count, who signs what they came to, who has which lock, and who was let in. */
function openAsking(
  env: Env,
  { namespace, deployment }: Identity,
  deps: Pick<Parts, "ledger" | "answers" | "store"> & { waitUntil: (work: Promise<unknown>) => void },
): Pick<Parts, "ballots" | "execs" | "locks" | "summaries"> {
  const { answers, ledger, store, waitUntil } = deps;
  const asked = namespaceObject(env, namespace);
  const ballots = createBallots({
    namespace,
    answers,
    store,
    ledger,
    waitUntil,
    trustBasis: (call) => asked.trustBasis(call),
  });
  const summaries = createSummaries({
    namespace,
    deployment,
    ledger,
    answers,
    ballots,
    store,
    broker: namespaceObject(env, DIRECTORY),
    now: () => Date.now(),
    waitUntil,
  });
  const locks = createLocks({ ledger, store, settle: (call) => asked.settleLocks(call), waitUntil });
  const execs = createExecs({
    deployment,
    answers,
    now: () => Date.now(),
    callIn: (pool, call) => poolObject(env, namespace, pool).callIn(call),
    note: (note) => asked.noteExec(note),
    waitUntil,
  });
  return { ballots, execs, locks, summaries };
}
