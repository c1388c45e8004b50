import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isFailure } from "../../cli/src/failure.ts";
import { defaultKeyFile, runnerSettings, type RunnerSettings } from "../../cli/src/runner-settings.ts";

let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), "plumule-settings-"));
});
afterEach(() => rm(cwd, { recursive: true, force: true }));

const found = (
  flags: RunnerSettings = {},
  env: Record<string, string> = {},
  file?: string,
): ReturnType<typeof runnerSettings> =>
  runnerSettings(flags, {
    file,
    cwd,
    env: { XDG_CONFIG_HOME: join(cwd, "config"), XDG_STATE_HOME: join(cwd, "state"), ...env },
  });
const settings = async (...given: Parameters<typeof found>): Promise<unknown> => {
  const answer = await found(...given);
  return isFailure(answer) ? answer : answer.settings;
};

describe("settings of a runner", () => {
  it("need none but have a place for what it keeps", async () => {
    expect(await settings()).toEqual({ state: join(cwd, "state/plumule/runner") });
    expect(defaultKeyFile({ XDG_STATE_HOME: "/s" })).toBe("/s/plumule/runner/key.pem");
  });

  it("come from the file, above it the environment, above it the flags", async () => {
    await writeFile(
      join(cwd, "r.json"),
      JSON.stringify({ name: "file", capacity: 1, systems: ["a"], isolation: "bwrap" }),
    );
    const env = { PLUMULE_NAME: "env", PLUMULE_CAPACITY: "2" };
    expect(await settings({ capacity: 3, key: undefined }, env, "r.json")).toMatchObject({
      name: "env",
      capacity: 3,
      systems: ["a"],
      isolation: "bwrap",
    });
  });

  it("are read from the person's own file when none is named", async () => {
    await mkdir(join(cwd, "config/plumule"), { recursive: true });
    await writeFile(join(cwd, "config/plumule/runner.json"), '{"name":"king"}');
    expect(await settings()).toMatchObject({ name: "king" });
  });

  it("have a variable each: lists, numbers, switches and paths", async () => {
    const env = {
      PLUMULE_SYSTEMS: "x86_64-linux, aarch64-linux",
      PLUMULE_ALLOW_LOCAL: "1",
      PLUMULE_ONCE: "false",
      PLUMULE_NIX_STORE: "nix",
      PLUMULE_AGENT_KEY: "did:key:z6Mk",
      PLUMULE_STATE: "kept",
      PLUMULE_LABELS: "",
    };
    expect(await settings({}, env)).toEqual({
      systems: ["x86_64-linux", "aarch64-linux"],
      allowLocal: true,
      once: false,
      nixStore: join(cwd, "nix"),
      agentKey: "did:key:z6Mk",
      state: join(cwd, "kept"),
    });
  });

  it("are refused when the named file is not there or is no object", async () => {
    expect(await settings({}, {}, "gone.json")).toMatchObject({
      exit: 2,
      what: expect.stringContaining("gone.json cannot be read"),
    });
    await writeFile(join(cwd, "list.json"), "[]");
    expect(await settings({}, {}, "list.json")).toMatchObject({
      exit: 2,
      what: expect.stringContaining("not a JSON object"),
    });
  });

  it("say where each came from", async () => {
    await writeFile(join(cwd, "r.json"), JSON.stringify({ name: "file", capacity: 1, labels: ["x"] }));
    expect(await found({ capacity: 3 }, { PLUMULE_NAME: "env" }, "r.json")).toMatchObject({
      origins: { state: "default", name: "PLUMULE_NAME", capacity: "flag", labels: join(cwd, "r.json") },
    });
  });

  it("take a registration token from systemd's credentials, which nobody else can read", async () => {
    await mkdir(join(cwd, "credentials"));
    await writeFile(join(cwd, "credentials/registration"), "plr_1_2\n");
    const env = { CREDENTIALS_DIRECTORY: join(cwd, "credentials") };
    expect(await found({}, env)).toMatchObject({
      settings: { registration: "plr_1_2" },
      origins: { registration: "credential" },
    });
    expect(await settings({}, { ...env, PLUMULE_REGISTRATION: "plr_3_4" })).toMatchObject({ registration: "plr_3_4" });
    expect(await settings({}, env)).not.toHaveProperty("nixCacheKey");
    const nixCacheKey = join(cwd, "credentials/nix-cache-key");
    await writeFile(nixCacheKey, "");
    expect(await found({}, env)).toMatchObject({ settings: { nixCacheKey }, origins: { nixCacheKey: "credential" } });
  });

  it("are refused with a name that no runner knows, and the one that was meant", async () => {
    await writeFile(
      join(cwd, "r.json"),
      JSON.stringify({ lables: [], "disk-floor-bytes": 1, zzzzzzzz: 1, name: "king" }),
    );
    expect(await found({}, {}, "r.json")).toMatchObject({
      exit: 2,
      errors: [
        { pointer: "/lables", detail: "is not a setting; did you mean labels?" },
        { pointer: "/disk-floor-bytes", detail: "is not a setting; did you mean diskFloorBytes?" },
        { pointer: "/zzzzzzzz", detail: "is not a setting" },
      ],
    });
  });
});
