import type { JobDetail, Trigger } from "@plumule/protocol";
import { describe, expect, test } from "vitest";
import { deploymentObject } from "../../durable-objects/shared/names.ts";
import { bindings, dumpTables, granted, newSigner } from "./namespace-fixtures.ts";
import { openHooks, type Place, post, settled } from "./namespace-hook-fixtures.ts";

const REPOSITORY = "https://example.org/app.git";
const RULE: Trigger = {
  name: "deploy",
  refs: ["refs/heads/main"],
  events: ["push"],
  deployment: "app",
  task: { kind: "repository" },
};
const condition = { and: [{ repository: REPOSITORY }, { branch: "main" }] };

/** A namespace whose rule gives a secret, with who may open that. */
async function openPlace(name = "key"): Promise<Place & { runner: string }> {
  const place = await openHooks([RULE]);
  const { did: runner } = await newSigner();
  const body = { triggers: [RULE], hooks: [{ id: "seed", keys: [place.key.did] }], secrets: { deploy: [name] } };
  granted(await place.calls.putTriggers({ actor: "admin", body, ifMatch: '"v1"' }));
  granted(
    await place.calls.putSecret({ actor: "admin", name: "key", body: { box: "AAAA", runners: [runner], condition } }),
  );
  return { ...place, runner };
}

describe("a rule with secrets", () => {
  test("gives its jobs the boxes of the moment, once, however often the delivery is handed over", async () => {
    const place = await openPlace();
    const { delivery } = granted(await post(place, { repository: REPOSITORY }));
    const [{ job } = { job: null }] = (await settled(place.calls, delivery.id)).results;
    const detail: JobDetail = granted(await deploymentObject(bindings, place.name, "app").job(job ?? ""));
    expect(detail.spec.secrets).toEqual([{ name: "key", box: "AAAA", runners: [place.runner] }]);

    const body = { box: "BBBB", runners: [place.runner], condition };
    granted(await place.calls.putSecret({ actor: "admin", name: "key", body }));
    const again = granted(await place.calls.redeliver({ actor: "admin", id: delivery.id }));
    const [{ job: second } = { job: null }] = (await settled(place.calls, again.id)).results;
    const next: JobDetail = granted(await deploymentObject(bindings, place.name, "app").job(second ?? ""));
    expect(next.spec.secrets).toEqual([{ name: "key", box: "BBBB", runners: [place.runner] }]);
  });

  test("starts nothing when the secret is not stored, and says which", async () => {
    const place = await openPlace("other");
    const { delivery } = granted(await post(place, { repository: REPOSITORY }));
    const { state, results } = await settled(place.calls, delivery.id);
    expect([state, results[0]?.job]).toEqual(["failed", null]);
    expect(results[0]?.detail).toContain("The job names a secret that is not there.");
  });

  test("keeps boxes where they are stored alone: no event and no delivery carries one", async () => {
    const place = await openPlace();
    const { delivery } = granted(await post(place, { repository: REPOSITORY }));
    await settled(place.calls, delivery.id);
    const { secrets, ...tables } = await dumpTables(place.name);
    expect(JSON.stringify(secrets)).toContain("AAAA");
    expect(JSON.stringify(tables)).not.toContain("AAAA");
  });
});
