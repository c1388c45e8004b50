import { LIMITS, utf8 } from "@plumule/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { ask, newRunner, problemIn, runPath, told } from "./edge-harness.ts";
import {
  ABSENT_JOB,
  bad,
  type Bad,
  by,
  finalJob,
  foreign,
  get,
  post,
  put,
  refuses,
  runner,
  running,
  setStage,
  SHELL,
  submitting,
  tenant,
} from "./edge-stage.ts";

/*
 * Inputs that somebody will send, from outside, numbered like the rows of `test/unit/bad-inputs.test.ts`, which says for every row where the
 * rest of it is proved. Each is answered with its code, and nothing stored has changed. What has to be signed to be worth sending is in
 * `bad-inputs-signed.test.ts`.
 */

const KEY = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw";
const HOOK = { "webhook-id": "msg-1", "webhook-timestamp": "1700000000", "webhook-signature": "v1a,AAAA" };

beforeAll(setStage);

describe("bodies", () => {
  refuses("row 16: that two readers could read differently, or that break a reader", () => {
    const script = (text: string): string => `{"task":{"kind":"shell","script":${text}}}`;
    const bytes = (...parts: (string | number)[]): Uint8Array =>
      Uint8Array.from(parts.flatMap((part) => (typeof part === "number" ? [part] : [...utf8(part)])));
    return [
      bad("a key twice", submitting('{"task":1,"task":2}'), "invalid-json"),
      bad("__proto__", submitting('{"__proto__":{"admin":true}}'), "invalid-json"),
      bad("constructor", submitting('{"constructor":{"prototype":{}},"task":null}'), "invalid-body"),
      bad("depth 100,000", submitting(`${"[".repeat(100_000)}${"]".repeat(100_000)}`), "invalid-json"),
      bad("depth 100,000 of objects", submitting('{"a":'.repeat(50_000)), "invalid-json"),
      bad(
        "a number that is rounded",
        submitting('{"task":{"kind":"shell","script":"true"},"timeouts":{"runMs":9007199254740993}}'),
        "invalid-body",
        {
          pointer: "/timeouts/runMs",
        },
      ),
      bad("a number beyond all", submitting('{"task":null,"timeouts":{"runMs":1e999}}'), "invalid-body"),
      bad("half a surrogate pair", submitting(script('"\\udc00"')), "invalid-json"),
      bad("a byte order mark", submitting(bytes(0xef, 0xbb, 0xbf, "{}")), "invalid-json"),
      bad("a NUL between tokens", submitting(bytes("{", 0, "}")), "invalid-json"),
      bad("a NUL in a string", submitting(bytes('{"task":"', 0, '"}')), "invalid-json"),
      bad("invalid UTF-8", submitting(bytes('{"task":"', 0xff, '"}')), "invalid-json"),
      bad("a surrogate in UTF-8", submitting(bytes('{"task":"', 0xed, 0xa0, 0x80, '"}')), "invalid-json"),
      bad("UTF-16", submitting(bytes(0xff, 0xfe, 0x7b, 0, 0x7d, 0)), "invalid-json"),
    ];
  });

  refuses("row 17: that are larger than they may be, or do not tell", () => {
    const endless = (): ReadableStream<Uint8Array> =>
      new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(16_384).fill(0x20)) });
    const large = " ".repeat(LIMITS.webhookBytes + 1);
    const path = `${tenant.at}/hooks/radicle/seed`;
    return [
      bad("a webhook of one byte too many", post(path, { body: large, headers: HOOK }), "payload-too-large"),
      bad("a webhook without an end", post(path, { body: endless(), headers: HOOK }), "payload-too-large"),
      bad("a submit without an end", submitting(endless()), "payload-too-large"),
      ...["gzip", "br", "deflate", "gzip, gzip"].map((encoding) =>
        bad(encoding, submitting(SHELL, { "content-encoding": encoding }), "unsupported-media-type"),
      ),
    ];
  });

  it("rows 16 and 17: leave the next request alone", async () => {
    await told(ask("GET", `${tenant.at}/jobs/${running.job}`, by("read")), 200);
  });
});

