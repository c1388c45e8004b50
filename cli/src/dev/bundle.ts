import { build, type BuildOptions } from "esbuild";

/** What `wrangler.toml` says of the Worker, for an engine that does not read it. A test compares the two. */
export const WORKER = {
  compatibilityDate: "2026-11-01",
  compatibilityFlags: ["enable_request_signal", "global_fetch_strictly_public"],
  objects: { DEPLOYMENT: "Deployment", POOL: "Pool", NAMESPACE: "Namespace" },
  notFoundHandling: "single-page-application",
  /** Paths that the Worker answers; the page has the others. */
  workerFirst: [
    "/v1",
    "/v1/*",
    "/healthz",
    "/openapi.json",
    "/plumule.schema.json",
    "/docs",
    "/docs/*",
    "/.well-known/*",
  ],
} as const;

/** The entrypoint that the broker's port leads to. */
export const DOOR = "Door";

/**
 * The front of the embedded Worker. The platform's own router would ask two more Workers per request, which costs 0.3 of 0.7 ms; here
 * the same rules are a comparison. Without a page every path is the Worker's.
 */
const entry = `
import { WorkerEntrypoint } from "cloudflare:workers";
import worker from "./src/worker.ts";
export * from "./src/worker.ts";
export default worker;
const first = ${JSON.stringify(WORKER.workerFirst)};
const isFirst = (path) => first.some((one) => (one.endsWith("*") ? path.startsWith(one.slice(0, -1)) : path === one));
export class ${DOOR} extends WorkerEntrypoint {
  fetch(request) {
    return this.env.ASSETS === undefined || isFirst(new URL(request.url).pathname)
      ? worker.fetch(request, this.env, this.ctx)
      : this.env.ASSETS.fetch(request);
  }
}
`;

/** How a Worker is bundled for workerd: as one ES module. */
export const ONE_MODULE = {
  bundle: true,
  format: "esm",
  target: "es2024",
  conditions: ["workerd", "worker", "browser"],
  external: ["cloudflare:*", "node:*"],
  logLevel: "silent",
  write: false,
} satisfies BuildOptions;

/** Bundles the Worker of the checkout at `root` as workerd takes it: one ES module. Rejects with esbuild's messages. */
export async function bundleWorker(root: string): Promise<string> {
  const { outputFiles } = await build({
    ...ONE_MODULE,
    stdin: { contents: entry, resolveDir: root, sourcefile: "embedded-worker.js" },
    absWorkingDir: root,
    // Positions alone: with the sources in it the module has four times the size, and the engine is as much later at work.
    sourcemap: "inline",
    sourcesContent: false,
  });
  const [module] = outputFiles;
  if (module === undefined) throw new Error("esbuild made no file");
  return module.text;
}
