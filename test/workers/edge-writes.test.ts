import { zstdCompressSync } from "node:zlib";
import { LIMITS, refuse } from "@plumule/protocol";
import { beforeAll, describe } from "vitest";
import { ADMIN, runPath } from "./edge-harness.ts";
import {
  ABSENT_RUN,
  SHELL,
  bad,
  by,
  finalJob,
  get,
  post,
  put,
  refuses,
  running,
  setStage,
  submitting,
  tenant,
} from "./edge-stage.ts";

beforeAll(setStage);

describe("a body", () => {
  refuses("that does not fit names each field", () => {
    const code = "invalid-body";
    return [
      bad("empty", submitting(undefined), code, { pointer: "/task" }),
      bad("unknown field", submitting({ ...SHELL, priorty: "high" }), code, { pointer: "/priorty" }),
      bad("unknown field below", submitting({ task: { ...SHELL.task, shell: "zsh" } }), code, {
        pointer: "/task/shell",
      }),
      bad("unknown kind", submitting({ task: { kind: "docker" } }), code, { pointer: "/task/kind" }),
      bad(
        "an option for an installable",
        submitting({ task: { kind: "nix-build", installables: ["--impure"] } }),
        code,
        { pointer: "/task/installables/0" },
      ),
      bad("a key with a slash", submitting({ ...SHELL, labels: { "a/b~c": 1 } }), code, { pointer: "/labels/a~1b~0c" }),
      bad("a repository task without a source", submitting({ task: { kind: "repository" } }), code, {
        pointer: "/source",
      }),
      bad("an array", submitting([SHELL]), code, { pointer: "" }),
      bad("a refusal", submitting(refuse("gone", "no")), code, { pointer: "/task" }),
      bad("cancel", post(`${tenant.at}/jobs/${running.job}/cancel`, by("submit", { body: { forced: true } })), code, {
        pointer: "/forced",
      }),
      bad("token without scopes", post(`${tenant.at}/tokens`, by("admin", { body: { name: "x", scopes: [] } })), code, {
        pointer: "/scopes",
      }),
      bad("namespace", post("/v1/namespaces", { token: ADMIN, body: { id: "@directory" } }), code, { pointer: "/id" }),
      bad(
        "hook without a key",
        put(
          `${tenant.at}/triggers`,
          by("admin", { body: { triggers: [], hooks: [{ id: "x" }] }, headers: { "if-match": '"v0"' } }),
        ),
        code,
        { pointer: "/hooks/0" },
      ),
    ];
  });

  refuses("that two readers could read differently is refused", () => {
    const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
    const bodies: Record<string, string | Uint8Array> = {
      "not JSON": "{",
      "two documents": "{}{}",
      "a key twice": '{"task":{"kind":"shell","script":"true"},"task":{"kind":"shell","script":"false"}}',
      "a key twice, once escaped": '{"task":1,"t\\u0061sk":2}',
      "a reserved key": '{"__proto__":{"hold":true},"task":{"kind":"shell","script":"true"}}',
      "too deep": `{"configuration":${"[".repeat(40)}${"]".repeat(40)},"task":{"kind":"shell","script":"true"}}`,
      "half a surrogate pair": '{"task":{"kind":"shell","script":"\\ud800"}}',
      "a byte order mark": Uint8Array.of(0xef, 0xbb, 0xbf, ...utf8(JSON.stringify(SHELL))),
      "invalid UTF-8": Uint8Array.of(...utf8('{"task":"'), 0xc3, 0x28, ...utf8('"}')),
      "an overlong form": Uint8Array.of(...utf8('{"task":"'), 0xc0, 0xaf, ...utf8('"}')),
    };
    return Object.entries(bodies).map(([name, body]) => bad(name, submitting(body), "invalid-json"));
  });

  refuses("that is too large is not read to its end", () => {
    const code = "payload-too-large";
    const endless = (): ReadableStream<Uint8Array> =>
      new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536).fill(0x20)) });
    const large = (limitBytes: number): string => " ".repeat(limitBytes + 1);
    return [
      bad("announced", submitting(large(LIMITS.submitBytes)), code, { detail: String(LIMITS.submitBytes) }),
      bad("streamed without an end", submitting(endless()), code, { detail: String(LIMITS.submitBytes) }),
      bad(
        "control",
        post(`${tenant.at}/jobs/${running.job}/cancel`, by("submit", { body: large(LIMITS.controlBytes) })),
        code,
      ),
      bad("webhook", post(`${tenant.at}/hooks/radicle`, { body: endless() }), code),
      bad(
        "log",
        put(`${runPath(tenant.at, running)}/log?offset=5&epoch=${running.epoch}`, {
          token: running.leaseToken,
          body: large(LIMITS.logAppendBytes),
        }),
        code,
      ),
    ];
  });

  refuses("that is packed is refused, since its size is unknown", () => [
    bad("gzip", submitting(SHELL, { "content-encoding": "gzip" }), "unsupported-media-type"),
    bad(
      "what a log alone may be packed with",
      submitting(SHELL, { "content-encoding": "zstd" }),
      "unsupported-media-type",
    ),
  ]);

  refuses("of a log that is packed wrongly changes nothing", () => {
    const path = `${runPath(tenant.at, running)}/log?offset=5&epoch=${running.epoch}`;
    const packed = (encoding: string, body: Uint8Array | string): ReturnType<typeof put> =>
      put(path, { token: running.leaseToken, body, headers: { "content-encoding": encoding } });
    return [
      bad("in another way", packed("gzip", " world"), "unsupported-media-type"),
      bad("not at all", packed("zstd", " world"), "invalid-body"),
      bad("to less than its end", packed("zstd", zstdCompressSync(new Uint8Array(99)).subarray(0, -1)), "invalid-body"),
      bad("to more than it may be", packed("zstd", zstdCompressSync(new Uint8Array(2 ** 24))), "payload-too-large"),
    ];
  });
});

