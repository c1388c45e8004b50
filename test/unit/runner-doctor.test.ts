import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getCapabilities } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runnerConfigSchema } from "../../runner/src/config.ts";
import { examineBriefly } from "../../runner/src/doctor/examine.ts";
import {
  type Check,
  judgeClock,
  judgeDisk,
  judgeIsolation,
  judgeLimits,
  judgeKeyFile,
  judgeNix,
  judgeProtocol,
  judgeSecrets,
} from "../../runner/src/doctor/judge.ts";
import type { IsolationReport, RunnerIsolationLevel } from "../../runner/src/isolation.ts";
import { createKey } from "../../runner/src/key.ts";

const GIB = 1024 ** 3;
const standings = (checks: readonly Check[]): string[] => checks.map(({ name, standing }) => `${name}: ${standing}`);

describe("the doctor", () => {
  it.each([
    [0, "good"],
    [-30_000, "good"],
    [31_000, "care"],
    [-300_000, "care"],
    [86_400_000, "bad"],
  ])("judges a clock that is %i ms ahead", (skewMs, standing) => {
    expect(judgeClock(skewMs)).toMatchObject({ standing });
  });

  it("tells which side has to be updated", () => {
    const own = { newest: 2, oldest: 1 };
    expect(judgeProtocol({ protocol: 2, protocolFloor: 1 }, own).standing).toBe("good");
    expect(judgeProtocol({ protocol: 4, protocolFloor: 3 }, own)).toMatchObject({
      standing: "bad",
      fix: "Update plumule on this machine.",
    });
    expect(judgeProtocol({ protocol: 1, protocolFloor: 1 }, own)).toMatchObject({
      standing: "bad",
      fix: expect.stringContaining("broker first"),
    });
  });

  it("warns before the disk is at its floor", () => {
    expect([1, 2.5, 5].map((free) => judgeDisk(free * GIB, 2 * GIB, "/s").standing)).toEqual(["bad", "care", "good"]);
  });

  it("names the mode of a key that others can read, and mends it", () => {
    const refusal = { reason: "permissions", detail: "/k has mode 644" };
    expect(judgeKeyFile("key", "/k", refusal)).toMatchObject({
      standing: "bad",
      fix: expect.stringContaining("chmod 600 /k"),
    });
    expect(judgeKeyFile("key", "/k", { reason: "missing", detail: "no key" }).standing).toBe("good");
    expect(judgeKeyFile("key", "/k", { reason: "format", detail: "no key" }).standing).toBe("bad");
  });

  it("prefers memory for secrets", () => {
    expect(judgeSecrets("/dev/shm/x", false).standing).toBe("good");
    expect(judgeSecrets("/s/secrets", true).standing).toBe("care");
    expect(judgeSecrets(null, false)).toMatchObject({ standing: "care", fix: expect.stringContaining("/dev/shm") });
  });

  it("says why each better level of isolation cannot be had, with Ubuntu's AppArmor by name", () => {
    const report = (available: RunnerIsolationLevel[]): IsolationReport => ({
      level: available[0] ?? "process-group",
      available,
      unavailable: new Map([
        ["container", "no image is named (--container-image)"],
        ["bwrap", "setting up uid map: Permission denied"],
        ["userns", "no unshare"],
        ["cgroup", "no cgroup v2"],
      ]),
    });
    const checks = judgeIsolation(report(["process-group"]), undefined);
    expect(standings(checks)).toEqual([
      "isolation container: good",
      "isolation bwrap: care",
      "isolation userns: care",
      "isolation cgroup: care",
      "isolation process-group: good",
    ]);
    expect(checks[1]).toMatchObject({
      found: "setting up uid map: Permission denied",
      fix: expect.stringMatching(/Ubuntu 23\.10.*AppArmor.*apparmor_restrict_unprivileged_userns=0/),
    });
    // Nobody has to mend what is weaker than what works.
    expect(judgeIsolation(report(["bwrap", "process-group"]), undefined).map(({ standing }) => standing)).toEqual(
      Array(5).fill("good"),
    );
    expect(judgeIsolation(report(["process-group"]), "cgroup")[3]).toMatchObject({ standing: "bad" });
  });

  it("says how well a job can be limited, and what to do where only a cgroup could", () => {
    const by = { by: "cgroup-v2", folder: "/x" } as const;
    expect(standings(judgeLimits({ memory: by, tasks: by }))).toEqual(["memory limit: good", "task limit: good"]);
    const checks = judgeLimits({ memory: { by: "rlimit" }, tasks: { by: "none", why: "root is exempt" } });
    expect(checks).toMatchObject([
      { standing: "care", found: "memory of a job: limited by prlimit, each process by itself" },
      {
        standing: "care",
        found: "tasks of a job: not limited (root is exempt)",
        fix: expect.stringContaining("Delegate=yes"),
      },
    ]);
  });

  it("looks at Nix, its daemon, whom it trusts, and its sandbox", () => {
    const nix = {
      version: "2.24.1",
      flakes: true,
      sandbox: true,
      daemon: "answers",
      trusted: false,
      user: "plumule",
    } as const;
    expect(judgeNix(nix).every(({ standing }) => standing === "good")).toBe(true);
    expect(standings(judgeNix({ ...nix, daemon: "silent", trusted: true, sandbox: false, flakes: false }))).toEqual([
      "nix: care",
      "nix daemon: bad",
      "nix trust: care",
      "nix sandbox: care",
    ]);
    expect(judgeNix({ ...nix, daemon: null, trusted: true, user: "root" }).map(({ standing }) => standing)).toEqual(
      Array(4).fill("good"),
    );
    expect(judgeNix({ why: "nix cannot be started" })).toMatchObject([
      { standing: "care", found: "nix cannot be started" },
    ]);
  });
});