describe("writes of a run", () => {
  // The lease token is all that a write shows: one that is not this run's is stale, whoever sends it, and 409 rather than 403.
  it("row 18: of another runner are refused", async () => {
    const other = await newRunner(tenant);
    const asked = { body: { epoch: running.epoch } };
    const path = `${runPath(tenant.at, running)}/heartbeat`;
    for (const token of [other.session, runner.session, "x".repeat(43)])
      expect((await problemIn(await ask("POST", path, { ...asked, token }))).code).toBe("stale-lease");
  });

  refuses("row 19: at a place in the log that is none", () => {
    const { leaseToken: token, epoch } = running;
    const log = (query: string): ReturnType<typeof put> =>
      put(`${runPath(tenant.at, running)}/log?${query}`, { token, body: "x" });
    return [
      bad("a hole", log(`offset=6&epoch=${epoch}`), "log-gap"),
      bad("other bytes", log(`offset=0&epoch=${epoch}`), "log-conflict"),
      bad("before the start", log(`offset=-1&epoch=${epoch}`), "invalid-parameter", { pointer: "/offset" }),
      bad("beyond all numbers", log(`offset=1e308&epoch=${epoch}`), "invalid-parameter", { pointer: "/offset" }),
      bad("not a number", log(`offset=NaN&epoch=${epoch}`), "invalid-parameter", { pointer: "/offset" }),
      bad("no offset", log(`epoch=${epoch}`), "invalid-parameter", { pointer: "/offset" }),
      bad("a negative epoch", log("offset=5&epoch=-1"), "invalid-parameter", { pointer: "/epoch" }),
      bad("half an epoch", log("offset=5&epoch=1.5"), "invalid-parameter", { pointer: "/epoch" }),
    ];
  });
});

describe("streams", () => {
  // There are no cookies, so a foreign page is nobody rather than somebody at the wrong place: 401, not 403.
  refuses("row 21: asked for by a foreign page", () =>
    ["https://evil.example", "null", "https://broker.test.evil", "http://broker.test", "https://broker.test"].map(
      (origin) =>
        bad(
          origin,
          get(`${tenant.at}/stream`, {
            headers: { upgrade: "websocket", "sec-websocket-protocol": "plumule.v1", origin, cookie: "session=x" },
            token: tenant.tokens.read,
          }),
          "unauthenticated",
        ),
    ),
  );

  it("row 22: are opened by a ticket once, here, by its own page and in the handshake alone", async () => {
    const origin = "https://panel.example";
    const made = async (): Promise<string> =>
      (await told<{ ticket: string }>(ask("POST", `${tenant.at}/tickets`, by("read", { headers: { origin } })), 201))
        .ticket;
    const open = async (
      ticket: string,
      { at = tenant.at, from = origin, query = "" }: { at?: string; from?: string | null; query?: string } = {},
    ): Promise<number> => {
      const protocols = query === "" ? `plumule.v1, ticket.${ticket}` : "plumule.v1";
      const headers = {
        upgrade: "websocket",
        "sec-websocket-protocol": protocols,
        ...(from === null ? {} : { origin: from }),
      };
      const answer = await ask("GET", `${at}/stream${query}`, { headers });
      answer.webSocket?.accept();
      answer.webSocket?.close();
      return answer.status;
    };
    expect(await open(await made(), { at: foreign.at })).toBe(401);
    expect(await open(await made(), { from: "https://evil.example" })).toBe(401);
    expect(await open(await made(), { from: null })).toBe(401);
    const inQuery = await made();
    expect(await open(inQuery, { query: `?ticket=${inQuery}` })).toBe(401);
    expect(await open(inQuery)).toBe(101);
    expect(await open(inQuery)).toBe(401);
    expect(await open("")).toBe(401);
  });

  it("row 24: go on from cursors that were given out, and from no others", async () => {
    const path = `${tenant.at}/deployments/web/events`;
    const { cursor } = await told<{ cursor: string }>(ask("GET", `${path}?limit=500`, by("read")), 200);
    const [epoch, head] = cursor.split(":") as [string, string];
    const start = await told<{ events: { sequence: string }[] }>(
      ask("GET", `${path}?since=${epoch}:0&limit=1`, by("read")),
      200,
    );
    expect(Number(start.events[0]?.sequence)).toBe(1);
    for (const since of [
      "-1",
      "0",
      "abc",
      `${epoch}:-1`,
      `${epoch}:abc`,
      `${epoch}:1e3`,
      `${epoch}:${Number(head) + 1}`,
    ])
      expect((await problemIn(await ask("GET", `${path}?since=${since}`, by("read")))).code, since).toBe(
        "invalid-cursor",
      );
    // A cursor of a history that is gone, or whose events are pruned, is told so; a socket gets a reset.
    expect((await problemIn(await ask("GET", `${path}?since=e1:1`, by("read")))).code).toBe("cursor-expired");
  });
});