describe("a write that comes too late or twice", () => {
  refuses("does not touch a run of another lease", () => {
    const at = runPath(tenant.at, running);
    const { leaseToken: token, epoch } = running;
    const phase = { type: "phase", phase: "building", at: new Date().toISOString() };
    const code = "stale-lease";
    return [
      bad("heartbeat of an older epoch", post(`${at}/heartbeat`, { token, body: { epoch: epoch + 1 } }), code),
      bad("heartbeat with another token", post(`${at}/heartbeat`, { token: "x".repeat(43), body: { epoch } }), code),
      bad("events", post(`${at}/events`, { token, body: { epoch: epoch + 1, number: 1, events: [phase] } }), code),
      bad("log", put(`${at}/log?offset=5&epoch=${epoch + 1}`, { token, body: " world" }), code),
      bad(
        "log with another token",
        put(`${at}/log?offset=5&epoch=${epoch}`, { token: tenant.tokens.admin, body: " world" }),
        code,
      ),
      bad(
        "a run that is not there",
        post(`${tenant.at}/deployments/web/runs/${ABSENT_RUN}/heartbeat`, { token, body: { epoch } }),
        code,
      ),
      bad(
        "a deployment that is not there",
        post(`${tenant.at}/deployments/none/runs/${running.run}/heartbeat`, { token, body: { epoch } }),
        code,
      ),
    ];
  });

  refuses("cannot change what a log holds", () => {
    const { leaseToken: token, epoch } = running;
    const log = (offset: number): string => `${runPath(tenant.at, running)}/log?offset=${offset}&epoch=${epoch}`;
    return [
      bad("other bytes", put(log(0), { token, body: "jello" }), "log-conflict"),
      bad("other bytes in the midst", put(log(3), { token, body: "xx more" }), "log-conflict"),
      bad("a hole", put(log(6), { token, body: "x" }), "log-gap"),
      bad("a read beyond its end", get(`${tenant.at}/runs/${running.run}/log?offset=6`, by("read")), "log-gap"),
    ];
  });

  refuses("cannot end a run without the runner's signature", () => {
    const digest = "0".repeat(64);
    const statement = { payload: "e30=", payloadType: "application/vnd.in-toto+json", signatures: [{ sig: "AA==" }] };
    const result = {
      epoch: running.epoch,
      outcome: "succeeded",
      exitCode: 0,
      reason: null,
      finishedAt: new Date().toISOString(),
      isolation: null,
      survivorsKilled: 0,
      log: { bytes: 5, sha256: digest, truncated: false },
      outputs: [],
      statements: [statement],
    };
    const path = `${runPath(tenant.at, running)}/result`;
    return [
      bad("no signature", post(path, { token: running.leaseToken, body: result }), "bad-signature"),
      bad("another lease", post(path, { token: "x".repeat(43), body: result }), "stale-lease"),
      bad(
        "no statement",
        post(path, { token: running.leaseToken, body: { ...result, statements: [] } }),
        "invalid-body",
        { pointer: "/statements" },
      ),
    ];
  });

  refuses("is compared with what it was decided on", () => {
    const policy = { version: 7, signers: [], rules: [] };
    const replace = (path: string, body: unknown, headers: Record<string, string>): ReturnType<typeof put> =>
      put(`${tenant.at}/${path}`, by("admin", { body, headers }));
    return [
      bad("an old revision", submitting(SHELL, { "if-match": '"r0-0"' }), "revision-conflict"),
      bad("a policy without If-Match", replace("trust", policy, {}), "precondition-required"),
      bad("a policy on another version", replace("trust", policy, { "if-match": '"v99"' }), "revision-conflict"),
      bad("rules without If-Match", replace("triggers", { triggers: [], hooks: [] }, {}), "precondition-required"),
      bad(
        "rules on another version",
        replace("triggers", { triggers: [], hooks: [] }, { "if-match": '"v99"' }),
        "revision-conflict",
      ),
      bad(
        "the same key for another request",
        submitting({ ...SHELL, hold: true }, { "idempotency-key": "k1" }),
        "idempotency-mismatch",
      ),
    ];
  });

  refuses("meets a job in another state", () => {
    return [
      bad("a busy deployment", submitting({ ...SHELL, mode: "reject" }), "busy", { detail: running.job }),
      bad(
        "cancel of a job that has ended",
        post(`${tenant.at}/jobs/${finalJob}/cancel`, by("submit")),
        "already-final",
      ),
      bad(
        "approve of a job that is not held",
        post(`${tenant.at}/jobs/${running.job}/approve`, by("operate")),
        "wrong-state",
      ),
      bad(
        "resolve of a job whose end is known",
        post(`${tenant.at}/jobs/${finalJob}/resolve`, by("operate", { body: { outcome: "failed" } })),
        "wrong-state",
      ),
    ];
  });
});

describe("a webhook", () => {
  refuses("that nobody signed is not believed", () => {
    const body = JSON.stringify({ type: "push" });
    const path = `${tenant.at}/hooks/radicle`;
    const standard = {
      "webhook-id": "msg_1",
      "webhook-timestamp": String(Math.floor(Date.now() / 1000)),
      "webhook-signature": "v1,AAAA",
    };
    return [
      bad("no headers", post(path, { body }), "missing-header"),
      bad("a made-up signature", post(path, { body, headers: standard }), "bad-signature"),
      bad(
        "an old time",
        post(path, { body, headers: { ...standard, "webhook-timestamp": "1000000000" } }),
        "timestamp-out-of-window",
      ),
      bad("a hook that is not there", post(`${path}/none`, { body, headers: standard }), "bad-signature"),
    ];
  });
});
