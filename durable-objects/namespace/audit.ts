import {
  AUDIT_HEAD_PAYLOAD_TYPE,
  auditDigest,
  type AuditHead,
  type AuditItem,
  formatTime,
  isRefusal,
  LIMITS,
  linkAuditEntry,
  type Millis,
  refuse,
  type Refusal,
  utf8,
} from "@plumule/protocol";
import { DIRECTORY, namespaceObject } from "../shared/names.ts";
import { bounded } from "./bounded.ts";
import type { ExecNote, Page } from "./calls.ts";
import type { Alarm, NamespaceContext } from "./context.ts";
import { formatPosition, parsePosition } from "./core/positions.ts";
import {
  auditDueAt,
  insertAuditHead,
  insertAuditRow,
  lastAuditRow,
  readAuditHeads,
  readAuditRows,
} from "./store/audit.ts";
import { noteWatching } from "./store/watching.ts";

/**
 * What is to be remembered of a decision. `before` and `after` are what was changed, of which digests are kept; left out where there was or is
 * nothing. `actor` is who acts, where that is not who asks.
 */
export type AuditNote = {
  action: string;
  target: string;
  actor?: string;
  requestId?: string | undefined;
  before?: unknown;
  after?: unknown;
  count?: number;
  detail?: string;
};

/** Characters of a detail: a row has a limit, and names and actors are short. */
const DETAIL_CHARACTERS = 500;
/** How long a head that could not be signed waits, ms. */
const SIGN_AGAIN_MS = LIMITS.auditSignMs / 10;
/** Refused signatures are told at most once in this time, ms. */
const REFUSED_MS = 60_000;

/** Adds rows to the audit log. Part of a commit: the row is there if and only if what it tells has happened. */
export function appendAudit(sql: SqlStorage, notes: readonly AuditNote[], by: string, now: Millis): void {
  let previous = lastAuditRow(sql);
  for (const { action, target, actor = by, requestId, before, after, count, detail } of notes) {
    const draft = {
      at: formatTime(now),
      actor,
      action,
      target,
      ...(requestId === undefined ? {} : { requestId }),
      before: digestOf(before),
      after: digestOf(after),
      ...(count === undefined ? {} : { count }),
      ...(detail === undefined ? {} : { detail: detail.slice(0, DETAIL_CHARACTERS) }),
    };
    const row = { sequence: (previous?.sequence ?? 0) + 1, entry: linkAuditEntry(draft, previous) };
    insertAuditRow(sql, row, now);
    previous = row;
  }
}

function digestOf(value: unknown): string | null {
  return value === undefined ? null : auditDigest(JSON.stringify(value));
}

/**
 * Signatures that were refused, counted in memory: a stranger writes no row (P12). They are told together with the next commit of
 * somebody who is known, so that a flood of them costs one row a minute.
 */
export type RefusedSignatures = {
  /** Counts one, at a door such as `hooks`. */
  count(door: string): void;
  /** What is to be told now; `told` once that is stored. */
  notes(now: Millis): AuditNote[];
  told(now: Millis): void;
};

/** Makes the counter. What an eviction loses stands in the Worker's own log. */
export function createRefusedSignatures(): RefusedSignatures {
  const counts = new Map<string, number>();
  let toldAt = 0;
  return {
    count: (door) => void counts.set(door, (counts.get(door) ?? 0) + 1),
    notes: (now) =>
      now - toldAt < REFUSED_MS
        ? []
        : [...counts].map(([door, count]) => ({ action: "signature.refused", target: door, actor: "nobody", count })),
    told(now) {
      counts.clear();
      toldAt = now;
    },
  };
}

/** The audit log of a namespace as others see it. */
export type Audit = {
  /** Rows from the oldest that is kept, each head behind the row that it is about. */
  list(call: { cursor: string | null; limit: number }): Page<AuditItem> | Refusal;
  /** Has the newest row signed by the broker and tells so in the feed, when that is due. Never throws: what fails is due again. */
  signIfDue(now: Millis): Promise<void>;
};

/**
 * Notes who was let into the workspace of a run, or has left it. Whoever was let in is remembered, so that the session ends with the right to it.
 */
export function noteExec(
  context: NamespaceContext,
  { action, actor, run, deployment, requestId, detail }: ExecNote,
): void {
  const now = Date.now();
  context.commit(actor, now, (_, note) => {
    if (action === "exec.opened") noteWatching(context.sql, actor, deployment, now + LIMITS.admissionMs);
    note({ action, target: `runs/${run}`, requestId, detail });
  });
}

/** Makes the audit log. */
export function createAudit(context: NamespaceContext, alarm: Pick<Alarm, "postponeSigning">): Audit {
  const { env, namespace, sql } = context;
  return {
    list({ cursor, limit }) {
      const position = parsePosition("audit", cursor);
      if (isRefusal(position)) return position;
      const after = position.key === null ? null : Number(position.key);
      if (after !== null && !Number.isSafeInteger(after))
        return refuse("invalid-cursor", "This is not a cursor of the audit log.");
      const found = readAuditRows(sql, after ?? 0, limit + 1);
      const rows = found.slice(0, limit);
      const first = rows[0]?.sequence ?? (after ?? 0) + 1;
      const last = rows.at(-1)?.sequence ?? after ?? 0;
      // The head over the row before: what was let go of ended there, or it was signed since the page before was read.
      const heads = new Map(readAuditHeads(sql, first - 1, last).map(({ sequence, envelope }) => [sequence, envelope]));
      const headOver = (sequence: number): AuditItem[] => {
        const head = heads.get(sequence);
        return head === undefined ? [] : [{ head }];
      };
      return {
        items: [
          ...headOver(first - 1),
          ...rows.flatMap(({ sequence, entry }): AuditItem[] => [{ entry }, ...headOver(sequence)]),
        ],
        nextCursor: found.length > limit ? formatPosition("audit", String(last)) : null,
      };
    },

    async signIfDue(now) {
      const due = auditDueAt(sql);
      const last = lastAuditRow(sql);
      if (due === null || due > now || last === null) return;
      const { sequence, entry } = last;
      const head: AuditHead = { namespace, sequence, sha256: auditDigest(entry), at: formatTime(now) };
      try {
        const broker = namespaceObject(env, DIRECTORY);
        const payload = utf8(JSON.stringify(head));
        const envelope = await bounded(broker.signAsBroker({ payloadType: AUDIT_HEAD_PAYLOAD_TYPE, payload }));
        context.commit("broker", now, (emit) => {
          insertAuditHead(sql, { sequence, envelope });
          emit({ type: "audit.signed", subject: "audit", data: { head, envelope } });
        });
      } catch {
        // The directory is away: an alarm for now would fire again and again.
        alarm.postponeSigning(now + SIGN_AGAIN_MS);
      }
    },
  };
}
