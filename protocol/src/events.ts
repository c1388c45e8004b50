import * as z from "zod";
import { timeSchema, uuidSchema } from "./ids.ts";
import {
  deploymentViewSchema,
  derivationSchema,
  jobViewSchema,
  phaseSchema,
  progressSchema,
  runViewSchema,
} from "./job.ts";
import { verdictViewSchema } from "./verdict-view.ts";

/**
 * The types of events. Additive only: a reader ignores types that it does not know.
 * Every `job.*` event carries the whole job and deployment after the change, so that applying an event is an assignment.
 */
export const EVENT_TYPES = [
  "deployment.state",
  "deployment.deleted",
  "job.held",
  "job.queued",
  "job.waiting",
  "job.assigned",
  "job.running",
  "job.phase",
  "job.progress",
  "job.cancelling",
  "job.succeeded",
  "job.failed",
  "job.cancelled",
  "job.superseded",
  "job.skipped",
  "job.unknown",
  "job.verdict",
  "run.assigned",
  "run.running",
  "run.lost",
  "run.finished",
  "derivation.changed",
  "runner.registered",
  "runner.drained",
  "runner.undrained",
  "runner.revoked",
  "delivery.received",
  "trust.changed",
  "trust.equivocation",
  "triggers.changed",
  "secret.stored",
  "secret.removed",
  "token.created",
  "token.revoked",
  "members.changed",
  "audit.signed",
  "authorizer.changed",
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** What an event carries; which fields are there depends on its type. */
export const eventDataSchema = z.looseObject({
  deployment: deploymentViewSchema.optional(),
  job: jobViewSchema.optional(),
  run: runViewSchema.optional(),
  phase: phaseSchema.optional(),
  progress: progressSchema.optional(),
  derivations: z.array(derivationSchema).optional(),
  verdict: verdictViewSchema.optional(),
});
export type EventData = z.output<typeof eventDataSchema>;

/**
 * CloudEvents 1.0 in JSON format with the `sequence` extension. `source` is the stream (`/{ns}/deployments/{id}` or
 * `/{ns}`); `sequence` is contiguous in it, from 1. The same bytes leave through every door.
 */
export const eventSchema = z
  .looseObject({
    specversion: z.literal("1.0"),
    id: uuidSchema,
    source: z.string(),
    type: z.string(),
    subject: z.string(),
    time: timeSchema,
    sequence: z.string().regex(/^\d{16}$/),
    actor: z.string(),
    datacontenttype: z.literal("application/json"),
    data: eventDataSchema,
  })
  .meta({ id: "Event" });
export type Event = z.output<typeof eventSchema>;

/** A page of history. `cursor` is where to go on; `more` says that the page was full. */
export const eventsPageSchema = z
  .object({ events: z.array(eventSchema), cursor: z.string(), more: z.boolean() })
  .meta({ id: "EventsPage" });
export type EventsPage = z.output<typeof eventsPageSchema>;

/** The `source` of a deployment's events. */
export function deploymentSource(namespace: string, deployment: string): string {
  return `/${namespace}/deployments/${deployment}`;
}

/** The `source` of a namespace's events. */
export function namespaceSource(namespace: string): string {
  return `/${namespace}`;
}

/**
 * A cursor: `e<epoch>:<sequence>`, opaque to clients. The epoch changes when a stream's history was lost or restarted, so that a
 * cursor of the old history gets a reset instead of a silent gap.
 */
export function formatCursor(epoch: number, sequence: number): string {
  return `e${epoch}:${sequence}`;
}

/** Reads a cursor, or null when it is not one. */
export function parseCursor(text: string): { epoch: number; sequence: number } | null {
  const match = /^e(\d{1,9}):(\d{1,15})$/.exec(text);
  return match === null ? null : { epoch: Number(match[1]), sequence: Number(match[2]) };
}
