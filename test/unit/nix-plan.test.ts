import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  flakeReference,
  parseInstallable,
  type Installable,
  type NixSource,
} from "../../runner/src/nix/installables.ts";
import { LINE_LIMIT_CHARS, createLineSplitter, decodeLine } from "../../runner/src/nix/lines.ts";
import {
  derivationName,
  parseDerivationFile,
  parseDerivations,
  parseDryRun,
  planBuild,
} from "../../runner/src/nix/plan.ts";

function fixture(file: string): string {
  return readFileSync(new URL(`../fixtures/nix-logs/${file}`, import.meta.url), "utf8");
}

describe("the derivation graph", () => {
  test.each(["nix-2.8", "nix-2.34"])("%s: nodes, full paths, outputs and edges", (set) => {
    const nodes = parseDerivations(fixture(`${set}/derivation-show-recursive.json`), "/lab/store");
    const byName = new Map(nodes.map((node) => [node.name, node]));
    const inputsOf = (name: string): string[] => byName.get(name)?.inputs.map(derivationName).toSorted() ?? [];
    expect([...byName.keys()].toSorted()).toEqual(["lab-a", "lab-b", "lab-c", "lab-d", "lab-top"]);
    expect(inputsOf("lab-top")).toEqual(["lab-b", "lab-d"]);
    expect(inputsOf("lab-d")).toEqual(["lab-c"]);
    expect(inputsOf("lab-c")).toEqual(["lab-a", "lab-b"]);
    expect(inputsOf("lab-a")).toEqual([]);
    expect(byName.get("lab-d")).toMatchObject({
      drv: expect.stringMatching(/^\/lab\/store\/[0-9a-z]{32}-lab-d\.drv$/),
      system: "x86_64-linux",
      outputs: {
        out: expect.stringMatching(/^\/lab\/store\/[0-9a-z]{32}-lab-d$/),
        dev: expect.stringMatching(/^\/lab\/store\/[0-9a-z]{32}-lab-d-dev$/),
      },
    });
  });

  test("an output whose path is not known yet is null", () => {
    const shown = { "/s/x.drv": { outputs: { out: { hashAlgo: "r:sha256" } }, inputDrvs: {}, system: "x" } };
    expect(parseDerivations(JSON.stringify(shown), "/s")[0]?.outputs).toEqual({ out: null });
  });

  test.each(["[]", '"x"', '{"derivations":[]}', '{"/s/x.drv":{"outputs":{}}}'])(
    "an unknown shape is an error: %s",
    (json) => {
      expect(() => parseDerivations(json, "/s")).toThrow(/unknown shape/);
    },
  );
});

describe("a derivation's file", () => {
  const rest = `"/bin/sh",["-c","echo \\"]),(\\""],[("name","x"),("out","/s/x")])`;

  test("gives outputs, inputs and system, whatever the builder's arguments hold", () => {
    const text = `Derive([("dev","/s/x-dev","",""),("out","/s/x","","")],[("/s/b.drv",["dev","out"]),("/s/a.drv",["out"])],["/s/src","/s/x.sh"],"x86_64-linux",${rest}`;
    expect(parseDerivationFile("/s/00000000000000000000000000000000-x.drv", text)).toEqual({
      drv: "/s/00000000000000000000000000000000-x.drv",
      name: "x",
      system: "x86_64-linux",
      outputs: { dev: "/s/x-dev", out: "/s/x" },
      inputs: ["/s/a.drv", "/s/b.drv"],
    });
  });

  test("may have no inputs, a fixed hash, or an output whose path is not known yet", () => {
    const text = `Derive([("out","","r:sha256",""),("fixed","/s/f","sha256","00ff")],[],[],"builtin",${rest}`;
    const read = parseDerivationFile("/s/x.drv", text);
    expect(read).toMatchObject({ outputs: { out: null, fixed: "/s/f" }, inputs: [], system: "builtin" });
  });

  test.each([
    "",
    "Derive(",
    `Derive([],[],[],"x",${rest}`,
    `Derive([("out","/s/x","","")],[],[],"x"`,
    `Derive([("out","/s/\\"x","","")],[],[],"x",${rest}`,
    `DrvWithVersion("xp-dyn-drv",[("out","/s/x","","")],[],[],"x",${rest}`,
  ])("of another shape is left to Nix: %s", (text) => {
    expect(parseDerivationFile("/s/x.drv", text)).toBeNull();
  });
});

describe("the dry run", () => {
  test.each([
    ["nix-2.8/dry-run.stderr", 5, 0],
    ["nix-2.8/dry-run-internal-json.stderr", 5, 0],
    ["nix-2.34/dry-run-internal-json.stderr", 5, 0],
    ["nix-2.8/dry-run-fetch.stderr", 0, 2],
    ["nix-2.8/timeout.stderr", 1, 0],
    ["nix-2.8/substitution-signed.stderr", 0, 2],
    ["nix-2.8/dag-cached.stderr", 0, 0],
  ])("%s: %i to build, %i to fetch", (file, builds, fetches) => {
    const plan = parseDryRun(fixture(file));
    expect([plan.willBuild.length, plan.willFetch.length, plan.unknown]).toEqual([builds, fetches, []]);
    expect(plan.willBuild.every((path) => path.endsWith(".drv"))).toBe(true);
  });

  test("paths that nobody can make are told apart", () => {
    expect(parseDryRun("don't know how to build these paths:\n  /nix/store/x.drv\n")).toEqual({
      willBuild: [],
      willFetch: [],
      unknown: ["/nix/store/x.drv"],
    });
  });
});

