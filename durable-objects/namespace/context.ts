import type { Event, Millis, NamespaceId } from "@plumule/protocol";
import type { Env } from "../env.ts";
import { appendAudit, type AuditNote, type RefusedSignatures } from "./audit.ts";
import type { EventDraft, EventLog } from "../shared/event-log.ts";
import type { History } from "../shared/history.ts";
import { transact } from "../shared/transact.ts";
import type { Watchers } from "../shared/watchers.ts";
import { nextWakeAt, scheduleSweep } from "./store/wake.ts";

/** What the parts of a namespace share. */
export type NamespaceContext = {
  readonly namespace: NamespaceId;
  readonly env: Env;
  readonly sql: SqlStorage;
  /** Signatures that were refused, until the audit log tells of them. */
  readonly refused: RefusedSignatures;
  /**
   * One transaction: what `change` writes, the events that it emits, the rows of the audit log that it notes, and the alarm. Afterwards the
   * readers of the feed are told. `actor` is who acts.
   */
  commit<T>(
    actor: string,
    now: Millis,
    change: (
      emit: (draft: EventDraft) => void,
      note: (note: AuditNote) => void,
    ) => T extends PromiseLike<unknown> ? never : T,
  ): T;
};

/** The object's alarm. */
export type Alarm = {
  /** Sets the alarm to the next thing that is due, if that has changed. Part of every commit. */
  arm(): void;
  /** Call it when the alarm has fired or a transaction was taken back: what is set is not known then. */
  forget(): void;
  /** Does not come for the signature of the audit log before a time. */
  postponeSigning(until: Millis): void;
};

/** The alarm of a namespace. After an eviction it is set once more, because nothing tells synchronously what it is set to. */
export function createAlarm(storage: DurableObjectStorage): Alarm {
  let armedAt: Millis | null = null;
  let signAt: Millis = 0;
  return {
    arm() {
      const at = nextWakeAt(storage.sql, signAt);
      if (at === armedAt) return;
      // The output gate holds every answer until these writes are stored; a failure resets the object.
      if (at === null) void storage.deleteAlarm();
      else void storage.setAlarm(at);
      armedAt = at;
    },
    forget() {
      armedAt = null;
    },
    postponeSigning(until) {
      signAt = until;
    },
  };
}

/** Makes the context of a namespace whose migrations have run. */
export function createContext(deps: {
  namespace: NamespaceId;
  env: Env;
  storage: DurableObjectStorage;
  alarm: Alarm;
  log: EventLog;
  history: History;
  watchers: Watchers;
  refused: RefusedSignatures;
}): NamespaceContext {
  const { namespace, env, storage, alarm, log, history, watchers, refused } = deps;
  return {
    namespace,
    env,
    sql: storage.sql,
    refused,
    commit(actor, now, change) {
      const strangers = refused.notes(now);
      const write = (): { result: ReturnType<typeof change>; events: Event[] } => {
        const drafts: EventDraft[] = [];
        const notes: AuditNote[] = [];
        const result = change(
          (draft) => drafts.push(draft),
          (note) => notes.push(note),
        );
        if (strangers.length + notes.length > 0) appendAudit(storage.sql, [...strangers, ...notes], actor, now);
        const events = drafts.length === 0 ? [] : log.append(drafts, actor, now, () => crypto.randomUUID());
        scheduleSweep(storage.sql, now);
        alarm.arm();
        return { result, events };
      };
      const { result, events } = takenBack(alarm, () => transact(storage, write));
      if (strangers.length > 0) refused.told(now);
      if (events.length > 0) {
        history.wake();
        watchers.published(events);
      }
      return result;
    },
  };
}

/** A transaction that throws takes its alarm back too. */
function takenBack<T>(alarm: Alarm, run: () => T): T {
  try {
    return run();
  } catch (error) {
    alarm.forget();
    throw error;
  }
}
