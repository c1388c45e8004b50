import { ACCEPTED_MEDIUM, isRefusal, type TrustPolicy } from "@plumule/protocol";
import { expect, it } from "vitest";
import { DIRECTORY } from "../../durable-objects/shared/names.ts";
import { ask, newTenant, problemIn, told } from "./edge-harness.ts";
import { namespaceCalls, newSigner } from "./namespace-fixtures.ts";
import { openHooks, post } from "./namespace-hook-fixtures.ts";

const v = (version: number): Record<string, string> => ({ "if-match": `"v${version}"` });

it("is replaced version by version, never by an older or an expired one, and only by who read the one that stands", async () => {
  const { ns, tokens } = await newTenant();
  const { did } = await newSigner();
  const path = `/v1/${ns}/trust`;
  const token = tokens.admin;
  const policy: TrustPolicy = { version: 2, signers: [{ key: did, operator: "north" }], rules: [] };
  const put = (body: unknown, headers: Record<string, string>): Promise<Response> =>
    ask("PUT", path, { token, body, headers });
  expect((await problemIn(await put(policy, {}))).code).toBe("precondition-required");
  expect((await problemIn(await put(policy, v(7)))).code).toBe("revision-conflict");
  expect((await put(policy, v(1))).status).toBe(200);
  // The one that was there before, as a backup would bring it back.
  const older = await problemIn(await put(policy, v(2)));
  expect(older).toMatchObject({ code: "revision-conflict", errors: [{ pointer: "/version" }] });
  const expired = await problemIn(await put({ ...policy, version: 3, expires: "2026-01-01T00:00:00Z" }, v(2)));
  expect(expired).toMatchObject({ code: "invalid-body", errors: [{ pointer: "/expires" }] });
  expect(await told<TrustPolicy>(ask("GET", path, { token }), 200)).toEqual(policy);
});

it("with purposes is not shown to a reader that would take every key for one of results", async () => {
  const { ns, tokens } = await newTenant();
  const { did } = await newSigner();
  const path = `/v1/${ns}/trust`;
  const token = tokens.admin;
  const signers: TrustPolicy["signers"] = [{ key: did, operator: "garden", purposes: ["webhook"] }];
  const put = await ask("PUT", path, { token, body: { version: 2, signers, rules: [] }, headers: v(1) });
  expect(put.status).toBe(200);
  const old = await problemIn(await ask("GET", path, { token, headers: { accept: "application/json" } }));
  expect(old.code).toBe("protocol-too-old");
  const read = await told<TrustPolicy>(ask("GET", path, { token, headers: { accept: ACCEPTED_MEDIUM } }), 200);
  expect(read.signers).toEqual(signers);
});

it("lets a key send webhooks that is there for them, until it is revoked, and no other", async () => {
  const place = await openHooks();
  const [garden, runner] = [await newSigner(), await newSigner()];
  const push = async (key: typeof garden): Promise<string> => {
    const answer = await post(place, { after: crypto.randomUUID().replaceAll("-", "").padEnd(40, "a") }, { key });
    return isRefusal(answer) ? answer.refused : answer.delivery.signer;
  };
  const trust = async (version: number, revokedAt: string | null): Promise<void> => {
    const signers: TrustPolicy["signers"] = [
      { key: garden.did, operator: "garden", purposes: ["webhook"], revokedAt },
      { key: runner.did, operator: "north" },
    ];
    const put = await place.calls.putTrust({
      actor: "admin",
      policy: { version, signers, rules: [] },
      ifMatch: `"v${version - 1}"`,
    });
    expect(isRefusal(put)).toBe(false);
  };
  expect(await push(garden)).toBe("bad-signature");
  await trust(2, null);
  expect([await push(garden), await push(runner)]).toEqual([garden.did, "bad-signature"]);
  await trust(3, new Date(Date.now() - 1_000).toISOString());
  expect(await push(garden)).toBe("bad-signature");
});

it("is signed for by a broker whose key anybody may see, and which no question brings into being", async () => {
  // Other tests may have had the installation's key made already; an object that nobody asked before shows how it begins.
  const fresh = namespaceCalls(`@directory-${crypto.randomUUID()}`);
  expect(await fresh.brokerKey({ make: false })).toBeNull();
  expect(await fresh.brokerKey({ make: false })).toBeNull();
  const first = await fresh.brokerKey({ make: true });
  expect([await fresh.brokerKey({ make: false }), await fresh.brokerKey({ make: true })]).toEqual([first, first]);

  const directory = namespaceCalls(DIRECTORY);
  const shown = async (): Promise<string | null> =>
    (await told<{ brokerKey: string | null }>(ask("GET", "/v1"), 200)).brokerKey;
  expect(await shown()).toBe(await directory.brokerKey({ make: false }));
  const made = await directory.brokerKey({ make: true });
  expect(made).toMatch(/^did:key:z6Mk/);
  expect([await shown(), await directory.brokerKey({ make: true })]).toEqual([made, made]);
});
