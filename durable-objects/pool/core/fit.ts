import { ISOLATION_LEVELS } from "@plumule/protocol";
import type { Offer, Requires } from "@plumule/protocol";

const level = (isolation: Offer["isolation"]): number => ISOLATION_LEVELS.indexOf(isolation);

function missing(word: string, needed: readonly string[] | undefined, offered: readonly string[]): string[] {
  return (needed ?? []).filter((name) => !offered.includes(name)).map((name) => `${word} ${name}`);
}

/**
 * What an offer lacks for a job's needs, in words that a person can act on: `system aarch64-linux`, `feature kvm`, `label host:king`,
 * `isolation bwrap (has process-group)`. Empty: it fits. Every named system, feature and label is needed; isolation is a least level.
 */
export function lacks(needs: Requires, offer: Offer): string[] {
  const weaker = needs.isolation !== undefined && level(offer.isolation) < level(needs.isolation);
  return [
    ...missing("system", needs.systems, offer.systems),
    ...missing("feature", needs.features, offer.features),
    ...missing("label", needs.labels, offer.labels),
    ...(weaker ? [`isolation ${needs.isolation} (has ${offer.isolation})`] : []),
  ];
}

/** True when an offer has everything that a job needs. */
export function fits(needs: Requires, offer: Offer): boolean {
  const covers = (needed: readonly string[] | undefined, offered: readonly string[]): boolean =>
    needed === undefined || needed.every((name) => offered.includes(name));
  return (
    covers(needs.systems, offer.systems) &&
    covers(needs.features, offer.features) &&
    covers(needs.labels, offer.labels) &&
    (needs.isolation === undefined || level(offer.isolation) >= level(needs.isolation))
  );
}

const sorted = (names: readonly string[] | undefined): string[] => [...new Set(names)].sort();

/**
 * The same text for needs, or offers, that matching cannot tell apart. Tickets and runners are kept by it, so that one comparison
 * speaks for all that are alike: an event costs kinds of tickets times kinds of runners, never tickets times polls.
 */
export function signatureOf(wants: Pick<Requires, "systems" | "features" | "labels" | "isolation">): string {
  return JSON.stringify([
    sorted(wants.systems),
    sorted(wants.features),
    sorted(wants.labels),
    wants.isolation ?? ISOLATION_LEVELS[0],
  ]);
}
