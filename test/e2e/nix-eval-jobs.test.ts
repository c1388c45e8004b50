import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { hasEvalJobs } from "../../runner/src/nix/eval-jobs.ts";
import { evaluate } from "../../runner/src/nix/evaluate.ts";
import { nixPlace, spawnNix } from "../support/nix.ts";

const { home, env, system, remove } = await nixPlace();

afterAll(remove);

/** A flake with two checks, and `more`. */
function flake(more = ""): string {
  return `{ outputs = { self }: let
    mk = name: derivation { inherit name; system = "${system}"; builder = "/bin/sh"; salt = "${randomUUID()}"; };
  in { checks.${system} = { a = mk "lab-a"; c = mk "lab-c"; ${more} }; packages.${system}.default = mk "lab-top"; }; }`;
}

describe("with nix-eval-jobs", () => {
  /** A stand-in that speaks as the real one does, which is in no registry that these tests use: it evaluates each attribute by itself. */
  const standIn = (exit: string): string => `#!/bin/bash
printf '%s\\n' "$*" >> ${join(home, "eval-jobs.called")}
${exit}
flake=\${!#}
for name in $(nix eval --option pure-eval true --apply 'set: toString (builtins.attrNames set)' --raw "$flake"); do
  if drv=$(nix eval --option pure-eval true --raw "$flake.$name.drvPath" 2>error); then
    echo "{\\"attr\\":\\"$name\\",\\"attrPath\\":[\\"$name\\"],\\"drvPath\\":\\"$drv\\",\\"system\\":\\"${system}\\"}"
  else
    echo "{\\"attr\\":\\"$name\\",\\"attrPath\\":[\\"$name\\"],\\"error\\":\\"error: $(tail -n 1 error | sed 's/.*error: //')\\"}"
  fi
done
`;

  async function evaluated(
    flakeText: string,
    { exit = "", installables = [".#checks"] } = {},
  ): Promise<{ found: Awaited<ReturnType<typeof evaluate>>; told: string[]; called: string }> {
    const [tools, called] = [mkdtempSync(join(home, "tools-")), join(home, "eval-jobs.called")];
    writeFileSync(join(tools, "nix-eval-jobs"), standIn(exit), { mode: 0o755 });
    rmSync(called, { force: true });
    writeFileSync(join(tools, "flake.nix"), flakeText);
    const source = { directory: tools, kind: "files" } as const;
    const context = { run: spawnNix, cwd: tools, env: { ...env, PATH: `${tools}:${env["PATH"]}` } };
    const told: string[] = [];
    const found = await evaluate(context, { source, system, installables, evalJobs: true }, (output) => {
      if (output.kind === "derivation") told.push(output.derivation.name);
    });
    return { found, told, called: existsSync(called) ? readFileSync(called, "utf8") : "" };
  }

  test("a set is evaluated by it, told attribute by attribute, and becomes the same derivations", async () => {
    const text = flake();
    const { found, told, called } = await evaluated(text);
    const plain = await evaluated(text, { exit: "exit 1" });
    expect(told).toEqual(["lab-a", "lab-c"]);
    expect(plain.told).toEqual([]);
    expect(found).toEqual(plain.found);
    expect(called).toContain("--option accept-flake-config false");
    expect(called).toContain("--option allow-import-from-derivation false");
    expect(called).not.toContain("--impure");
  });

  test("all attributes that cannot be evaluated are named, and the others are known too", async () => {
    const bad = flake('one = throw "boom"; two = abort "bang";');
    const { found, told } = await evaluated(bad);
    expect(told).toEqual(["lab-a", "lab-c"]);
    expect(found).toMatchObject({
      failure: {
        code: "evaluation-failed",
        detail: expect.stringMatching(/^\.#checks: 2 of 4 attributes cannot be evaluated: one: .*boom.*; two: .*bang/),
      },
    });
  });

  test("what it prints is believed no more than what Nix prints", async () => {
    const { found } = await evaluated(flake(), { exit: `echo '{"attrPath":["x"],"drvPath":"--version"}'; exit 0` });
    expect(found).toMatchObject({ failure: { detail: ".#checks.x: its drvPath names no derivation" } });
  });

  test.each([
    ["a single attribute", flake, ".#default"],
    ["a set without this system", () => "{ outputs = _: { checks.riscv64-linux.x = 1; }; }", ".#checks"],
  ])("%s is left to Nix", async (_, text, installable) => {
    const { found, told } = await evaluated(text(), { installables: [installable] });
    expect(told).toEqual([]);
    if (installable === ".#default") expect(found).toMatchObject({ targets: [{ label: ".#default" }] });
    else expect(found).toMatchObject({ failure: { code: "nothing-to-do" } });
  });

  test("it is found where it is, and only then", async () => {
    const tools = mkdtempSync(join(home, "tools-"));
    const context = { run: spawnNix, cwd: tools, env: { ...env, PATH: tools } };
    expect(await hasEvalJobs(context)).toBe(false);
    writeFileSync(join(tools, "nix-eval-jobs"), "#!/bin/sh\nexit 127\n", { mode: 0o755 });
    expect(await hasEvalJobs(context)).toBe(false);
    writeFileSync(join(tools, "nix-eval-jobs"), '#!/bin/sh\ntest "$1" = --help\n', { mode: 0o755 });
    expect(await hasEvalJobs(context)).toBe(true);
  });
});
