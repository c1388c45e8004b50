import { join } from "node:path";
import { build } from "esbuild";
import { convertV4MiniflareOptions, Miniflare, NoOpLog } from "miniflare";
import { ONE_MODULE, WORKER } from "../../cli/src/dev/bundle.ts";
import { RELEASED } from "./released.ts";

/** Code of the broker: a release such as `v1`, or the checkout. */
export type Code = string;
export const NOW: Code = "now";

/** Which code each part of a broker runs. */
export type Cast = { edge: Code; deployment: Code; pool: Code; namespace: Code };

/** Brokers in one workerd, by the names of their casts. */
export type Workers = { urls: Readonly<Record<string, string>>; stop(): Promise<void> };

export const ADMIN_TOKEN = "admin-token-of-a-test";

/** A broker of one code, as before and after a deploy. */
export function allOf(code: Code): Cast {
  return { edge: code, deployment: code, pool: code, namespace: code };
}

const bundles = new Map<Code, Promise<string>>();

/** The Worker as one module, with the packages of the checkout. */
function bundleOf(code: Code): Promise<string> {
  const known = bundles.get(code);
  if (known !== undefined) return known;
  const root = join(import.meta.dirname, "../..");
  const entry = code === NOW ? join(root, "src/worker.ts") : join(RELEASED, code, "worker.mjs");
  const bundled = build({ ...ONE_MODULE, entryPoints: [entry], absWorkingDir: root }).then(
    ({ outputFiles }) => outputFiles[0]?.text ?? "",
  );
  bundles.set(code, bundled);
  return bundled;
}

/**
 * Starts brokers whose parts may run different code, as it is while a deploy goes round: an edge of one version then calls objects of
 * another. With `stateDir` a broker finds what an earlier one left under the same name. `prologue` is code that runs before theirs.
 */
export async function startWorkers(
  casts: Readonly<Record<string, Cast>>,
  { stateDir, port = 0, prologue = "" }: { stateDir?: string; port?: number; prologue?: string } = {},
): Promise<Workers> {
  const workers = await Promise.all(
    Object.entries(casts).flatMap(([name, cast]) => partsOf(name, cast, port, prologue)),
  );
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      workers,
      host: "127.0.0.1",
      port: 0,
      cf: false,
      telemetry: { enabled: false },
      unsafeRegisterWorker: false,
      log: new NoOpLog(),
      handleStructuredLogs: () => {},
      ...(stateDir === undefined ? {} : { resourcePersistencePath: stateDir }),
    }),
  );
  await miniflare.ready;
  const urls = await Promise.all(
    Object.entries(casts).map(async ([name, { edge }]) => {
      const url = await miniflare.unsafeGetDirectURL(workerName(name, edge, edge));
      return [name, url.origin] as const;
    }),
  );
  return { urls: Object.fromEntries(urls), stop: () => miniflare.dispose() };
}

/** The Worker of one code that is the edge keeps its name whatever the code is: objects are stored under it. */
const workerName = (name: string, code: Code, edge: Code): string => (code === edge ? name : `${name}-${code}`);

type WorkerOptions = Extract<Parameters<typeof convertV4MiniflareOptions>[0], { workers: unknown }>["workers"][number];

function partsOf(name: string, cast: Cast, port: number, prologue: string): Promise<WorkerOptions>[] {
  const objects = { DEPLOYMENT: "Deployment", POOL: "Pool", NAMESPACE: "Namespace" } as const;
  const codeOf = { DEPLOYMENT: cast.deployment, POOL: cast.pool, NAMESPACE: cast.namespace };
  return [...new Set(Object.values(cast))].map(async (code) => ({
    name: workerName(name, code, cast.edge),
    modules: [{ type: "ESModule" as const, path: "worker.js", contents: prologue + (await bundleOf(code)) }],
    compatibilityDate: WORKER.compatibilityDate,
    compatibilityFlags: [...WORKER.compatibilityFlags],
    durableObjects: Object.fromEntries(
      (Object.keys(objects) as (keyof typeof objects)[]).map((binding) => {
        const host = codeOf[binding];
        const elsewhere = host === code ? {} : { scriptName: workerName(name, host, cast.edge) };
        return [binding, { className: objects[binding], useSQLite: true, ...elsewhere }];
      }),
    ),
    bindings: { ADMIN_TOKEN },
    ...(code === cast.edge ? { unsafeDirectSockets: [{ host: "127.0.0.1", port }] } : {}),
  }));
}
