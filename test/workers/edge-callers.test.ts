import { LIMITS } from "@plumule/protocol";
import { beforeAll, describe } from "vitest";
import { ADMIN, runPath } from "./edge-harness.ts";
import {
  ABSENT_JOB,
  ABSENT_RUN,
  SHELL,
  bad,
  by,
  foreign,
  get,
  post,
  put,
  refuses,
  remove,
  runner,
  running,
  setStage,
  submitting,
  tenant,
} from "./edge-stage.ts";

const NOBODY = `did:key:z6Mk${"k".repeat(44)}`;

beforeAll(setStage);

describe("a caller", () => {
  refuses("without the right credential is refused", () => {
    const path = `${tenant.at}/deployments`;
    const code = "unauthenticated";
    return [
      bad("none", get(path), code),
      bad("another scheme", get(path, { headers: { authorization: "Basic eDp5" } }), code),
      bad("a made-up token", get(path, { token: `plm_abcdefghijkl_${"x".repeat(43)}` }), code),
      bad("no token at all", get(path, { token: "x" }), code),
      bad("a token of another namespace", get(path, { token: foreign.tokens.admin }), code),
      bad("a namespace that is not there", get("/v1/nobody-here/jobs", by("admin")), code),
      bad(
        "a token where the installation's is needed",
        post("/v1/namespaces", by("admin", { body: { id: "mine" } })),
        code,
      ),
      bad("no lease", post(`${runPath(tenant.at, running)}/heartbeat`, { body: { epoch: 1 } }), code),
      bad(
        "a ticket that was not given out",
        get(`${tenant.at}/stream`, {
          headers: { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1, ticket.x" },
        }),
        code,
      ),
      bad(
        "a page's socket without a ticket",
        get(`${tenant.at}/stream`, {
          headers: { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1", origin: "https://panel.example" },
        }),
        code,
      ),
      bad(
        "a registration with a made-up token",
        post(`${tenant.at}/runners`, {
          body: {
            token: "x",
            name: "king",
            proof: { payload: "e30=", payloadType: "x", signatures: [{ sig: "AA==" }] },
          },
        }),
        code,
      ),
      bad(
        "a session with a made-up proof",
        post(`${tenant.at}/runners/session`, {
          body: { runner: runner.id, proof: { payload: "e30=", payloadType: "x", signatures: [{ sig: "AA==" }] } },
        }),
        code,
      ),
    ];
  });

  refuses("with too small a scope is told which one it needs", () => [
    bad("read submits", { ...submitting(SHELL), ask: by("read", { body: SHELL }) }, "forbidden", {
      detail: "`submit`",
    }),
    bad("submit drains", post(`${tenant.at}/runners/${runner.id}/drain`, by("submit")), "forbidden", {
      detail: "`operate`",
    }),
    bad("operate reads tokens", get(`${tenant.at}/tokens`, by("operate")), "forbidden", { detail: "`admin`" }),
    bad("operate changes the trust policy", put(`${tenant.at}/trust`, by("operate", { body: {} })), "forbidden", {
      detail: "`admin`",
    }),
    bad("a runner reads", get(`${tenant.at}/jobs`, { token: runner.session }), "forbidden", { detail: "`read`" }),
    bad("a person polls", post(`${tenant.at}/poll`, by("admin", { body: {} })), "forbidden"),
  ]);

  refuses("of another namespace finds nothing of this one", () => {
    const token = foreign.tokens.admin;
    return [
      bad("a job", get(`${foreign.at}/jobs/${running.job}`, { token }), "not-found"),
      bad("a run", get(`${foreign.at}/runs/${running.run}`, { token }), "not-found"),
      bad("a log", get(`${foreign.at}/runs/${running.run}/log`, { token }), "not-found"),
      bad("a deployment", get(`${foreign.at}/deployments/web`, { token }), "not-found"),
      bad("a cancel", post(`${foreign.at}/jobs/${running.job}/cancel`, { token }), "not-found"),
      bad("a runner", post(`${foreign.at}/runners/${runner.id}/drain`, { token }), "not-found"),
      bad(
        "the admin of the installation, where there is no namespace",
        get("/v1/nobody-here/jobs", { token: ADMIN }),
        "not-found",
      ),
    ];
  });
});

describe("a path or query", () => {
  refuses("with a bad id names it", () => {
    const code = "invalid-parameter";
    return [
      bad("namespace", get("/v1/Not_Valid/jobs", by("read")), code, { pointer: "/ns" }),
      bad("the directory", get("/v1/@directory/jobs", { token: ADMIN }), code, { pointer: "/ns" }),
      bad("deployment", get(`${tenant.at}/deployments/-x`, by("read")), code, { pointer: "/deployment" }),
      bad("deployment with a slash", get(`${tenant.at}/deployments/web%2F..%2Fx`, by("read")), code, {
        pointer: "/deployment",
      }),
      bad("job", get(`${tenant.at}/jobs/1`, by("read")), code, { pointer: "/job" }),
      bad("a run for a job", get(`${tenant.at}/jobs/${ABSENT_RUN}`, by("read")), code, { pointer: "/job" }),
      bad("run", get(`${tenant.at}/runs/${ABSENT_JOB}`, by("read")), code, { pointer: "/run" }),
      bad("commit", get(`${tenant.at}/commits/HEAD/runs`, by("read")), code, { pointer: "/commit" }),
      bad("runner", remove(`${tenant.at}/runners/king`, by("admin")), code, { pointer: "/runner" }),
      bad("token", remove(`${tenant.at}/tokens/x`, by("admin")), code, { pointer: "/token" }),
    ];
  });

  refuses("with a bad value names it", () => {
    const code = "invalid-parameter";
    const jobs = `${tenant.at}/jobs`;
    return [
      bad("limit of none", get(`${jobs}?limit=0`, by("read")), code, { pointer: "/limit" }),
      bad("limit beyond", get(`${jobs}?limit=${LIMITS.listPage + 1}`, by("read")), code, { pointer: "/limit" }),
      bad("limit in words", get(`${jobs}?limit=many`, by("read")), code, { pointer: "/limit" }),
      bad("state", get(`${jobs}?state=done`, by("read")), code, { pointer: "/state" }),
      bad("unknown parameter", get(`${jobs}?page=2`, by("read")), code, { pointer: "/page" }),
      bad("wait beyond", get(`${tenant.at}/events?wait=600`, by("read")), code, { pointer: "/wait" }),
      bad("range", get(`${tenant.at}/runs/${running.run}/log`, by("read", { headers: { range: "bytes=-5" } })), code, {
        pointer: "Range",
      }),
      bad(
        "offset",
        put(`${runPath(tenant.at, running)}/log?offset=-1&epoch=1`, { token: running.leaseToken, body: "x" }),
        code,
        { pointer: "/offset" },
      ),
      bad("idempotency key", submitting(SHELL, { "idempotency-key": "two words" }), code, {
        pointer: "Idempotency-Key",
      }),
      bad("ETag", submitting(SHELL, { "if-match": "*" }), code, { pointer: "If-Match" }),
    ];
  });

  refuses("with a cursor that was not given out is refused", () =>
    ["jobs", "deployments", "runners", "deliveries"]
      .map((list) => bad(list, get(`${tenant.at}/${list}?cursor=x`, by("read")), "invalid-cursor"))
      .concat([
        bad("namespaces", get("/v1/namespaces?cursor=x", { token: ADMIN }), "invalid-cursor"),
        bad("events", get(`${tenant.at}/deployments/web/events?since=x`, by("read")), "invalid-cursor"),
        bad(
          "events of another history",
          get(`${tenant.at}/deployments/web/events?since=e1:1`, by("read")),
          "cursor-expired",
        ),
        bad("events of the namespace", get(`${tenant.at}/events?since=x`, by("read")), "invalid-cursor"),
      ]),
  );

  refuses("of what is not there is not found", () => [
    bad("job", get(`${tenant.at}/jobs/${ABSENT_JOB}`, by("read")), "not-found"),
    bad("its statements", get(`${tenant.at}/jobs/${ABSENT_JOB}/statements`, by("read")), "not-found"),
    bad("its derivations", get(`${tenant.at}/jobs/${ABSENT_JOB}/derivations`, by("read")), "not-found"),
    bad("run", get(`${tenant.at}/runs/${ABSENT_RUN}`, by("read")), "not-found"),
    bad("rerun", post(`${tenant.at}/jobs/${ABSENT_JOB}/rerun`, by("submit")), "not-found"),
    bad("runner", post(`${tenant.at}/runners/${NOBODY}/drain`, by("operate")), "not-found"),
    bad("token", remove(`${tenant.at}/tokens/abcdefghijkl`, by("admin")), "not-found"),
    bad("delivery", post(`${tenant.at}/deliveries/${ABSENT_RUN}/redeliver`, by("operate")), "not-found"),
    bad("deployment", get(`${tenant.at}/deployments/none`, by("read")), "not-found"),
    bad("its events", get(`${tenant.at}/deployments/none/events`, by("read")), "not-found"),
    bad("its cancel", post(`${tenant.at}/deployments/none/cancel`, by("submit")), "not-found"),
    bad("its removal", remove(`${tenant.at}/deployments/none`, by("operate")), "not-found"),
  ]);

  refuses("that is a stream speaks WebSocket only", () => [
    bad("plain", get(`${tenant.at}/stream`, by("read")), "upgrade-required"),
    bad(
      "another subprotocol",
      get(
        `${tenant.at}/deployments/web/stream`,
        by("read", { headers: { upgrade: "websocket", "sec-websocket-protocol": "wamp.2.json" } }),
      ),
      "upgrade-required",
    ),
  ]);
});
