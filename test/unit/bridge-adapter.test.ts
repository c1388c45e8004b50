import { describe, expect, it } from "vitest";
import { finishedLine, readRequest, triggeredLine } from "../../bridge/src/adapter/request.ts";
import { newPerson } from "../support/radicle.ts";

const alice = newPerson();
const oid = "a".repeat(40);
const id = "z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const repository = { id: `rad:${id}`, private: false, delegates: [alice.did, "did:key:of another kind"] };
const push = { request: "trigger", version: 1, repository, pusher: { id: alice.did }, branch: "main", after: oid };
const common = { repository: id, isPrivate: false, delegates: [alice.did], author: alice.did, after: oid };

describe("a request of radicle-ci-broker", () => {
  it.each([
    ["what later versions add", { ...push, more: { of: "it" }, event_type: "tag" }],
    ["an alias that is missing or null", { ...push, pusher: { id: alice.did, alias: null } }],
    ["fields of the other kind that are null", { ...push, patch: null, action: null }],
    ["commits that are left out", { ...push, before: oid, commits: [] }],
  ])("may have %s", (_, request) => {
    expect(readRequest(JSON.stringify(request))).toEqual({ ok: true, value: { ...common, kind: "ref", name: "main" } });
  });

  it("is about a patch when it has one, whatever the action and the conflicts look like", () => {
    const author = { id: alice.did };
    const conflicts = [{ revision: oid }];
    const patch = { id: oid, author, title: "t", before: oid, after: oid, state: { conflicts } };
    const request = { request: "trigger", version: 1, repository, action: "updated", patch };
    expect(readRequest(JSON.stringify(request))).toEqual({
      ok: true,
      value: { ...common, kind: "patch", patch: oid, base: oid, title: "t" },
    });
  });

  it("is private unless it says that it is not", () => {
    const request = { ...push, repository: { id: repository.id } };
    expect(readRequest(JSON.stringify(request))).toMatchObject({ value: { isPrivate: true, delegates: [] } });
  });

  it.each([
    ["{", "no JSON"],
    ["[]", "/: "],
    [JSON.stringify({ ...push, request: "stop" }), "/request: "],
    [JSON.stringify({ ...push, version: 2 }), "/version: "],
    [JSON.stringify({ ...push, repository: { id: "../../etc" } }), "/repository/id: "],
    [JSON.stringify({ ...push, after: "--upload-pack=x" }), "/after: "],
    [JSON.stringify({ ...push, branch: undefined }), "neither `patch` nor"],
  ])("is refused when it is %s", (line, why) => {
    expect(readRequest(line)).toMatchObject({ ok: false, detail: expect.stringContaining(why) });
  });
});

it("answers have the fields that radicle-ci-broker knows, and no other, because it refuses those", () => {
  expect([triggeredLine("j", "https://b.example/j/j"), finishedLine("failure")]).toEqual([
    '{"response":"triggered","run_id":{"id":"j"},"info_url":"https://b.example/j/j"}',
    '{"response":"finished","result":"failure"}',
  ]);
});
