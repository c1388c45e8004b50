import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { randomUUID } from "node:crypto";
import { runProcess } from "../../runner/src/process.ts";
import { probeIsolation } from "../../runner/src/isolation.ts";
import {
  type OpenWorkspace,
  refuseWorkspace,
  type WorkspaceProvider,
  type WorkspaceRefusal,
} from "../../runner/src/workspace/provider.ts";

const { level } = probeIsolation();

/** Workspaces that are plain folders: nothing is kept warm, and nothing keeps a path inside. */
export function plainProvider(state: string): WorkspaceProvider {
  const metas = (): { id: string; name: string; createdAt: string }[] =>
    existsSync(state)
      ? readdirSync(state).map((id) => JSON.parse(readFileSync(join(state, id, "meta.json"), "utf8")))
      : [];
  const open = (id: string): OpenWorkspace | WorkspaceRefusal => {
    const meta = metas().find((m) => m.id === id);
    if (!meta) return refuseWorkspace("not-found", `There is no workspace ${id}.`);
    const root = join(state, id, "root");
    const at = (path: string) => join(root, path);
    return {
      ...meta,
      provider: "local",
      strategy: "checkout",
      repositories: [],
      setupCached: null,
      async exec({ command, cwd = "", env = {}, stdin, timeoutMs, cancel, kill, merged = true, ...rest }) {
        const argv = typeof command === "string" ? ["bash", "-c", command] : command;
        const end = await runProcess({
          argv,
          cwd: at(cwd),
          env: { PATH: process.env["PATH"] ?? "", ...env },
          level,
          merged,
          graceMs: 2000,
          onOutput: (chunk, stream) => rest.onOutput?.(chunk, stream),
          ...(stdin instanceof Uint8Array ? { stdin } : {}),
          ...(cancel ? { cancel } : {}),
          ...(kill ? { kill } : {}),
          ...(timeoutMs ? { limits: { runMs: timeoutMs } } : {}),
        });
        if (end.reason === "not-started" || end.reason === "lost" || end.reason === "silence")
          return refuseWorkspace("failed", String(end.detail));
        return { ...end, reason: end.reason };
      },
      fetch: async () => ({ repositories: [] }),
      reset: async () => ({ reset: true as const }),
      changes: async () => ({ source: "git" as const, changes: [] }),
      async readFile(path) {
        if (path.includes("..")) return refuseWorkspace("invalid", "leads out");
        return existsSync(at(path)) ? readFileSync(at(path)) : refuseWorkspace("not-found", `no file ${path}`);
      },
      async writeFile(path, content) {
        mkdirSync(dirname(at(path)), { recursive: true });
        writeFileSync(at(path), content);
        return { bytes: content.length };
      },
      async teardown() {
        rmSync(join(state, id), { recursive: true });
        return { removed: true as const };
      },
    };
  };
  return {
    name: "local",
    async setup({ config, id = randomUUID() }) {
      if (existsSync(join(state, id))) return refuseWorkspace("busy", "exists");
      mkdirSync(join(state, id, "root"), { recursive: true });
      for (const r of config.repositories) execFileSync("git", ["clone", "-q", r.url, join(state, id, "root", r.path)]);
      writeFileSync(
        join(state, id, "meta.json"),
        JSON.stringify({ id, name: config.name, createdAt: new Date().toISOString() }),
      );
      return open(id);
    },
    open: async (id) => open(id),
    list: async () => metas().map((m) => ({ ...m, provider: "local" as const })),
  };
}
