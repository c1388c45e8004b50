import { abilityChecks, ISOLATION_LEVELS, lacksOf, UNNAMED_PROTOCOL } from "@plumule/protocol";
import type { Offer, RunnerId } from "@plumule/protocol";
import type { Ability, Needs } from "../calls.ts";

const level = (isolation: Offer["isolation"]): number => ISOLATION_LEVELS.indexOf(isolation);

const spoken = ({ protocol }: Pick<Needs, "protocol">): number => protocol ?? UNNAMED_PROTOCOL;

/**
 * What an offer lacks for a job's needs, in words that a person can act on: `system aarch64-linux`, `feature kvm`, `label host:king`,
 * `isolation bwrap (has process-group)`, `protocol 2 (has 1)`. Empty: it fits. Every named system, feature and label is needed; isolation and
 * protocol are least levels.
 */
export function lacks(needs: Needs, offer: Ability): string[] {
  return lacksOf({ checks: abilityChecks(needs, offer) });
}

/** True when an offer has everything that a job needs. */
export function fits(needs: Needs, offer: Ability): boolean {
  const covers = (needed: readonly string[] | undefined, offered: readonly string[]): boolean =>
    needed === undefined || needed.every((name) => offered.includes(name));
  return (
    covers(needs.systems, offer.systems) &&
    covers(needs.features, offer.features) &&
    covers(needs.labels, offer.labels) &&
    (needs.isolation === undefined || level(offer.isolation) >= level(needs.isolation)) &&
    spoken(offer) >= spoken(needs)
  );
}

/** False for a runner whose key a job's needs do not name, though they name some, and for one that has a part in its quorum already. */
export function admits(needs: Needs, runner: RunnerId): boolean {
  return needs.except?.includes(runner) !== true && (needs.runners?.includes(runner) ?? true);
}

const sorted = (names: readonly string[] | undefined): string[] => [...new Set(names)].sort();

/**
 * The same text for needs, or offers, that matching cannot tell apart. Tickets and runners are kept by it, so that one comparison
 * speaks for all that are alike: an event costs kinds of tickets times kinds of runners, never tickets times polls.
 */
export function signatureOf(
  wants: Pick<Needs, "systems" | "features" | "labels" | "isolation" | "protocol" | "runners" | "except">,
): string {
  return JSON.stringify([
    sorted(wants.systems),
    sorted(wants.features),
    sorted(wants.labels),
    wants.isolation ?? ISOLATION_LEVELS[0],
    spoken(wants),
    ...(wants.runners === undefined && wants.except === undefined
      ? []
      : [wants.runners === undefined ? null : sorted(wants.runners), sorted(wants.except)]),
  ]);
}