describe("names", () => {
  // There are no artifacts with names of their own; what follows are all names that somebody chooses. `CON` is one like any other: no name is a file.
  refuses("row 26: that lead elsewhere, or look like another one", () => {
    const names = ["..", ".", "-x", "a/b", "..\\x", "x".repeat(300), "nfd-e\u0301", "a\u0000", " a"];
    const where = (name: string): Bad[] => [
      bad(
        `deployment ${name}`,
        post(
          `${tenant.at}/deployments/${encodeURIComponent(name).replaceAll(".", "%2e")}x%2f..%2fx/jobs`,
          by("submit", { body: SHELL }),
        ),
        "invalid-parameter",
        { pointer: "/deployment" },
      ),
      bad(`variable ${name}`, submitting({ ...SHELL, env: { [name]: "x" } }), "invalid-body"),
      bad(`secret ${name}`, submitting({ ...SHELL, secrets: [{ name }] }), "invalid-body", {
        pointer: "/secrets/0/name",
      }),
      bad(
        `rule ${name}`,
        put(
          `${tenant.at}/triggers`,
          by("admin", {
            body: { triggers: [], hooks: [{ id: name, keys: [KEY] }] },
            headers: { "if-match": '"v0"' },
          }),
        ),
        "invalid-body",
        { pointer: "/hooks/0/id" },
      ),
    ];
    return names.flatMap(where);
  });

  refuses("row 27: that git would take for something else", () => {
    const commit = "0".repeat(40);
    const repository = "https://seed.example/r.git";
    const source = (changes: object): ReturnType<typeof submitting> =>
      submitting({ ...SHELL, source: { repository, commit, ...changes } });
    const refs = [
      "refs/heads/--upload-pack=touch x",
      "refs/heads/--upload-pack=x",
      "refs/heads/$(id)",
      "refs/heads/a;b",
      "refs/heads/-x",
      "-x",
      "main",
      "refs/heads/../x",
      "refs/heads/a..b",
      "refs/heads/a.lock",
      "refs/remotes/x",
      "refs/heads/",
      "refs/heads/x\n",
    ];
    const repositories = [
      "rad:z../..",
      "rad:z",
      "--upload-pack=x",
      "ext::sh -c id",
      "EXT::sh",
      "git://h/x",
      "ssh://-oProxyCommand=x/y",
      "file://host/x",
      "http://h/x",
      "https://h/a b",
    ];
    const commits = ["--help", "0".repeat(39), "0".repeat(41), "A".repeat(40), "HEAD", `${commit}^{tree}`];
    return [
      ...refs.map((ref) => bad(ref, source({ ref }), "invalid-body", { pointer: "/source/ref" })),
      ...repositories.map((one) =>
        bad(one, source({ repository: one }), "invalid-body", { pointer: "/source/repository" }),
      ),
      ...repositories.map((one) =>
        bad(`further ${one}`, source({ urls: [one] }), "invalid-body", { pointer: "/source/urls/0" }),
      ),
      ...commits.map((one) => bad(one, source({ commit: one }), "invalid-body", { pointer: "/source/commit" })),
    ];
  });

  refuses("row 28: of hosts that are told the state of a commit, but are none", () =>
    [
      "localhost",
      "127.1",
      "2130706433",
      "[::1]",
      "127.0.0.1",
      "0x7f.1",
      "u:p@h.example",
      "https://h.example",
      "h.example/x",
      "h.example:22",
      "*.example",
    ].map((host) =>
      bad(
        host,
        put(
          `${tenant.at}/triggers`,
          by("admin", {
            body: { triggers: [], hooks: [{ id: "x", secret: "x".repeat(32), statusHosts: [host] }] },
            headers: { "if-match": '"v0"' },
          }),
        ),
        "invalid-body",
        { pointer: "/hooks/0/statusHosts/0" },
      ),
    ),
  );
});

