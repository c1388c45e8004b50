import type { DeploymentId, JobId, Millis, Priority, RunnerId } from "@plumule/protocol";
import type { Ability, DrainOrder, Needs, Ticket } from "./calls.ts";

/** A stored ticket, with the reason for waiting that its deployment was told last. */
export type StoredTicket = { ticket: Ticket; told: string | null };

/** A stored runner. `offer` is null for one that was drained before it ever polled. `seenAt` is coarse: see `saveRunner`. */
export type StoredRunner = {
  id: RunnerId;
  offer: Ability | null;
  drained: boolean;
  seenAt: Millis;
  order: DrainOrder | null;
};

type TicketRow = {
  job: JobId;
  deployment: DeploymentId;
  number: number;
  priority: Priority;
  needs: string;
  queued_at: Millis;
  avoid: string;
  told: string | null;
};
type RunnerRow = {
  runner: RunnerId;
  offer: string | null;
  drained: number;
  seen_at: Millis;
  drain_order: string | null;
};

/** Every ticket. Needs that are equal as text are one value in memory. */
export function readTickets(sql: SqlStorage): StoredTicket[] {
  const needsOf = new Map<string, Needs>();
  return sql
    .exec<TicketRow>("SELECT job, deployment, number, priority, needs, queued_at, avoid, told FROM tickets")
    .toArray()
    .map((row) => {
      const needs = needsOf.get(row.needs) ?? (JSON.parse(row.needs) as Needs);
      needsOf.set(row.needs, needs);
      const { job, deployment, number, priority, queued_at: queuedAt, told } = row;
      return {
        ticket: { deployment, job, number, priority, needs, queuedAt, avoid: JSON.parse(row.avoid) as RunnerId[] },
        told,
      };
    });
}

/** Writes a ticket over the job's older one: one row. */
export function saveTicket(sql: SqlStorage, ticket: Ticket, told: string | null): void {
  sql.exec(
    "INSERT OR REPLACE INTO tickets (job, deployment, number, priority, needs, queued_at, avoid, told) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    ticket.job,
    ticket.deployment,
    ticket.number,
    ticket.priority,
    JSON.stringify(ticket.needs),
    ticket.queuedAt,
    JSON.stringify(ticket.avoid),
    told,
  );
}

/** Notes the reason that a deployment was told. */
export function saveTold(sql: SqlStorage, job: JobId, told: string): void {
  sql.exec("UPDATE tickets SET told = ? WHERE job = ?", told, job);
}

/** Removes a job's ticket unless a newer one has taken its place. */
export function removeTicket(sql: SqlStorage, job: JobId, number: number): void {
  sql.exec("DELETE FROM tickets WHERE job = ? AND number <= ?", job, number);
}

/** Every runner, the longest silent first. */
export function readRunners(sql: SqlStorage): StoredRunner[] {
  return sql
    .exec<RunnerRow>("SELECT runner, offer, drained, seen_at, drain_order FROM runners ORDER BY seen_at")
    .toArray()
    .map((row) => ({
      id: row.runner,
      offer: row.offer === null ? null : (JSON.parse(row.offer) as Ability),
      drained: row.drained === 1,
      seenAt: row.seen_at,
      order: row.drain_order === null ? null : (JSON.parse(row.drain_order) as DrainOrder),
    }));
}

/** Writes a runner: one row. */
export function saveRunner(sql: SqlStorage, runner: StoredRunner): void {
  sql.exec(
    "INSERT OR REPLACE INTO runners (runner, offer, drained, seen_at, drain_order) VALUES (?, ?, ?, ?, ?)",
    runner.id,
    runner.offer === null ? null : JSON.stringify(runner.offer),
    Number(runner.drained),
    runner.seenAt,
    runner.order === null ? null : JSON.stringify(runner.order),
  );
}

/** Removes a runner. */
export function removeRunner(sql: SqlStorage, runner: RunnerId): void {
  sql.exec("DELETE FROM runners WHERE runner = ?", runner);
}
