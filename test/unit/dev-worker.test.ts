import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bundleWorker, DOOR, WORKER } from "../../cli/src/dev/bundle.ts";

const root = join(import.meta.dirname, "../..");
const toml = readFileSync(join(root, "wrangler.toml"), "utf8");

/** The value of a key of wrangler.toml; its strings and lists of strings, of one line or several, are written as in JSON. */
function valueOf(key: string): unknown {
  const text = new RegExp(`^${key} = (\\[[^\\]]*\\]|.+)$`, "m").exec(toml)?.[1] ?? "null";
  return JSON.parse(text.replace(/,\s*\]$/, "]"));
}

describe("the Worker of `plumule dev`", () => {
  it("is run as wrangler.toml says", () => {
    expect(WORKER.compatibilityDate).toBe(valueOf("compatibility_date"));
    expect(WORKER.compatibilityFlags).toEqual(valueOf("compatibility_flags"));
    expect(WORKER.notFoundHandling).toBe(valueOf("not_found_handling"));
    expect(WORKER.workerFirst).toEqual(valueOf("run_worker_first"));
  });

  it("has the objects that wrangler.toml binds", () => {
    const bound = [...toml.matchAll(/^name = "([A-Z_]+)"\nclass_name = "(\w+)"$/gm)].map(([, name, kind]) => [
      name,
      kind,
    ]);
    expect(bound.length).toBeGreaterThan(0);
    expect(Object.entries(WORKER.objects)).toEqual(bound);
  });

  it("is one module that exports its objects and the door", async () => {
    const names = /export \{([^}]+)\};/.exec(await bundleWorker(root))?.[1] ?? "";
    for (const name of [DOOR, ...Object.values(WORKER.objects)]) expect(names).toContain(name);
  });
});
