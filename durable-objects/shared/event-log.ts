import { formatSequence, formatTime, type Event, type EventData, type EventType, type Millis } from "@plumule/protocol";
import type { Migration } from "./migrate.ts";

/**
 * An event before it has its place in the stream. `subject` is `jobs/{id}` for everything that concerns one job. `actor` and `time` are those
 * of an event that another stream had first; else they are those of the append.
 */
export type EventDraft = { type: EventType; subject: string; data: EventData; actor?: string; time?: string };

/**
 * The events of one object, numbered from 1 without gap or repeat. Nothing is kept in memory: the newest row is the head, so a
 * transaction that is taken back takes its numbers back too, and an evicted object goes on where it stopped (P3).
 */
export type EventLog = {
  /** Sequence of the newest event, 0 before the first. */
  head(): number;
  /** Sequence of the oldest event that is kept; `head() + 1` when there is none. */
  oldest(): number;
  /** Names this history. Another one (storage that was lost and begun again) has another epoch. */
  epoch(): number;
  /**
   * Numbers and stores events; call it inside the transaction that changes what they tell. Writes one row per call, however many
   * drafts, because rows written are the bill; only beyond `ROW_CHARACTERS` there are more. `newId` makes a lower-case UUID.
   */
  append(drafts: readonly EventDraft[], actor: string, now: Millis, newId: () => string): Event[];
  /**
   * At most `limit` events after a sequence, fewer when they are large: the page ends before the row that would exceed `characters` of JSON. `more`: there are events behind the page.
   * The caller checks `oldest()`; from a sequence before it the page starts at the oldest event.
   */
  page(after: number, limit: number, characters?: number): { events: Event[]; more: boolean };
  /** Forgets what is older than the newest `keep` events, by whole rows; the newest row always stays, as it is the head. */
  prune(keep: number): void;
};

/** The tables of an event log; each object lists this step in its own migrations. `random()` runs once, when the history begins. */
export const EVENT_LOG_MIGRATION: Migration = {
  id: "event-log",
  sql: `
    CREATE TABLE event_rows (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, events TEXT NOT NULL) STRICT;
    CREATE TABLE event_history (epoch INTEGER PRIMARY KEY) STRICT;
    INSERT INTO event_history (epoch) VALUES (1 + abs(random() % 999999999));
  `,
};

/** Characters of one row: in UTF-8 a text has at most three bytes per character, and a row may have 2 MB. */
const ROW_CHARACTERS = 600_000;

/** Characters of one page, unless the caller says less, so that a page of large events does not fill the memory. */
const PAGE_CHARACTERS = 256 * 1024;

/** The sequences of as many new events after the newest stored one: there is no other place where a number is given out (P3). */
export function sequencesAfter(head: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => formatSequence(head + index + 1));
}

/** Opens the event log of an object whose migrations have run. `source` is the stream's name in its events. */
export function createEventLog(storage: DurableObjectStorage, source: string): EventLog {
  const { sql } = storage;
  let epoch: number | null = null;

  const edge = (query: string): number | null => {
    const [row] = sql.exec<{ sequence: number }>(query).toArray();
    return row?.sequence ?? null;
  };
  const head = (): number => edge("SELECT last AS sequence FROM event_rows ORDER BY first DESC LIMIT 1") ?? 0;

  return {
    head,
    oldest: () => edge("SELECT first AS sequence FROM event_rows ORDER BY first LIMIT 1") ?? 1,
    epoch: () => (epoch ??= sql.exec<{ epoch: number }>("SELECT epoch FROM event_history").one().epoch),

    append(drafts, actor, now, newId) {
      const before = head();
      const sequences = sequencesAfter(before, drafts.length);
      const time = formatTime(now);
      const events = drafts.map((draft, index): Event => ({
        specversion: "1.0",
        id: newId(),
        source,
        type: draft.type,
        subject: draft.subject,
        time: draft.time ?? time,
        sequence: sequences[index] ?? "",
        actor: draft.actor ?? actor,
        datacontenttype: "application/json",
        data: draft.data,
      }));
      let first = before + 1;
      for (const texts of splitRows(events.map((event) => JSON.stringify(event)))) {
        sql.exec(
          "INSERT INTO event_rows (first, last, events) VALUES (?, ?, ?)",
          first,
          first + texts.length - 1,
          `[${texts.join(",")}]`,
        );
        first += texts.length;
      }
      return events;
    },

    page(after, limit, characters = PAGE_CHARACTERS) {
      const rows = sql.exec<{ first: number; last: number; events: string }>(
        "SELECT first, last, events FROM event_rows WHERE first >= coalesce((SELECT max(first) FROM event_rows WHERE first <= ?), 0) ORDER BY first",
        after + 1,
      );
      const events: Event[] = [];
      let taken = 0;
      for (const row of rows) {
        if (row.last <= after) continue;
        if (events.length > 0 && taken + row.events.length > characters) return { events, more: true };
        const found = (JSON.parse(row.events) as Event[]).slice(Math.max(0, after + 1 - row.first));
        events.push(...found.slice(0, limit - events.length));
        taken += row.events.length;
        if (events.length === limit) return { events, more: Number(events.at(-1)?.sequence) < head() };
      }
      return { events, more: false };
    },

    prune(keep) {
      sql.exec(
        "DELETE FROM event_rows WHERE first < (SELECT max(first) FROM event_rows WHERE first <= ?)",
        head() - keep + 1,
      );
    },
  };
}

/** Groups texts in order so that each group fits a row. A text that is too long alone is refused: storing it would fail half-way. */
function splitRows(texts: readonly string[]): string[][] {
  const rows: string[][] = [];
  let characters = Number.POSITIVE_INFINITY;
  for (const text of texts) {
    if (text.length > ROW_CHARACTERS)
      throw new RangeError(`an event of ${text.length} characters does not fit a row of ${ROW_CHARACTERS}`);
    characters += text.length + 1;
    if (characters > ROW_CHARACTERS) {
      rows.push([]);
      characters = text.length;
    }
    rows.at(-1)?.push(text);
  }
  return rows;
}
