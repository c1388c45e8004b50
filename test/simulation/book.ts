import type { JobId } from "@plumule/protocol";
import type { Tenant } from "./stage.ts";

/** What the broker has promised to those who asked, noted when its answer came. */
export class Book {
  /** Jobs that an answer has named. */
  readonly accepted = new Map<JobId, { tenant: Tenant; deployment: string }>();
  /** Jobs of which an answer said that they are stopped. They never succeed. */
  readonly stopped = new Map<JobId, { at: number; why: string }>();
  /** Pushes that were accepted, by commit. */
  readonly pushed = new Map<string, Tenant>();
}
