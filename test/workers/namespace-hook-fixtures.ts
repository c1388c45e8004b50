import { type DeliveryView, type Refusal, signWebhook, type Trigger } from "@plumule/protocol";
import { vi } from "vitest";
import type { NamespaceCalls, RawHook } from "../../durable-objects/namespace/calls.ts";
import { bytesOf, granted, hookOf, newSigner, openNamespace } from "./namespace-fixtures.ts";

/** A signer with its did:key. */
export type Key = Awaited<ReturnType<typeof newSigner>>;
/** A namespace with the key that its hook trusts. */
export type Place = { name: string; calls: NamespaceCalls; audience: string; key: Key };
/** What a webhook is answered. */
export type Received = { status: 200 | 202; delivery: DeliveryView };

/** The secret of the hook `garden`, that of GitHub's documentation. */
export const SECRET = "It's a Secret to Everybody";
export const REPOSITORY = "rad:z2hCUNw2T1qU31LyGy7VPEiS7BkxW";
export const COMMITS = ["a", "b", "c"].map((digit) => digit.repeat(40)) as [string, string, string];
export const RULE: Trigger = {
  name: "ci",
  refs: ["refs/heads/**"],
  deployment: "app-{branch}",
  task: { kind: "shell", script: "true" },
  hold: true,
};

/** A namespace that trusts one key and one secret and builds every branch; its jobs are held, so that they stay where they are. */
export async function openHooks(triggers: Trigger[] = [RULE]): Promise<Place> {
  const place = await openNamespace();
  const key = await newSigner();
  granted(
    await place.calls.putTriggers({
      actor: "admin",
      body: {
        triggers,
        hooks: [
          { id: "seed", keys: [key.did] },
          { id: "garden", secret: SECRET },
        ],
      },
      ifMatch: `"v0"`,
    }),
  );
  return { ...place, key };
}

/** plumule's own body of a push to main. */
export function bodyOf(audience: string, changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    type: "push",
    audience,
    repository: REPOSITORY,
    ref: "refs/heads/main",
    before: COMMITS[0],
    after: COMMITS[1],
    ...changes,
  };
}

type Signing = { id?: string; key?: Key; seconds?: number; hook?: string };

/** plumule's own body, signed with Ed25519 (`v1a`), as the edge hands it over. */
export async function signedPush(
  place: Place,
  changes: Record<string, unknown> = {},
  more: Signing = {},
): Promise<RawHook> {
  const { id = crypto.randomUUID(), key = place.key, seconds = Math.floor(Date.now() / 1000), hook = null } = more;
  const body = bytesOf(bodyOf(place.audience, changes));
  return hookOf(body, await signWebhook({ id, timestampSeconds: seconds, body, signer: key }), place.audience, hook);
}

/** Posts it. */
export async function post(
  place: Place,
  changes: Record<string, unknown> = {},
  more: Signing = {},
): Promise<Received | Refusal> {
  return place.calls.receiveHook(await signedPush(place, changes, more));
}

/** The delivery once its jobs were handed over. */
export async function settled(calls: NamespaceCalls, id: string): Promise<DeliveryView> {
  return vi.waitFor(async () => {
    const found = granted(await calls.listDeliveries({ cursor: null, limit: 200 })).items.find(
      (delivery) => delivery.id === id,
    );
    if (found === undefined || found.state === "accepted") throw new Error(`the delivery is ${found?.state}`);
    return found;
  }, 5_000);
}
