import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LIMITS } from "@plumule/protocol";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { parseEffect } from "../../runner/src/effects/derivation.ts";
import { effectEnvironment, scriptEnvironment } from "../../runner/src/effects/environment.ts";
import { createPhaseReader } from "../../runner/src/effects/phases.ts";
import { sandboxFault } from "../../runner/src/effects/sandbox.ts";
import { readSecretsMap, secretsForEffect } from "../../runner/src/effects/secrets.ts";
import { serveState, stateFolder, type StateServer } from "../../runner/src/effects/state.ts";
import { jobArguments, nameOf, nixString } from "../../runner/src/nix/arguments.ts";
import { createRedactor } from "../../runner/src/redact.ts";
import { isCommitsOwn } from "../../runner/src/secrets/open.ts";
import { writeTaken } from "../../runner/src/supervisor/files.ts";
import { whenTaken } from "../../runner/src/supervisor/stop-switch.ts";

const logs = join(import.meta.dirname, "../fixtures/nix-logs");
const SETTING = {
  store: "/nix/store",
  apiBaseUrl: "http://127.0.0.1:9",
  projectId: "web",
  projectPath: "plumule/ns/web",
  facts: { PLUMULE_JOB: "1" },
};

describe("an effect's derivation", () => {
  it("is read as Nix 2.8 shows it", () => {
    const drv = "/lab/store/hcvz59i8736a329nms2ji3fzdnqhnqbn-effect-deploy.drv";
    const shown = readFileSync(join(logs, "nix-2.8/effect-derivation-show.json"), "utf8");
    const effect = parseEffect(drv, shown);
    expect(effect).toMatchObject({ drv, builder: "/bin/sh", inputs: [], env: { isEffect: "1", rev: "deadbeef" } });
    expect(effect.args).toHaveLength(2);
  });

  it("is read as later versions show it, with names instead of paths", () => {
    const body = {
      builder: "/bin/sh",
      args: ["-c", "true"],
      env: {},
      inputs: { drvs: { "b.drv": {}, "a.drv": {} }, srcs: [] },
    };
    const shown = JSON.stringify({ derivations: { "x.drv": body }, version: 4 });
    expect(parseEffect("/nix/store/x.drv", shown).inputs).toEqual(["/nix/store/a.drv", "/nix/store/b.drv"]);
  });
});

describe("an effect's environment", () => {
  it("has defaults before the derivation's own, and fixed values after it", () => {
    const { env } = effectEnvironment(SETTING, {
      PATH: "/own",
      HOME: "/own",
      TMPDIR: "/own",
      out: "/nix/store/out",
      NIX_LOG_FD: "7",
    });
    expect(env).toMatchObject({
      PATH: "/own",
      HOME: "/own",
      TMPDIR: "/build",
      NIX_BUILD_TOP: "/build",
      NIX_LOG_FD: "2",
      out: "/nix/store/out",
      IN_HERCULES_CI_EFFECT: "true",
      HERCULES_CI_SECRETS_JSON: "/run/secrets.json",
      HERCULES_CI_API_BASE_URL: "http://127.0.0.1:9",
      PLUMULE_JOB: "1",
    });
    expect(effectEnvironment(SETTING, {}).env).toMatchObject({
      PATH: "/path-not-set",
      HOME: "/homeless-shelter",
      NIX_REMOTE: "daemon",
    });
  });

  it("has values as files where the derivation says so", () => {
    const { env, files } = effectEnvironment(SETTING, { passAsFile: "big missing", big: "text" });
    expect(env).toMatchObject({ bigPath: "/build/.attr-0" });
    expect(env).not.toHaveProperty("big");
    expect(files).toEqual({ "/build/.attr-0": "text" });
  });

  it("gives a script the programs that were built, before those of the machine", () => {
    const env = scriptEnvironment({ PATH: "/usr/bin", PLUMULE_CONFIGURATION: "/outside" }, SETTING, {
      outputs: ["/nix/store/a", "/nix/store/b"],
      drv: null,
    });
    expect(env).toMatchObject({
      PATH: "/nix/store/a/bin:/nix/store/b/bin:/usr/bin",
      PLUMULE_OUT: "/nix/store/a",
      PLUMULE_CONFIGURATION: "/run/configuration.json",
    });
    expect(env).not.toHaveProperty("PLUMULE_EFFECT");
  });
});

