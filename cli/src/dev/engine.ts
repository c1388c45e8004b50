import { access, mkdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { lockState } from "@plumule/runner";
import { convertV4MiniflareOptions, Miniflare, MiniflareCoreError, NoOpLog, type V4MiniflareOptions } from "miniflare";
import { bundleWorker, DOOR, WORKER } from "./bundle.ts";
import { PAGE_FOLDER, ROOT } from "./page.ts";

/** How to run a broker on this machine. */
export type EngineOptions = {
  /** 0 for a free one. */
  port: number;
  /** Address to listen on; by default loopback alone. */
  host?: string;
  /** Folder of everything that the broker keeps. */
  stateDir: string;
  adminToken: string;
  /** What the page of this machine may know: a token with which it reads, and its namespace. */
  page?: { namespace: string; token: string };
  /** Origin of the broker as callers see it, where a proxy hides it. */
  publicUrl?: string;
};

/** Name of the Worker inside the engine; the folders of its databases begin with it. */
const NAME = "plumule";

/**
 * Starts the broker in workerd, the engine of the platform. Nothing of it leaves the machine: no telemetry, no look for updates, no request of
 * its own. A refusal is one sentence for the person at the terminal. `say` gets what the Worker prints.
 */
export async function startEngine(
  options: EngineOptions,
  say: (line: string) => void,
): Promise<{ url: string; port: number; stop: () => Promise<void> } | { refused: string }> {
  const lock = await lockState(options.stateDir);
  if ("refused" in lock) return lock;
  const temporary = await useTemporaryFolder(options.stateDir);
  useMortalEngine();
  const miniflare = new Miniflare(convertV4MiniflareOptions(await engineOptions(options, say)));
  const stop = async (): Promise<void> => {
    // An engine that did not start says so once more when it is disposed of.
    await miniflare.dispose().catch(() => {});
    await rm(temporary, { recursive: true, force: true });
    await lock.release();
  };
  try {
    await miniflare.ready;
    const url = await miniflare.unsafeGetDirectURL(NAME, DOOR);
    return { url: url.origin, port: Number(url.port), stop };
  } catch (error) {
    await stop();
    if (!(error instanceof MiniflareCoreError) || error.code !== "ERR_ADDRESS_IN_USE") throw error;
    return { refused: `Port ${options.port} is in use: stop what listens there, or choose another one with --port.` };
  }
}

/** The engine leaves folders behind in the system's one when it is killed; here the next start removes them. */
async function useTemporaryFolder(stateDir: string): Promise<string> {
  const folder = join(stateDir, "tmp");
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { mode: 0o700 });
  process.env["TMPDIR"] = folder;
  return folder;
}

/** Has the engine start workerd through a script that ties its life to this process. */
function useMortalEngine(): void {
  if (process.platform === "win32") return;
  const engine = createRequire(import.meta.resolve("miniflare"));
  process.env["WORKERD"] ??= (engine("workerd") as { default: string }).default;
  process.env["MINIFLARE_WORKERD_PATH"] ??= fileURLToPath(new URL("./workerd.sh", import.meta.url));
}

async function engineOptions(options: EngineOptions, say: (line: string) => void): Promise<V4MiniflareOptions> {
  const { host = "127.0.0.1", port, stateDir, adminToken, page, publicUrl } = options;
  const contents = await bundleWorker(ROOT);
  const hasPage = await access(join(PAGE_FOLDER, "index.html")).then(
    () => true,
    () => false,
  );
  const assetConfig = { not_found_handling: WORKER.notFoundHandling };
  return {
    name: NAME,
    modules: [{ type: "ESModule", path: "worker.js", contents }],
    compatibilityDate: WORKER.compatibilityDate,
    compatibilityFlags: [...WORKER.compatibilityFlags],
    durableObjects: Object.fromEntries(
      Object.entries(WORKER.objects).map(([binding, className]) => [binding, { className, useSQLite: true }]),
    ),
    bindings: {
      ADMIN_TOKEN: adminToken,
      ...(page === undefined ? {} : { PAGE_TOKEN: page.token, PAGE_NAMESPACE: page.namespace }),
      ...(publicUrl === undefined ? {} : { PUBLIC_URL: publicUrl }),
    },
    ...(hasPage ? { assets: { directory: PAGE_FOLDER, binding: "ASSETS", assetConfig } } : {}),
    // Straight to the Worker: the engine's own entry in front of it would double the time of a small request.
    unsafeDirectSockets: [{ host, port, entrypoint: DOOR }],
    host: "127.0.0.1",
    port: 0,
    resourcePersistencePath: join(stateDir, "broker"),
    // Neither made-up locations, for which it would ask the network, nor reports to its makers.
    cf: false,
    telemetry: { enabled: false },
    unsafeRegisterWorker: false,
    log: new NoOpLog(),
    handleStructuredLogs: ({ message }) => say(message),
  };
}
