import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Miniflare, NoOpLog } from "miniflare";
import { ONE_MODULE, WORKER } from "../cli/src/dev/bundle.ts";

/** A Worker in an engine of its own. */
export type Running = { url: string; stop(): Promise<void> };

/** What to run: a file of `workers/`, its objects by binding, its texts by binding, and the folder for its storage. */
export type WorkerSource = {
  file: "floor.ts" | "counted.ts";
  objects: Readonly<Record<string, string>>;
  bindings?: Record<string, string>;
  folder: string;
};

/** Runs a Worker of the bench as the embedded broker is run: the same workerd, a direct socket, storage on disk. */
export async function startWorker({ file, objects, bindings = {}, folder }: WorkerSource): Promise<Running> {
  const { outputFiles } = await build({
    ...ONE_MODULE,
    entryPoints: [fileURLToPath(new URL(`./workers/${file}`, import.meta.url))],
  });
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      name: "bench",
      modules: [{ type: "ESModule", path: "worker.js", contents: outputFiles[0]?.text ?? "" }],
      compatibilityDate: WORKER.compatibilityDate,
      compatibilityFlags: [...WORKER.compatibilityFlags],
      durableObjects: Object.fromEntries(
        Object.entries(objects).map(([binding, className]) => [binding, { className, useSQLite: true }]),
      ),
      bindings,
      unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
      resourcePersistencePath: folder,
      cf: false,
      telemetry: { enabled: false },
      unsafeRegisterWorker: false,
      log: new NoOpLog(),
    }),
  );
  await miniflare.ready;
  const { origin } = await miniflare.unsafeGetDirectURL("bench");
  return { url: origin, stop: () => miniflare.dispose() };
}