describe("an effect's secrets", () => {
  const secrets = { ssh: Buffer.from('{"key":"k"}'), plain: Buffer.from("word\n") };
  const token = { "hercules-ci": { data: { token: "t" } } };
  const mapOf = (text: string): ReturnType<typeof readSecretsMap> => readSecretsMap({ secretsMap: text });

  it("are all of the job's without a map, and none with an empty one", () => {
    expect(readSecretsMap({})).toEqual({ map: null });
    expect(secretsForEffect(secrets, null, "t")).toEqual({
      ssh: { data: { key: "k" } },
      plain: { data: { value: "word\n" } },
      ...token,
    });
    expect(mapOf("{}")).toEqual({ map: {} });
    expect(secretsForEffect(secrets, {}, "t")).toEqual(token);
  });

  it("are those that the map names, under its names, also by the older one", () => {
    expect(readSecretsMap({ secretsToUse: '{"a":"ssh"}' })).toEqual({ map: { a: "ssh" } });
    expect(secretsForEffect(secrets, { a: "ssh" }, "t")).toEqual({ a: { data: { key: "k" } }, ...token });
  });

  it("have the secret of its own name for a token of a forge", () => {
    const map = { plain: { type: "GitToken" as const }, ssh: { type: "GitToken" as const } };
    expect(secretsForEffect(secrets, map, "t")).toEqual({
      plain: { data: { token: "word" } },
      ssh: { data: { key: "k" } },
      ...token,
    });
  });

  it("are none at all when one is missing", () => {
    expect(secretsForEffect(secrets, { a: "ssh", b: "other" }, "t")).toBeNull();
    expect(secretsForEffect(secrets, { git: { type: "GitToken" } }, "t")).toBeNull();
  });

  it.each(["[]", '{"a":1}', "no json", '{"a":{"type":"Other"}}'])("are refused for the map %s", (text) => {
    expect(mapOf(text)).toHaveProperty("refused");
  });

  it("are masked also where an effect takes one text out of a secret that is JSON", () => {
    const redactor = createRedactor({ cloud: Buffer.from('{"keys":[{"token":"s3cr3t-value"}],"size":3}') });
    expect(redactor.text("token s3cr3t-value of size 3")).toBe("token [redacted] of size 3");
  });

  it("that a commit guards are not for a script or a plan that somebody brings along", () => {
    const source = { repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", commit: "a".repeat(40) };
    const effect = { kind: "effect" as const, installable: ".#deploy" };
    expect(isCommitsOwn({ task: effect, source })).toBe(true);
    for (const extra of [{ script: "cat $PLUMULE_SECRETS/*" }, { plan: "cat $PLUMULE_SECRETS/*" }])
      expect(isCommitsOwn({ task: { ...effect, ...extra }, source })).toBe(false);
    expect(isCommitsOwn({ task: { ...effect, installable: "github:o/r#deploy" }, source })).toBe(false);
  });
});

describe("the log of an effect", () => {
  const NAMED = '@nix { "action": "setPhase", "phase": "effectPhase" }\n';
  const TEXT = `a\n${NAMED}@nixos\n@nix {"action":"msg"}\nno @nix { "action": "setPhase", "phase": "x" }\n@nix { broken\n@ni`;
  const SEEN = TEXT.replace(NAMED, "[plumule] effectPhase\n");

  it.each([1, 2, 7, 10_000])("has its phases as lines for people, in chunks of %i bytes too", (size) => {
    let seen = "";
    const reader = createPhaseReader((bytes) => (seen += Buffer.from(bytes).toString()));
    for (let at = 0; at < TEXT.length; at += size) reader.push(Buffer.from(TEXT.slice(at, at + size)));
    reader.end();
    expect(seen).toBe(SEEN);
  });

  it("waits for no line that is none of these", () => {
    const seen: string[] = [];
    const reader = createPhaseReader((bytes) => seen.push(Buffer.from(bytes).toString()));
    reader.push(Buffer.from("password: "));
    expect(seen).toEqual(["password: "]);
  });
});

describe("what waits for the broker", () => {
  const control = mkdtempSync(join(tmpdir(), "plumule-effect-control-"));
  afterAll(() => rmSync(control, { recursive: true, force: true }));

  it("goes on when the broker has taken it, also when an earlier process of the runner was told", async () => {
    const never = new AbortController().signal;
    let isOver = false;
    const waiting = whenTaken(control, 3, never).finally(() => (isOver = true));
    writeTaken(control, 2);
    expect(await whenTaken(control, 2, never)).toBe(true);
    expect(isOver).toBe(false);
    writeTaken(control, 5);
    expect(await waiting).toBe(true);
  });

  it("does not go on once it has to stop, whatever the broker has taken", async () => {
    const stop = new AbortController();
    const waiting = whenTaken(control, 9, stop.signal);
    stop.abort();
    expect(await waiting).toBe(false);
    writeTaken(control, 9);
    expect(await whenTaken(control, 9, stop.signal)).toBe(false);
  });
});

describe("the sandbox", () => {
  it.each(["cgroup", "process-group"] as const)("is not to be had at the level %s", (level) => {
    expect(sandboxFault(level)).toContain(level);
  });
});

describe("the arguments of a function", () => {
  it("are strings that no text of a job gets out of", () => {
    const hostile = 'a" + builtins.readFile ./x + "${b}\\';
    expect(nixString(hostile)).toBe('"a\\" + builtins.readFile ./x + \\"\\${b}\\\\"');
    const source = { repository: "https://example.org/owner/shop.git", commit: "c".repeat(40), ref: "refs/tags/v1" };
    const text = jobArguments({ configuration: null, type: hostile, source });
    expect(text).toContain(`type = ${nixString(hostile)};`);
    expect(text).toContain('tag = "v1"; rev');
    expect(text).not.toContain("configuration");
  });

  it.each([
    ["https://example.org/owner/shop.git", { owner: "owner", name: "shop" }],
    ["rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5", { owner: null, name: "z3gqcJUoA1n9HaHKufZs5FCSGazv5" }],
    ["file:///shop", { owner: null, name: "shop" }],
  ])("name the repository %s", (url, name) => {
    expect(nameOf(url)).toEqual(name);
  });
});

describe("state files", () => {
  const root = mkdtempSync(join(tmpdir(), "plumule-effect-state-"));
  let server: StateServer | null = null;
  let announcedCount = 0;
  const folder = stateFolder(root, { namespace: "ns", deployment: "web" });
  afterEach(() => server?.close());
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  async function serve(isTaken: boolean): Promise<(name: string, init?: RequestInit) => Promise<Response>> {
    announcedCount = 0;
    const announce = async (): Promise<boolean> => {
      announcedCount += 1;
      return isTaken;
    };
    const { url } = (server = await serveState({ folder, token: "t", announce }));
    return (name, init = {}) =>
      fetch(`${url}/api/v1/current-task/state/${name}/data`, { headers: { authorization: "Bearer t" }, ...init });
  }

  it("are there for the next run, byte for byte, and announced once before the first", async () => {
    const ask = await serve(true);
    expect((await ask("tf")).status).toBe(404);
    const body = new Uint8Array([0, 255, 10]);
    expect((await ask("tf", { method: "PUT", body })).status).toBe(204);
    expect((await ask("tf", { method: "PUT", body })).status).toBe(204);
    expect(announcedCount).toBe(1);
    server?.close();
    const later = await serve(true);
    expect(new Uint8Array(await (await later("tf")).arrayBuffer())).toEqual(body);
    expect(announcedCount).toBe(0);
  });

  it("are not kept while the broker does not know of them", async () => {
    const ask = await serve(false);
    expect((await ask("lost", { method: "PUT", body: "x" })).status).toBe(503);
    expect(existsSync(join(folder, "lost"))).toBe(false);
  });

  it("are for the bearer of the token alone, and have names that are no paths", async () => {
    const ask = await serve(true);
    expect((await ask("tf", { headers: { authorization: "Bearer other" } })).status).toBe(401);
    expect((await ask("tf", { headers: {} })).status).toBe(401);
    for (const name of ["..%2fweb", ".hidden", "a%2fb"]) expect((await ask(name)).status).toBe(404);
    expect((await ask("tf", { method: "DELETE" })).status).toBe(405);
  });

  it("have a limit in size and number", async () => {
    const ask = await serve(true);
    const large = new Uint8Array(LIMITS.effectStateBytes + 1);
    expect((await ask("large", { method: "PUT", body: large })).status).toBe(413);
    for (let count = 1; count < LIMITS.effectStates; count += 1)
      expect((await ask(`file-${count}`, { method: "PUT", body: "x" })).status).toBe(204);
    expect((await ask("one-more", { method: "PUT", body: "x" })).status).toBe(507);
    expect((await ask("tf", { method: "PUT", body: "y" })).status).toBe(204);
  });
});
