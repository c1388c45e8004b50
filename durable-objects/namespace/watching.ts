import type { DeploymentId } from "@plumule/protocol";
import { deploymentObject } from "../shared/names.ts";
import type { Watchers } from "../shared/watchers.ts";
import { bounded } from "./bounded.ts";
import type { NamespaceContext } from "./context.ts";
import type { Courier } from "./outbox.ts";
import { insertOutbox } from "./store/outbox.ts";
import { takeWatching } from "./store/watching.ts";

/**
 * Ends the sockets of a caller whose right has ended. Part of the commit that ends it: the deployments where it was admitted are told through the
 * outbox, so that a restart in between forgets none.
 */
export function endWatching(sql: SqlStorage, actor: string): void {
  const now = Date.now();
  for (const deployment of takeWatching(sql, actor)) insertOutbox(sql, "watcher", { actor, deployment }, now);
}

/** Lets a caller's sockets go, at a deployment or (without a name) at the namespace itself. */
export function watcherCourier({ env, namespace }: NamespaceContext, own: Watchers): Courier {
  return {
    async deliver(payload) {
      const { actor, deployment } = JSON.parse(payload) as { actor: string; deployment: DeploymentId };
      if (deployment === "") own.end(actor);
      else await bounded(deploymentObject(env, namespace, deployment).endWatchers({ actor }));
      return () => undefined;
    },
    park: () => undefined,
  };
}
