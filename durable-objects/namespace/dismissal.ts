import type { Millis, RunnerId } from "@plumule/protocol";
import { deploymentObject } from "../shared/names.ts";
import { bounded } from "./bounded.ts";
import type { NamespaceContext } from "./context.ts";
import type { Courier } from "./outbox.ts";
import { readBusyDeployments } from "./store/jobs.ts";
import { insertOutbox, insertOutboxFor } from "./store/outbox.ts";

/** Deployments that are told at a time. */
const BATCH = 50;
/** When the second look comes, ms: a job that was assigned just before is in the index by then. */
const SECOND_LOOK_MS = 5_000;

type Dismissal = { actor: string; runner: RunnerId; again: boolean };

/** Has the leases of a revoked runner end everywhere. Part of the commit that revokes it. */
export function dismissRunner({ sql }: NamespaceContext, actor: string, runner: RunnerId, now: Millis): void {
  insertOutbox(sql, "dismissal", { actor, runner, again: true } satisfies Dismissal, now);
}

/** Tells every deployment in which something runs. Most of them hold no lease of the runner, and change nothing. */
export function dismissalCourier({ sql, env, namespace }: NamespaceContext): Courier {
  return {
    async deliver(payload) {
      const { actor, runner, again } = JSON.parse(payload) as Dismissal;
      const deployments = readBusyDeployments(sql);
      for (let from = 0; from < deployments.length; from += BATCH)
        await Promise.all(
          deployments
            .slice(from, from + BATCH)
            .map((id) => bounded(deploymentObject(env, namespace, id).dismiss({ actor, runner }))),
        );
      return () => {
        if (again) insertOutboxFor(sql, Date.now() + SECOND_LOOK_MS, "dismissal", { actor, runner, again: false });
      };
    },
    park: () => undefined,
  };
}