describe("the plan", () => {
  const nodes = parseDerivations(fixture("nix-2.8/derivation-show-recursive.json"), "/lab/store");
  const drv = (name: string): string => nodes.find((node) => node.name === name)?.drv ?? "";
  const needs = (willBuild: string[], willFetch: string[]): Record<string, string> => {
    const plan = planBuild([drv("lab-top")], nodes, { willBuild, willFetch, unknown: [] });
    return Object.fromEntries(plan.nodes.map(({ name, need }) => [name, need]));
  };

  test("stops at what is there or gets fetched", () => {
    const fetched = Object.values(nodes.find(({ name }) => name === "lab-d")?.outputs ?? {}).filter(
      (path) => path !== null,
    );
    expect(needs([drv("lab-top")], fetched)).toEqual({ "lab-top": "build", "lab-b": "cached", "lab-d": "fetch" });
    expect(needs([], [])).toEqual({ "lab-top": "cached" });
  });

  test("has an edge for each input of what is built, between nodes only", () => {
    const plan = planBuild([drv("lab-c"), drv("lab-c")], nodes, {
      willBuild: [drv("lab-c")],
      willFetch: [],
      unknown: [],
    });
    expect(plan.roots).toEqual([drv("lab-c")]);
    expect(plan.edges.map((edge) => edge.map(derivationName))).toEqual(
      expect.arrayContaining([
        ["lab-c", "lab-a"],
        ["lab-c", "lab-b"],
      ]),
    );
    expect(plan.edges.length).toBe(2);
  });
});

describe("installables", () => {
  const commit = "1aa8d4190396d68f8f64a0cd46a41db5c4d7cffd";
  const git: NixSource = { directory: "/work space/c#1", kind: "git", commit };

  test("of the checkout are read from git at the commit, because plain files differ between machines", () => {
    expect(flakeReference(git)).toBe(`git+file:///work%20space/c%231?rev=${commit}`);
    expect(flakeReference({ ...git, shallow: true }, "sub")).toBe(
      `git+file:///work%20space/c%231?rev=${commit}&shallow=1&dir=sub`,
    );
    expect(flakeReference({ directory: "/w/c", kind: "files", commit, shallow: true })).toBe("path:/w/c");
  });

  test.each([
    [".#checks", flakeReference(git), "checks"],
    ["#x", flakeReference(git), "x"],
    [".", flakeReference(git), ""],
    ["./a/b#x.y", flakeReference(git, "a/b"), "x.y"],
    ["github:o/r/abc#x", "github:o/r/abc", "x"],
  ])("%s is resolved", (text, reference, attribute) => {
    expect(parseInstallable(text, git)).toEqual({ kind: "flake", label: text, reference, attribute });
  });

  test("of a file keep file and attribute apart", () => {
    expect(parseInstallable({ file: "./nix/ci.nix", attribute: "a.b" }, git)).toEqual({
      kind: "file",
      label: "./nix/ci.nix -A a.b",
      file: "./nix/ci.nix",
      attribute: "a.b",
    });
  });

  test.each<[Installable, RegExp]>([
    ["--impure", /begins with a hyphen/],
    ["-f", /begins with a hyphen/],
    ["", /is empty/],
    [".#a b", /white space/],
    [".#a\u0000", /control/],
    [".#a^dev", /all outputs/],
    ["nixpkgs#hello", /registries are off/],
    ["flake:nixpkgs#hello", /registries are off/],
    ["path:/etc#x", /scheme "path:"/],
    ["git+file:///home/x#y", /scheme "git\+file:"/],
    ["/etc#x", /inside the checkout/],
    ["../other#x", /inside the checkout/],
    ["~#x", /inside the checkout/],
    ["./a/../../b#x", /leaves the checkout/],
    [{ file: "/etc/x.nix" }, /outside the checkout/],
    [{ file: "../x.nix" }, /outside the checkout/],
    [{ file: "-x.nix" }, /begins with a hyphen/],
    [{ file: "x.nix", attribute: "--eval" }, /begins with a hyphen/],
    [{ file: "<nixpkgs>/../x y" }, /white space/],
  ])("%j is refused with a reason", (installable, reason) => {
    expect(parseInstallable(installable, git)).toEqual({ refused: expect.stringMatching(reason) });
  });
});

describe("lines", () => {
  test("are cut where the newline is, however the bytes arrive", () => {
    const bytes = Buffer.from("ä1\nzwei\n\nlast €");
    for (let size = 1; size <= bytes.length; size++) {
      const splitter = createLineSplitter();
      const lines: string[] = [];
      for (let from = 0; from < bytes.length; from += size)
        lines.push(...splitter.push(bytes.subarray(from, from + size)));
      expect([...lines, ...splitter.end()]).toEqual(["ä1", "zwei", "", "last €"]);
    }
  });

  test("without end do not fill the memory", () => {
    const splitter = createLineSplitter();
    const chunk = Buffer.alloc(LINE_LIMIT_CHARS / 4, "x");
    const lines = Array.from({ length: 12 }, () => splitter.push(chunk)).flat();
    lines.push(...splitter.push(Buffer.from("\nnext\n")));
    expect(lines.map(({ length }) => length)).toEqual([LINE_LIMIT_CHARS, 4]);
  });

  test.each([
    "@nix not json",
    "@nix []",
    "@nix null",
    '@nix {"action":"start","id":"x"}',
    '@nix {"action":"msg","msg":1,"level":0}',
    '@nix {"action":"result","id":1,"type":101,"fields":[null]}',
    '@nix {"action":"nonsense"}',
    "plain text",
  ])("%s is a plain line", (line) => {
    expect(decodeLine(line)).toEqual({ action: "plain", text: line });
    expect(decodeLine(`<3>${line}`)).toEqual({ action: "plain", text: line });
  });
});
