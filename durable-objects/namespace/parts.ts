import { namespaceSource, type NamespaceId } from "@plumule/protocol";
import type { Env } from "../env.ts";
import { cursorAt } from "../shared/cursor.ts";
import { createEventLog } from "../shared/event-log.ts";
import { createHistory, type History } from "../shared/history.ts";
import { createOutgoing } from "../shared/outgoing.ts";
import { createWatchers, type Watchers } from "../shared/watchers.ts";
import { type Audit, createAudit, createRefusedSignatures } from "./audit.ts";
import { type Access, createAccess } from "./access.ts";
import { type Authorizer, createAuthorizer } from "./authorizer.ts";
import { type Alarm, createAlarm, createContext, type NamespaceContext } from "./context.ts";
import { dismissalCourier } from "./dismissal.ts";
import { createFleet, type Fleet, runnerCourier } from "./fleet.ts";
import { submitCourier } from "./delivery-jobs.ts";
import { createHooks, type Hooks } from "./hooks.ts";
import { createListing, type Listing, readSnapshot } from "./listing.ts";
import { createLocks, lockCourier, type Locks } from "./locks.ts";
import { createLogins, type Logins } from "./logins.ts";
import { createOutbox, type Outbox } from "./outbox.ts";
import { createSecrets, type Secrets } from "./secrets.ts";
import { createSessions, type Sessions } from "./sessions.ts";
import { createSettings, type Settings } from "./settings.ts";
import { statusCourier } from "./statuses.ts";
import { reviveOutbox } from "./store/outbox.ts";
import { createSweeper, type Sweeper } from "./sweeper.ts";
import { watcherCourier } from "./watching.ts";

/** A namespace that is open. */
export type Parts = {
  context: NamespaceContext;
  alarm: Alarm;
  access: Access;
  authorizer: Authorizer;
  fleet: Fleet;
  sessions: Sessions;
  logins: Logins;
  locks: Locks;
  secrets: Secrets;
  settings: Settings;
  hooks: Hooks;
  audit: Audit;
  listing: Listing;
  outbox: Outbox;
  sweeper: Sweeper;
  history: History;
  watchers: Watchers;
};

/** Puts an open namespace together, after its migrations: at the object's birth and after every eviction. */
export function assemble(ctx: DurableObjectState, env: Env, namespace: NamespaceId): Parts {
  const { storage } = ctx;
  const log = createEventLog(storage, namespaceSource(namespace));
  const history = createHistory(log);
  const watchers = createWatchers({
    ctx,
    log,
    snapshot: () => readSnapshot(storage.sql, cursorAt(log, log.head())),
    readLog: null,
  });
  const alarm = createAlarm(storage);
  const context = createContext({
    namespace,
    env,
    storage,
    alarm,
    log,
    history,
    watchers,
    refused: createRefusedSignatures(),
  });
  const outgoing = createOutgoing({ fetch: (url, init) => fetch(url, init), now: () => Date.now() });
  const authorizer = createAuthorizer(context, outgoing);
  reviveOutbox(storage.sql);
  // An alarm that failed too often is not repeated by the platform; whatever wakes the object sets it again.
  alarm.arm();
  return {
    context,
    alarm,
    access: createAccess(context, authorizer),
    authorizer,
    fleet: createFleet(context),
    sessions: createSessions(context),
    logins: createLogins(context),
    locks: createLocks(context),
    secrets: createSecrets(context),
    settings: createSettings(context),
    hooks: createHooks(context),
    audit: createAudit(context, alarm),
    listing: createListing(context),
    outbox: createOutbox(context, {
      runner: runnerCourier(context),
      submit: submitCourier(context),
      dismissal: dismissalCourier(context),
      watcher: watcherCourier(context, watchers),
      status: statusCourier(context, outgoing),
      lock: lockCourier(context),
    }),
    sweeper: createSweeper(storage, log),
    history,
    watchers,
  };
}