describe("the doctor at a machine", () => {
  let state: string;
  beforeEach(async () => {
    state = await mkdtemp(join(tmpdir(), "plumule-doctor-"));
  });
  afterEach(() => rm(state, { recursive: true, force: true }));
  const config = (): ReturnType<typeof runnerConfigSchema.parse> =>
    runnerConfigSchema.parse({ url: "https://broker.example", namespace: "me", state: join(state, "runner") });
  const answer = (body: unknown, date: Date) => async (): Promise<Response> =>
    new Response(JSON.stringify(body), { headers: { date: date.toUTCString() } });

  it("reads protocol and clock from one answer of the broker, and makes nothing", async () => {
    const hello = { name: "plumule", protocol: 2, protocolFloor: 1, limits: {}, doors: [], brokerKey: "x" };
    expect(getCapabilities.answers[200].safeParse(hello).error?.issues).toBeUndefined();
    const checks = await examineBriefly(config(), answer(hello, new Date(Date.now() - 86_400_000)));
    expect(standings(checks)).toEqual(
      expect.arrayContaining(["broker: good", "protocol: good", "clock: bad", "key: good"]),
    );
    expect(await readdir(state)).toEqual([]);
  });

  it("takes a proxy's page for no broker", async () => {
    const page = async (): Promise<Response> =>
      new Response("<html>Sign in</html>", { headers: { "content-type": "text/html" } });
    expect((await examineBriefly(config(), page))[0]).toMatchObject({ name: "broker", standing: "bad" });
  });

  it("finds a broker that does not answer, and a key that others can read", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    const own = { ...config(), url: `http://127.0.0.1:${port}` };
    const path = join(own.state, "key.pem");
    await createKey(path);
    await chmod(path, 0o644);
    expect(await examineBriefly(own, fetch)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ name: "broker", standing: "bad", found: expect.stringContaining("ECONNREFUSED") }),
        expect.objectContaining({ name: "key", standing: "bad" }),
      ]),
    );
  });
});
