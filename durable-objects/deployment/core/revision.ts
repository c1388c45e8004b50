import { refuse, type Refusal } from "@plumule/protocol";
import type { State } from "./model.ts";

/** The refusal of a decision that expects another revision than the lane has, or null. */
export function checkRevision({ lane }: State, ifMatch: string | null): Refusal | null {
  const etag = `"r${lane.revision}"`;
  if (ifMatch === null || ifMatch === "*" || ifMatch === etag) return null;
  return refuse("revision-conflict", `The deployment is at revision ${etag}, the request expects ${ifMatch}.`);
}
