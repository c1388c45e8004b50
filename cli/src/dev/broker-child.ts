import { serveParent } from "./child.ts";
import { type EngineOptions, startEngine } from "./engine.ts";

serveParent<EngineOptions, { url: string; port: number }>(async (options, say) => {
  const engine = await startEngine(options, say);
  if ("refused" in engine) return engine;
  const { url, port, stop } = engine;
  const done = Promise.withResolvers<number>();
  return { started: { url, port }, stop: () => void stop().then(() => done.resolve(0)), done: done.promise };
});
