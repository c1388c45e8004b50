import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

interface Manifest {
  readonly name: string;
  readonly workspaces?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

const root = join(import.meta.dirname, "../..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const manifest = (folder: string): Manifest => JSON.parse(read(join(folder, "package.json"))) as Manifest;

const members = (manifest(".").workspaces ?? []).map(manifest);
const memberNames = members.map(({ name }) => name);

const declared = [manifest("."), ...members].flatMap((member) =>
  [member.dependencies, member.devDependencies, member.optionalDependencies, member.peerDependencies].flatMap((group) =>
    Object.entries(group ?? {}).map(([name, version]) => ({ by: member.name, name, version })),
  ),
);

const documented = new Map(
  [...read("docs/dependencies.md").matchAll(/^\| `([^`]+)` \| `([^`]+)` \| (.+) \|$/gm)].map(
    ([, name, version, purpose]) => [name, { version, purpose }],
  ),
);

describe("a dependency", () => {
  it.each(declared)("$name of $by is pinned exactly and explained in docs/dependencies.md", ({ name, version }) => {
    if (memberNames.includes(name)) expect(version).toBe("*");
    else expect(version).toMatch(/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/);
    expect(documented.get(name)?.version).toBe(version);
    expect(documented.get(name)?.purpose).toMatch(/\w{4}/);
  });

  it("is declared by some package if docs/dependencies.md has a line for it", () => {
    const names = new Set(declared.map(({ name }) => name));
    expect([...documented.keys()].filter((name) => name === undefined || !names.has(name))).toEqual([]);
  });

  it("brings workerd once: miniflare and esbuild are exactly what wrangler depends on", () => {
    const wrangler = manifest("node_modules/wrangler").dependencies ?? {};
    const own = manifest(".").devDependencies ?? {};
    expect(own["miniflare"]).toBe(wrangler["miniflare"]);
    expect(own["esbuild"]).toBe(wrangler["esbuild"]);
  });
});
