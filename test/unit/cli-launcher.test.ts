import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

describe("cli/plumule", () => {
  it("brings its own Node, from every folder, through a link and in an environment with an older one", () => {
    const folder = mkdtempSync(join(tmpdir(), "plumule-command-"));
    try {
      const link = join(folder, "plumule");
      symlinkSync(join(import.meta.dirname, "../../cli/plumule"), link);
      const printed = execFileSync(link, ["--version"], {
        cwd: folder,
        env: { PATH: "/usr/bin:/bin" },
        encoding: "utf8",
      });
      const manifest = JSON.parse(readFileSync(join(import.meta.dirname, "../../cli/package.json"), "utf8")) as unknown;
      expect(manifest).toMatchObject({ version: printed.trim(), bin: { plumule: "./plumule" } });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
