import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as protocol from "@plumule/protocol";
import * as runner from "@plumule/runner";
import { expect, it, onTestFinished } from "vitest";
import { startCommand } from "../support/command-line.ts";
import { openPeer } from "../support/peer.ts";
import { alarmsOf, databasesOf, dumpOf, withDatabase } from "../support/storage.ts";
import { allOf, NOW, startWorkers } from "../support/workers.ts";

const shell = (script: string): { task: { kind: "shell"; script: string } } => ({ task: { kind: "shell", script } });

it("asks everybody to wait when a deploy was rolled back below its storage, loses nothing, and goes on when the newer code is back", async () => {
  const folder = await mkdtemp(join(tmpdir(), "plumule-rollback-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const stateDir = join(folder, "broker");
  const newer = await startWorkers({ broker: allOf(NOW) }, { stateDir });
  const url = newer.urls["broker"] ?? "";
  const port = Number(new URL(url).port);
  const peer = await openPeer(url, protocol);
  const worker = await peer.startRunner(runner, folder);
  const gate = join(folder, "gate");
  const running = await peer.submit("lane", shell(`echo before; until [ -e ${gate} ]; do sleep 0.1; done; echo after`));
  const waiting = await peer.submit("lane", shell("echo second"));
  await peer.until(running.id, ({ job }) => job.state === "running");
  // Its deadline comes while no code can see to it.
  const overdue = await peer.submit("other", {
    ...shell("true"),
    requires: { labels: ["nowhere"] },
    timeouts: { queueMs: 1_500 },
  });
  await newer.stop();

  // The storage as a later version leaves it: with a step that this code does not know.
  const stored = databasesOf(stateDir, "broker");
  expect(new Set(stored.map(({ kind }) => kind))).toEqual(new Set(["deployment", "pool", "namespace"]));
  const inAll = (sql: string): void =>
    stored.forEach(({ file }) => withDatabase(file, (database) => database.exec(sql)));
  const dumps = (): string[] => stored.map(({ file }) => dumpOf(file));
  inAll("INSERT INTO schema_migrations (position, id, sql) VALUES (999, 'of a later version', '')");
  const kept = dumps();

  const older = await startWorkers({ broker: allOf(NOW) }, { stateDir, port });
  const asked = await fetch(`${url}/v1/${peer.ns}/deployments/lane`, {
    headers: { authorization: `Bearer ${peer.token}` },
  });
  expect([asked.status, asked.headers.get("retry-after")]).toEqual([503, "60"]);
  expect(await asked.json()).toMatchObject({
    code: "unavailable",
    detail: expect.stringContaining("nothing is lost") as string,
  });
  const command = startCommand(["ls"], {
    PLUMULE_URL: url,
    PLUMULE_NAMESPACE: peer.ns,
    PLUMULE_TOKEN: peer.token,
    HOME: folder,
  });
  expect([await command.done, command.err()]).toEqual([75, expect.stringContaining("deploy the newer version again")]);
  await writeFile(gate, "");
  // The alarm came, could do nothing, and is set for later instead of being given up.
  await expect
    .poll(() => Math.min(...alarmsOf(stateDir, "broker", "Deployment")) - Date.now(), {
      timeout: 20_000,
      interval: 200,
    })
    .toBeGreaterThan(20_000);
  await older.stop();
  expect(dumps()).toEqual(kept);

  inAll("DELETE FROM schema_migrations WHERE position = 999");
  const again = await startWorkers({ broker: allOf(NOW) }, { stateDir, port });
  onTestFinished(() => again.stop());
  const done = await peer.until(running.id);
  expect(done.job).toMatchObject({ state: "succeeded", attempt: 1 });
  expect(await peer.log(done.runs[0]?.id ?? "")).toBe("before\nafter\n");
  expect((await peer.until(waiting.id)).job.state).toBe("succeeded");
  // Whoever asks wakes it; else its alarm would, within the minute.
  await peer.events("other");
  expect((await peer.until(overdue.id)).job).toMatchObject({ state: "failed", reason: { code: "queue-timeout" } });
  worker.stop();
  expect(await worker.done).toBe(0);
});
