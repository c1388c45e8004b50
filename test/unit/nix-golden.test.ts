import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { NixLog, type NixOutput } from "../../runner/src/nix/parser.ts";
import { parsePathInfo } from "../../runner/src/nix/outputs.ts";
import { parseDerivations, parseDryRun } from "../../runner/src/nix/plan.ts";

/**
 * What the runner makes of every recorded file of both versions of Nix, as text that a person can check. A change of the parser that changes an
 * answer shows as a change of these files (`vitest run --project unit nix-golden -u`).
 */
const LOGS = new URL("../fixtures/nix-logs/", import.meta.url);

type Recorded = { file: string; command: string; exit: number | null };
const index = JSON.parse(readFileSync(new URL("index.json", LOGS), "utf8")) as Recorded[];

test.each(["nix-2.8", "nix-2.34"])("every file of %s is read as it was", async (set) => {
  const names = readdirSync(new URL(set, LOGS)).toSorted();
  expect(names.length).toBeGreaterThan(20);
  const text = names.map((name) => [`== ${name}`, ...reading(`${set}/${name}`), ""].join("\n")).join("\n");
  await expect(text).toMatchFileSnapshot(new URL(`../fixtures/nix-golden/${set}.txt`, import.meta.url).pathname);
});

function reading(file: string): string[] {
  const text = readFileSync(new URL(file, LOGS), "utf8");
  const recorded = index.find((one) => one.file === file);
  if (/derivation.*\.json$/.test(file)) return nodes(text);
  if (/path-info.*\.json$/.test(file)) return paths(text);
  if (/dry-run.*\.stderr$/.test(file)) return plan(text);
  if (file.endsWith(".stderr") && recorded !== undefined) return stream(text, recorded);
  return ["(not read by the runner)"];
}

function stream(text: string, { exit }: Recorded): string[] {
  const log = new NixLog();
  const outputs: NixOutput[] = log.begin();
  const lines = text.split("\n").slice(0, -1);
  lines.forEach((line, at) => outputs.push(...log.line(line, at)));
  // Killed by a signal: there was no exit code of its own.
  outputs.push(...log.finish({ exitCode: exit === 137 ? null : exit, atMs: lines.length }));
  const states = log.derivations().map(({ name, state, phase, exitCode, reason }) => {
    const parts = [state, phase, exitCode === undefined ? undefined : `exit code ${exitCode}`, reason];
    return { name, line: parts.filter((part) => part !== undefined).join(" · ") };
  });
  const leaves = states.filter(({ name }) => /^leaf-\d+$/.test(name));
  const others = states.filter((one) => !leaves.includes(one));
  const grouped = [...Map.groupBy(leaves, ({ line }) => line)].map(([line, { length }]) => `${length} leaves: ${line}`);
  const said = outputs.flatMap((output) => (output.kind === "log" ? output.text.split("\n") : []));
  const progress = outputs.findLast((output) => output.kind === "progress");
  const first = log.firstFailure();
  return [
    `${lines.length} lines, exit ${exit}`,
    ...others.map(({ name, line }) => `${name}: ${line}`),
    ...grouped,
    `counters ${JSON.stringify(progress?.progress ?? null)}`,
    ...log.errors().map((error) => `error ${JSON.stringify(error)}`),
    ...log.trace().map((line) => `trace ${JSON.stringify(line)}`),
    ...(first === undefined ? [] : [`first ${first.derivation.name}`, ...first.lines.map((line) => `  ${line}`)]),
    `log of ${said.length} lines, from ${JSON.stringify(said[0] ?? "")} to ${JSON.stringify(said.at(-1) ?? "")}`,
  ];
}

function nodes(text: string): string[] {
  return parseDerivations(text, "/lab/store").map(
    ({ name, system, outputs, inputs }) =>
      `${name} for ${system}: ${Object.keys(outputs).join(" ")} from ${inputs.length} inputs`,
  );
}

function paths(text: string): string[] {
  return parsePathInfo(text).map(
    ({ path, narHash, narSize, references, signatures }) =>
      `${path} ${narHash} ${narSize} bytes, ${references.length} references, ${signatures.length} signatures`,
  );
}

function plan(text: string): string[] {
  const { willBuild, willFetch, unknown } = parseDryRun(text);
  const list = (what: string, found: readonly string[]): string[] => found.map((path) => `${what} ${path}`);
  return [...list("build", willBuild), ...list("fetch", willFetch), ...list("unknown", unknown)];
}
