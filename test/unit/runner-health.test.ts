import { readFileSync } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Broker } from "../../runner/src/broker.ts";
import { localAddress, type LocalAddress } from "../../runner/src/local-address.ts";
import { countCalls, newCounters } from "../../runner/src/health/counters.ts";
import { type HealthServer, serveHealth } from "../../runner/src/health/server.ts";
import {
  CONTACT_LIMIT_MS,
  faultsOfLife,
  faultsOfReadiness,
  metricsText,
  type RunnerStatus,
} from "../../runner/src/health/status.ts";
import { heardOf, runnerStatus } from "../support/runner-status.ts";

describe("a runner is ready", () => {
  it("while the broker answered within two intervals and the disk is above its floor", () => {
    expect(faultsOfReadiness(runnerStatus())).toEqual([]);
    expect(faultsOfReadiness(runnerStatus(heardOf(CONTACT_LIMIT_MS)))).toEqual([]);
  });

  it.each([
    [heardOf(CONTACT_LIMIT_MS + 1_000), "the broker has not answered for 51 s"],
    [heardOf(null), "the broker has not answered yet"],
    [{ disk: { freeBytes: 49, floorBytes: 50 } }, "49 bytes are free on the disk, less than the floor of 50"],
    [{ phase: "draining" }, "it takes no new work"],
    [{ drain: { note: null, end: "wait" } }, "it takes no new work"],
    [{ loopAgoMs: 200_000 }, "the loop has not turned for 200 s"],
  ] satisfies [Partial<RunnerStatus>, string][])("and not otherwise: %j", (change, fault) => {
    expect(faultsOfReadiness(runnerStatus(change))).toEqual([fault]);
  });

  it("and alive also when it is not ready, but for a loop that hangs", () => {
    expect(faultsOfLife(runnerStatus(heardOf(null)))).toEqual([]);
    expect(faultsOfLife(runnerStatus({ loopAgoMs: 200_000 }))).toHaveLength(1);
    expect(faultsOfLife(runnerStatus({ loopAgoMs: 200_000, phase: "draining" }))).toEqual([]);
  });
});

it("counts what the broker answered, and not what the runner broke off", async () => {
  const counters = newCounters();
  const problem = { type: "about:blank", title: "", status: 0, code: "unavailable" as const, detail: "", next: "" };
  const away = { ok: false as const, retry: true, problem, logSize: null };
  const broker = countCalls(
    {
      poll: async () => away,
      appendLog: async () => ({ ok: true, value: { bytes: 3 } }),
      report: async () => ({ ...away, retry: false }),
    } as unknown as Broker,
    counters,
  );
  const lease = {} as Parameters<Broker["report"]>[0];
  await broker.poll({} as Parameters<Broker["poll"]>[0], AbortSignal.abort());
  expect(counters).toMatchObject({ calls: { poll: { ok: 0, failed: 0 } }, contactAt: null });
  await broker.poll({} as Parameters<Broker["poll"]>[0], new AbortController().signal);
  expect(counters).toMatchObject({ calls: { poll: { failed: 1 } }, contactAt: null });
  await broker.appendLog(lease, 0, new Uint8Array(3));
  await broker.report(lease, {} as Parameters<Broker["report"]>[1]);
  expect(counters).toMatchObject({
    calls: { log: { ok: 1 }, report: { refused: 1 } },
    logBytes: 3,
    contactAt: expect.any(Number),
  });
});

it("names its metrics as documented, in Prometheus' form", () => {
  const lines = metricsText(runnerStatus()).trimEnd().split("\n");
  for (const line of lines)
    expect(line).toMatch(
      /^(# (HELP|TYPE) plumule_runner_[a-z_]+ .+|plumule_runner_[a-z_]+(\{[a-z]+="[a-z]+"(,[a-z]+="[a-z]+")*\})? -?[\d.]+)$/,
    );
  const names = new Set(lines.flatMap((line) => /^# TYPE (\S+)/.exec(line)?.[1] ?? []));
  const documented = readFileSync(join(import.meta.dirname, "../../docs/runner.md"), "utf8").match(
    /plumule_runner_[a-z_]+/g,
  );
  expect(new Set(documented)).toEqual(names);
});

it("is asked on this machine alone", () => {
  expect(localAddress("127.0.0.1:9090")).toEqual({ host: "127.0.0.1", port: 9090 });
  expect(localAddress("[::1]:0")).toEqual({ host: "::1", port: 0 });
  expect(localAddress("/run/plumule/health.sock")).toEqual({ path: "/run/plumule/health.sock" });
  for (const text of ["0.0.0.0:80", "10.0.0.1:80", "9090", "127.0.0.1:99999", "example.org:80", `/${"x".repeat(120)}`])
    expect(localAddress(text)).toBeNull();
});

describe("the door of health", () => {
  let folder: string;
  let server: HealthServer;
  let now: RunnerStatus;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "plumule-health-"));
    now = runnerStatus();
  });
  afterEach(async () => {
    server.close();
    await rm(folder, { recursive: true, force: true });
  });
  const open = async (address: LocalAddress): Promise<void> => {
    const opened = await serveHealth(address, async () => now);
    if ("refused" in opened) throw new Error(opened.refused);
    server = opened;
  };
  const ask = (path: string, options: object = {}): Promise<[number | undefined, string]> =>
    new Promise((resolve, reject) => {
      const asked = request({ host: "127.0.0.1", port: server.port, path, ...options }, (response) => {
        text(response).then((body) => resolve([response.statusCode, body]), reject);
      });
      asked.on("error", reject).end();
    });

  it("answers with a code for machines and a reason for people", async () => {
    await open({ host: "127.0.0.1", port: 0 });
    expect(await ask("/livez")).toEqual([200, "ok\n"]);
    expect(await ask("/readyz")).toEqual([200, "ok\n"]);
    now = runnerStatus({ phase: "draining" });
    expect(await ask("/readyz")).toEqual([503, "it takes no new work\n"]);
    expect(await ask("/metrics")).toEqual([200, expect.stringContaining("plumule_runner_ready 0")]);
    expect(JSON.parse((await ask("/status.json"))[1])).toMatchObject({ phase: "draining", name: "king" });
    expect((await ask("/"))[0]).toBe(404);
    expect((await ask("/livez", { method: "POST" }))[0]).toBe(405);
  });

  it("refuses to be asked by another name, as a page in a browser would", async () => {
    await open({ host: "127.0.0.1", port: 0 });
    expect((await ask("/status.json", { headers: { host: "rebound.example" } }))[0]).toBe(421);
  });

  it("can be a socket, which is its user's alone, also after one was left behind", async () => {
    const path = join(folder, "health.sock");
    await open({ path });
    server.close();
    await open({ path });
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await ask("/livez", { host: undefined, port: undefined, socketPath: path })).toEqual([200, "ok\n"]);
  });

  it("says when its place is taken", async () => {
    await open({ host: "127.0.0.1", port: 0 });
    expect(await serveHealth({ host: "127.0.0.1", port: server.port ?? 0 }, async () => now)).toMatchObject({
      refused: expect.stringContaining("EADDRINUSE"),
    });
  });
});
