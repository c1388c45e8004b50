import { type ApprovalRule, UNTRUSTED_FEATURE } from "../approval.ts";
import { LIMITS } from "../limits.ts";
import type { Push, Trigger } from "../namespace.ts";
import { ISOLATION_LEVELS, type IsolationLevel, type Requires } from "../submit.ts";
import { didOf, isDid } from "./refs.ts";

/**
 * Whose job it is when its author is neither a delegate of the repository nor named by the rule: `why`, in words, and the did:keys of those who may
 * approve it.
 */
export type Stranger = { author: string | null; why: string; approvers: readonly string[] };

/** Least isolation of a stranger's job where its rule names none. */
const STRANGERS_ISOLATION: IsolationLevel = "bwrap";

/**
 * Whether the author of a push is a stranger to a rule, and then who may approve; null for whom the rule trusts. Delegates come from the rule,
 * or from the webhook where the rule names none: whoever signs webhooks vouches for both author and delegates.
 *
 * Who moved a branch of a plain git host is known to that host, which let them; only Radicle, where everybody has a `main` of their own,
 * and patches need an author.
 */
export function strangerOf(push: Push, { authors }: Trigger, rule: ApprovalRule): Stranger | null {
  const delegates = rule.delegates ?? push.delegates ?? [];
  const author = push.author == null ? null : didOf(push.author);
  const isVouchedFor =
    push.type !== "patch" && (author === null || (!isDid(author) && !push.repository.startsWith("rad:")));
  const trusted = [...delegates, ...(rule.trusted ?? []), ...(authors ?? []).map(didOf)];
  const isFollowed = rule.followed === true && push.followed === true && author !== null;
  if (isVouchedFor || isFollowed || (author !== null && trusted.includes(author))) return null;
  const approvers = [...new Set([...delegates, ...(rule.approvers ?? [])])].slice(0, 2 * LIMITS.delegates);
  return {
    author: push.author ?? null,
    why: `${push.author ?? "an author who is not named"} is neither a delegate nor named by the rule`,
    approvers,
  };
}

/** What a stranger's job asks of its runner: at least the rule's isolation, and that its operator lets strangers in. */
export function strangersRequires({ requires }: Trigger, approval: ApprovalRule): Requires {
  const wanted = [requires?.isolation, approval.isolation ?? STRANGERS_ISOLATION].map((level) =>
    level === undefined ? -1 : ISOLATION_LEVELS.indexOf(level),
  );
  const isolation = ISOLATION_LEVELS[Math.max(...wanted)];
  return {
    ...requires,
    features: [...new Set([...(requires?.features ?? []), UNTRUSTED_FEATURE])],
    ...(isolation === undefined ? {} : { isolation }),
    ...(approval.pool === undefined ? {} : { pool: approval.pool }),
  };
}
