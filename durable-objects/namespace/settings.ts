import {
  acceptPolicy,
  defaultPolicy,
  isRefusal,
  formatTime,
  refuse,
  type Refusal,
  type RunnerId,
  type TriggersBody,
  type TriggersView,
  TRUST_LIMITS,
  type TrustBasis,
  type TrustPolicy,
} from "@plumule/protocol";
import type { NamespaceContext } from "./context.ts";
import { hookView, takeHooks } from "./core/hooks.ts";
import { checkIfMatch, checkTriggers } from "./core/settings.ts";
import { readTriggers, readTrust, saveTriggers, saveTrust, type StoredTriggers } from "./store/settings.ts";
import { findRunner, readRunnerKeys } from "./store/runners.ts";

/** Trust policy, trigger rules and hooks. */
export type Settings = {
  getTrust(): TrustPolicy;
  putTrust(call: {
    requestId?: string | undefined;
    actor: string;
    policy: TrustPolicy;
    ifMatch: string | null;
  }): TrustPolicy | Refusal;
  /** Whom the namespace trusts now, for votes of these runners (none: for a job that has no votes yet). */
  trustBasis(call: { runners: readonly RunnerId[] }): TrustBasis;
  getTriggers(): TriggersView;
  putTriggers(call: {
    requestId?: string | undefined;
    actor: string;
    body: TriggersBody;
    ifMatch: string | null;
  }): TriggersView | Refusal;
};

/** Makes the settings of a namespace. */
export function createSettings(context: NamespaceContext): Settings {
  const { sql } = context;
  const getTrust = (): TrustPolicy => readTrust(sql) ?? defaultPolicy(readRunnerKeys(sql, TRUST_LIMITS.policySigners));

  return {
    getTrust,

    putTrust({ requestId, actor, policy, ifMatch }) {
      const now = Date.now();
      const current = getTrust();
      const conflict = checkIfMatch(ifMatch, current.version);
      if (conflict !== null) return conflict;
      const accepted = acceptPolicy(current, policy, now);
      if (!accepted.ok) return refusePolicy(accepted);
      context.commit(actor, now, (emit, note) => {
        saveTrust(sql, policy);
        note({ action: "trust.changed", target: "trust", requestId, before: current, after: policy });
        emit({ type: "trust.changed", subject: "trust", data: { policy } });
      });
      return policy;
    },

    trustBasis({ runners }) {
      const at = formatTime(Date.now());
      const put = readTrust(sql);
      if (put === null) {
        const asked = runners.filter((runner) => findRunner(sql, runner)?.revokedAt === null);
        const policy = defaultPolicy(runners.length === 0 ? readRunnerKeys(sql, TRUST_LIMITS.policySigners) : asked);
        return { at, policy, isDefault: true, revoked: [] };
      }
      const revoked = put.signers.flatMap(({ key }) => {
        const revokedAt = findRunner(sql, key)?.revokedAt ?? null;
        return revokedAt === null ? [] : [{ key, at: formatTime(revokedAt) }];
      });
      return { at, policy: put, isDefault: false, revoked };
    },

    getTriggers: () => triggersView(readTriggers(sql)),

    putTriggers({ requestId, actor, body, ifMatch }) {
      const now = Date.now();
      const current = readTriggers(sql);
      const { version } = current;
      const refused = checkIfMatch(ifMatch, version) ?? checkTriggers(body);
      if (refused !== null) return refused;
      const hooks = takeHooks(body.hooks, current.hooks);
      if (isRefusal(hooks)) return hooks;
      const stored: StoredTriggers = { ...body, version: version + 1, hooks };
      context.commit(actor, now, (emit, note) => {
        const before = triggersView(current);
        saveTriggers(sql, stored);
        note({ action: "triggers.changed", target: "triggers", requestId, before, after: triggersView(stored) });
        emit({ type: "triggers.changed", subject: "triggers", data: { triggers: triggersView(stored) } });
      });
      return triggersView(stored);
    },
  };
}

function triggersView(stored: StoredTriggers): TriggersView {
  const { version, triggers, hooks, secrets, approvals, quorums, locks, limits, skipUnchanged, paths } = stored;
  return {
    version,
    triggers,
    hooks: hooks.map(hookView),
    ...(secrets === undefined ? {} : { secrets }),
    ...(approvals === undefined ? {} : { approvals }),
    ...(quorums === undefined ? {} : { quorums }),
    ...(skipUnchanged === undefined ? {} : { skipUnchanged }),
    ...(locks === undefined ? {} : { locks }),
    ...(limits === undefined ? {} : { limits }),
    ...(paths === undefined ? {} : { paths }),
  };
}

/** The detail of a refused policy begins with the pointer of what is wrong. */
function refusePolicy({ code, detail }: { code: string; detail: string }): Refusal {
  const [pointer = "", ...rest] = detail.split(": ");
  const errors = [{ pointer, detail: rest.join(": ") }];
  if (code === "wrong-version")
    return refuse("revision-conflict", "The policy does not follow the one that stands.", { errors });
  return refuse(code === "weak-key" ? "weak-key" : "invalid-body", "The policy cannot be taken.", { errors });
}
