import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RUNNER_EXIT, type RunnerOptions, startRunner } from "@plumule/runner";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockState } from "../../runner/src/state-lock.ts";

let state: string;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "plumule-exit-"));
});
afterEach(() => rm(state, { recursive: true, force: true }));

const start = (options: Partial<RunnerOptions>, fetch: () => Promise<Response>): ReturnType<typeof startRunner> =>
  startRunner({ url: "https://broker.example", namespace: "me", state, ...options }, { fetch, say: () => {} });
const away = async (): Promise<Response> => {
  throw new TypeError("fetch failed");
};
const problem = (status: number, code: string) => async (): Promise<Response> =>
  new Response(JSON.stringify({ type: "about:blank", title: "No", status, code, detail: "No.", next: "Do." }), {
    status,
  });

describe("a runner that does not start says by its code whether to start it again", () => {
  it.each([
    ["no, before its settings are right", { capacity: 0 }, away, RUNNER_EXIT.misconfigured],
    ["yes, when the broker is away", { registration: "plr_1_2" }, away, RUNNER_EXIT.tryAgain],
    [
      "yes, when a proxy answers instead",
      { registration: "plr_1_2" },
      async () => new Response("<html>", { status: 200 }),
      RUNNER_EXIT.tryAgain,
    ],
    [
      "no, when its token is refused",
      { registration: "plr_1_2" },
      problem(401, "unauthenticated"),
      RUNNER_EXIT.refused,
    ],
  ] as const)("%s", async (_, options, fetch, exit) => {
    expect(await start(options, fetch)).toMatchObject({ refused: expect.any(String), exit });
  });

  it("no, when another process has its folder", async () => {
    const lock = await lockState(state);
    expect(await start({}, away)).toMatchObject({ exit: RUNNER_EXIT.conflict });
    if ("release" in lock) await lock.release();
  });

  it("no, when its key is none", async () => {
    await writeFile(join(state, "key.pem"), "nothing", { mode: 0o600 });
    expect(await start({}, away)).toMatchObject({ exit: RUNNER_EXIT.misconfigured });
  });
});

it("are documented, each with what the command ends with", () => {
  const text = readFileSync(join(import.meta.dirname, "../../docs/runner.md"), "utf8");
  for (const code of Object.values(RUNNER_EXIT)) expect(text).toMatch(new RegExp(`^\\| ${code} \\| \\d+ \\|`, "m"));
});
