import { formatTime } from "@plumule/protocol";
import type { PoolName, Waiting } from "@plumule/protocol";
import type { Needs } from "../calls.ts";
import { admits, lacks } from "./fit.ts";
import type { Runner } from "./fleet.ts";

/** What explaining needs to know of a runner. */
export type Candidate = Pick<Runner, "id" | "offer" | "seenAt" | "online" | "drained">;

/** A runner that cannot take a ticket now, with what it lacks in words. */
export type Near = { candidate: Candidate; lacks: string[] };

/**
 * How tickets of some needs stand with the fleet. `fitting`: runners that are online, fit and take work; `drained`: one that would but for
 * its drain; `nearest`: the one that lacks least.
 */
export type Outlook = { fitting: number; drained: Near | null; nearest: Near | null };

/** Looks for the runners that could take a ticket. One look serves all tickets of equal needs. */
export function outlookOf(needs: Needs, candidates: Iterable<Candidate>): Outlook {
  const outlook: Outlook = { fitting: 0, drained: null, nearest: null };
  for (const candidate of candidates) {
    const near: Near = { candidate, lacks: lacks(needs, candidate.offer) };
    if (!admits(needs, candidate.id))
      near.lacks.push(
        needs.except?.includes(candidate.id) === true
          ? "a part in the quorum that is not taken yet"
          : "a key that the job names",
      );
    if (!candidate.online) near.lacks.push(`a connection (last seen ${formatTime(candidate.seenAt)})`);
    const able = near.lacks.length === 0;
    if (candidate.drained) near.lacks.push("leave to work (drained)");
    if (able && !candidate.drained) outlook.fitting += 1;
    else if (able) outlook.drained = nearer(outlook.drained, near);
    else outlook.nearest = nearer(outlook.nearest, near);
  }
  return outlook;
}

/** The one that lacks less; by name where that is equal, so that the answer does not change with the order of polls. */
function nearer(a: Near | null, b: Near): Near {
  if (a === null || b.lacks.length < a.lacks.length) return b;
  if (b.lacks.length > a.lacks.length) return a;
  const [one, two] = [a.candidate, b.candidate];
  const isFirst = one.offer.name === two.offer.name ? one.id <= two.id : one.offer.name < two.offer.name;
  return isFirst ? a : b;
}

/** Why a ticket waits, for programs and, in one sentence with the next step, for people. `position`: how many tickets go first. */
export function explain(needs: Needs, position: number, outlook: Outlook, pool: PoolName): Waiting {
  // What was asked for: the version of the wire follows from it, and readers of version 1 know no such field.
  const { protocol: _protocol, runners: _runners, except: _except, ...required } = needs;
  const base = { needs: required, position, etaMs: null };
  const { fitting, drained, nearest } = outlook;
  if (fitting > 0) {
    const fit = `${fitting} runner${fitting === 1 ? " fits" : "s fit"}`;
    const line =
      position === 0
        ? `Next in pool ${pool}, where ${fit} and none is free yet.`
        : `${position} job${position === 1 ? " goes" : "s go"} first in pool ${pool}, where ${fit}.`;
    const detail = `${line} Shorten the wait: \`${startCommand(needs)}\``;
    return { ...base, reason: position === 0 ? "runners-busy" : "position", nearest: null, detail };
  }
  const near = drained ?? nearest;
  const named = near === null ? null : { runner: near.candidate.id, lacks: near.lacks };
  if (drained !== null) {
    const { id, offer } = drained.candidate;
    const detail = `Every runner that fits is drained. Let ${offer.name} take work again: \`plumule runner undrain ${id}\``;
    return { ...base, reason: "runners-drained", nearest: named, detail };
  }
  const detail = `${absence(needs, pool)}${nearness(nearest)}${remedy(nearest)} \`${startCommand(needs)}\``;
  return { ...base, reason: "no-runner", nearest: named, detail };
}

function absence(needs: Needs, pool: PoolName): string {
  const wanted = lacks(needs, NOTHING).map((want) => want.replace(/^system /, "").replace(/ \(has .*\)$/, ""));
  const [first, ...rest] = wanted;
  if (first === undefined && needs.runners !== undefined)
    return `None of the ${needs.runners.length === 1 ? "1 runner" : `${needs.runners.length} runners`} that the job names is online in pool ${pool}.`;
  if (first === undefined && needs.except !== undefined) return `No other runner is online in pool ${pool}.`;
  if (first === undefined) return `No runner is online in pool ${pool}.`;
  return `No runner offers ${first}${rest.length === 0 ? "" : ` with ${rest.join(", ")}`}.`;
}

function nearness(nearest: Outlook["nearest"]): string {
  if (nearest === null) return "";
  const { name, systems } = nearest.candidate.offer;
  const onlySystems = nearest.lacks.every((lack) => lack.startsWith("system "));
  return ` Nearest: ${name}, which ${onlySystems ? `offers ${systems.join(", ") || "no system"}` : `lacks ${nearest.lacks.join(", ")}`}.`;
}

/** A runner that is only too old is better updated than joined by another. */
function remedy(nearest: Outlook["nearest"]): string {
  const isOld = nearest?.lacks.length === 1 && nearest.lacks[0]?.startsWith("protocol ") === true;
  return isOld
    ? ` Update plumule on ${nearest.candidate.offer.name} and start its runner again, or start another:`
    : " Start one:";
}

/** An offer of nothing: what it lacks for some needs is all that they name. */
const NOTHING: Candidate["offer"] = {
  name: "nothing",
  systems: [],
  features: [],
  labels: [],
  isolation: "process-group",
  version: "",
  capacity: 1,
};

function startCommand(needs: Needs): string {
  const flags = (flag: string, values: readonly string[] | undefined): string[] =>
    (values ?? []).map((value) => `--${flag} ${value}`);
  return [
    "plumule runner start",
    ...flags("system", needs.systems),
    ...flags("feature", needs.features),
    ...flags("label", needs.labels),
    ...flags("isolation", needs.isolation === undefined ? [] : [needs.isolation]),
  ].join(" ");
}
