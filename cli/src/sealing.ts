import {
  ISOLATION_LEVELS,
  type JobSecret,
  LIMITS,
  listRunners,
  parseDidKey,
  type Requires,
  type RunnerView,
  type SecretBinding,
  verifyRecipient,
} from "@plumule/protocol";
import type { Connection } from "./connection.ts";
import { EXIT } from "./exit-codes.ts";
import { type Failure, isFailure, misuse } from "./failure.ts";
import { shortKey } from "./print.ts";
import type { SecretInput } from "./secret-input.ts";
import { inLine } from "./terminal-text.ts";
import { readPinned } from "./trust-store.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** A runner that secrets are sealed to. `pinned`: its key is one that the submitter keeps; the others are the broker's word. */
export type SealTo = { runner: string; name: string; recipient: string; pinned: boolean };

/**
 * The runners to seal to: those that are named by did:key or by the name of a pinned key, or else all of the namespace that match the job. A
 * recipient counts only when the runner's own key has signed it, so that a broker cannot slip in one of its own under a key that was named.
 */
export async function chooseRunners(
  connection: Connection,
  env: Env,
  { named, requires }: { named: readonly string[]; requires: Requires | undefined },
): Promise<SealTo[] | Failure> {
  const pins = await readPinned(env);
  if (isFailure(pins)) return pins;
  const fleet = await readFleet(connection);
  if (isFailure(fleet)) return fleet;
  const wanted = named.map((which) => pins.find(({ name }) => name === which)?.key ?? which);
  const strange = wanted.find((which) => !parseDidKey(which).ok);
  if (strange !== undefined)
    return misuse(`${strange} is no key`, "Give a did:key, or the name of a key that you pinned: `plumule key trust`.");
  const chosen: SealTo[] = [];
  for (const runner of fleet) {
    if (wanted.length > 0 ? !wanted.includes(runner.id) : !matches(requires, runner)) continue;
    const verified = await verifyRecipient(runner.recipient, runner.id);
    const pinned = pins.some(({ key }) => key === runner.id);
    if (verified.ok) chosen.push({ runner: runner.id, name: runner.name, recipient: verified.value.recipient, pinned });
    else if (wanted.length > 0) return unsealable(runner.id, runner.recipient, verified.detail);
  }
  const missing = wanted.find((key) => !chosen.some(({ runner }) => runner === key));
  if (missing !== undefined) return unsealable(missing, undefined, "");
  if (chosen.length === 0)
    return {
      exit: EXIT.noRunner,
      what: "No runner matches the job that secrets could be sealed to",
      next: "See the fleet: `plumule runner ls`; a runner publishes its key for secrets when it starts.",
    };
  return chosen.length <= LIMITS.secretRunners
    ? chosen
    : misuse(`${chosen.length} runners match the job`, `Name at most ${LIMITS.secretRunners} of them with --runner.`);
}

function unsealable(runner: string, recipient: unknown, why: string): Failure {
  const what = `Secrets cannot be sealed to ${runner}`;
  if (recipient !== undefined)
    return {
      exit: EXIT.unverified,
      what,
      why: `the key that the broker shows for it is not signed by it: ${why}`,
      next: "Do not use this broker for secrets before you know why.",
    };
  return { exit: EXIT.notFound, what, next: "It is not registered, or has not started yet: `plumule runner ls`." };
}

async function readFleet(connection: Connection): Promise<RunnerView[] | Failure> {
  const fleet: RunnerView[] = [];
  for (let cursor: string | null | undefined; cursor !== null;) {
    const query = { limit: LIMITS.listPage, ...(cursor === undefined ? {} : { cursor }) };
    const answer = await connection.ask(listRunners, { params: { ns: connection.ns }, query });
    if (isFailure(answer)) return answer;
    fleet.push(...answer.body.items.filter(({ revoked }) => !revoked));
    cursor = answer.body.nextCursor;
  }
  return fleet;
}

/** Whether a runner could take a job with these requirements. One that has never polled has said nothing, and is left out. */
function matches(requires: Requires | undefined, { offer, pool, recipient }: RunnerView): boolean {
  if (offer === null || recipient === undefined) return false;
  const { systems = [], features = [], labels = [], isolation = ISOLATION_LEVELS[0] } = requires ?? {};
  const has = (needed: readonly string[], offered: readonly string[]): boolean =>
    needed.every((one) => offered.includes(one));
  return (
    has(systems, offer.systems) &&
    has(features, offer.features) &&
    has(labels, offer.labels) &&
    ISOLATION_LEVELS.indexOf(offer.isolation) >= ISOLATION_LEVELS.indexOf(isolation) &&
    (pool ?? "default") === (requires?.pool ?? "default")
  );
}

/** Seals each secret to the runners; stored ones stay names. The cryptography is loaded only here. */
export async function sealAll(
  secrets: readonly SecretInput[],
  to: readonly SealTo[],
  binding: Omit<SecretBinding, "name" | "version">,
): Promise<JobSecret[] | Failure> {
  const { sealSecret } = await import("@plumule/protocol/seal");
  const runners = to.map(({ runner }) => runner);
  const sealed: JobSecret[] = [];
  for (const { name, value } of secrets) {
    if (value === null) {
      sealed.push({ name });
      continue;
    }
    const box = await sealSecret(
      value,
      { version: 1, name, ...binding },
      to.map(({ recipient }) => recipient),
    );
    if (!box.ok) return misuse(`The secret ${name} cannot be sealed: ${box.detail}`, "Give another one.");
    sealed.push({ name, box: box.value, runners });
  }
  return sealed;
}

/** Who can open what was sealed, as a person should see it. */
export function sealedLine(names: readonly string[], to: readonly SealTo[]): string {
  const runners = to.map(
    ({ name, runner, pinned }) => `${inLine(name)} ${shortKey(runner)}${pinned ? " (pinned)" : ""}`,
  );
  return `${names.join(", ")} can be opened by ${runners.join(", ")}`;
}

/** What to do about keys that only the broker vouches for, or null. */
export function unpinnedAdvice(to: readonly SealTo[], named: readonly string[]): string | null {
  return named.length > 0 || to.every(({ pinned }) => pinned)
    ? null
    : "the broker named these runners; to choose for yourself, give --runner DID:KEY, or pin their keys: `plumule key trust`";
}