describe("credentials", () => {
  const asked = (): string[] => [
    `/jobs/${running.job}`,
    `/jobs/${finalJob}`,
    `/runs/${running.run}/log`,
    "/deployments/web/events",
    "/deployments",
  ];

  refuses("row 30: that are wrong by one character, empty, or of somebody else", () => {
    const { read } = tenant.tokens;
    const changed = `${read.slice(0, -1)}${read.endsWith("a") ? "b" : "a"}`;
    return asked().flatMap((path) => [
      bad("one character", get(`${tenant.at}${path}`, { token: changed }), "unauthenticated"),
      bad("one character less", get(`${tenant.at}${path}`, { token: read.slice(0, -1) }), "unauthenticated"),
      bad("another tenant's", get(`${tenant.at}${path}`, { token: foreign.tokens.admin }), "unauthenticated"),
      ...[
        "",
        "Bearer",
        "Bearer ",
        `Bearer  ${read}`,
        `bearer\t${read}`,
        `Basic ${read}`,
        `Bearer ${read} `.repeat(2),
        `Bearer ${"x".repeat(600)}`,
      ].map((authorization) =>
        bad(
          `"${authorization.slice(0, 20)}"`,
          get(`${tenant.at}${path}`, { headers: { authorization } }),
          "unauthenticated",
        ),
      ),
    ]);
  });

  it("row 30: do not tell what is there from what is not", async () => {
    const answerTo = async (path: string, token: string): Promise<object> => {
      const { instance: _, ...problem } = await problemIn(await ask("GET", path, { token }));
      return { ...problem, detail: problem.detail.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "ID") };
    };
    const mine = foreign.tokens.admin;
    expect(await answerTo(`${foreign.at}/jobs/${running.job}`, mine)).toEqual(
      await answerTo(`${foreign.at}/jobs/${ABSENT_JOB}`, mine),
    );
    expect(await answerTo(`${tenant.at}/jobs/${running.job}`, mine)).toEqual(
      await answerTo("/v1/nobody-here/jobs/" + ABSENT_JOB, mine),
    );
  });
});

describe("policies", () => {
  refuses("extra: that nobody can meet, that are over, or that come back", () => {
    const signers = [{ key: KEY, operator: "x" }];
    const policy = (changes: object): ReturnType<typeof put> =>
      put(
        `${tenant.at}/trust`,
        by("admin", { body: { version: 2, signers, rules: [], ...changes }, headers: { "if-match": '"v1"' } }),
      );
    const rule = (require: object): object => ({ rules: [{ ref: "*", require, onDivergence: "block" }] });
    return [
      bad("a threshold of none", policy(rule({ k: 0 })), "invalid-body", { pointer: "/rules/0/require/k" }),
      bad("more than there are", policy(rule({ k: 2 })), "invalid-body", { pointer: "/rules/0/require" }),
      bad("more operators than there are", policy(rule({ k: 1, distinctOperators: 2 })), "invalid-body", {
        pointer: "/rules/0/require",
      }),
      bad("over", policy({ expires: "2020-01-01T00:00:00Z" }), "invalid-body", { pointer: "/expires" }),
      bad("an older version", policy({ version: 1 }), "revision-conflict", { pointer: "/version" }),
      bad("a version too far", policy({ version: 3 }), "revision-conflict", { pointer: "/version" }),
      bad("a key twice", policy({ signers: [...signers, ...signers] }), "invalid-body", { pointer: "/signers/1/key" }),
    ];
  });
});
