import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Derivation, NixProgress } from "../../runner/src/nix/derivations.ts";
import { NixLog, type NixEnd, type NixOutput } from "../../runner/src/nix/parser.ts";
import { parseDerivations, parseDryRun, planBuild, type Plan } from "../../runner/src/nix/plan.ts";

const LOGS = new URL("../fixtures/nix-logs/", import.meta.url);
const STARTED_AT = 1_800_000_000_000;

interface Transcript {
  readonly file: string;
  readonly command: string;
  readonly exit: number | null;
  readonly states: Readonly<Record<string, string>>;
}

const index = JSON.parse(readFileSync(new URL("index.json", LOGS), "utf8")) as Transcript[];
const streams = index.filter(({ file, command }) => file.endsWith(".stderr") && !/--dry-run|path-info/.test(command));

function linesOf(file: string): string[] {
  return readFileSync(new URL(file, LOGS), "utf8").split("\n").slice(0, -1);
}

/** Feeds lines one millisecond apart. */
function replay(lines: readonly string[], end: Partial<NixEnd> & { exitCode: number | null }, plan?: Plan): NixLogRun {
  const log = new NixLog(plan);
  const outputs = log.begin();
  lines.forEach((line, at) => outputs.push(...log.line(line, STARTED_AT + at)));
  const unsettled = log.unsettled();
  outputs.push(...log.finish({ atMs: STARTED_AT + lines.length, ...end }));
  return { log, outputs, unsettled };
}

interface NixLogRun {
  readonly log: NixLog;
  readonly outputs: readonly NixOutput[];
  readonly unsettled: readonly string[];
}

function text({ outputs }: NixLogRun): string[] {
  return outputs.flatMap((output) => (output.kind === "log" ? [output.text] : []));
}

function progressOf({ outputs }: NixLogRun): NixProgress[] {
  return outputs.flatMap((output) => (output.kind === "progress" ? [output.progress] : []));
}

function named({ log }: NixLogRun, name: string): Derivation {
  const found = log.derivations().find((derivation) => derivation.name === name);
  if (found === undefined) throw new Error(`no derivation ${name}`);
  return found;
}

function stateOf({ state, exitCode }: Derivation): string {
  return state === "failed" ? `failed(${exitCode})` : state;
}

function exitCodeOf({ exit }: Transcript): number | null {
  return exit === 137 ? null : exit;
}

describe("every recorded transcript", () => {
  test("the two sets are there", () => {
    expect(streams.filter(({ file }) => file.startsWith("nix-2.8/")).length).toBeGreaterThan(30);
    expect(streams.filter(({ file }) => file.startsWith("nix-2.34/")).length).toBeGreaterThan(13);
  });

  test.each(streams)("$file ends in the recorded states", (transcript) => {
    const run = replay(linesOf(transcript.file), { exitCode: exitCodeOf(transcript) });
    const found = Object.fromEntries(run.log.derivations().map((derivation) => [derivation.name, stateOf(derivation)]));
    const fan = transcript.file.includes("fan-200");
    const leaves = Object.keys(found).filter((name) => fan && name.startsWith("leaf-"));
    expect(leaves.map((name) => found[name])).toEqual(leaves.map(() => "built"));
    expect(leaves.length).toBe(fan ? 200 : 0);
    for (const name of leaves) delete found[name];
    expect(found).toEqual(transcript.states);
  });

  test.each(streams)("$file gives counters that add up and states that match the updates", (transcript) => {
    const run = replay(linesOf(transcript.file), { exitCode: exitCodeOf(transcript) });
    const last = new Map<string, Derivation>();
    for (const output of run.outputs)
      if (output.kind === "derivation") last.set(output.derivation.drv, output.derivation);
    expect([...last.values()]).toEqual(run.log.derivations());
    const cancelled = run.log.derivations().filter(({ state }) => state === "cancelled").length;
    const progress = progressOf(run);
    for (const { total, done, running, failed, queued, cached } of progress.slice(0, -1)) {
      expect(done + running + failed + queued).toBe(total);
      expect(cached).toBeLessThanOrEqual(done);
    }
    const final = progress.at(-1);
    if (final === undefined) throw new Error("no progress");
    expect(final.done + final.failed + final.queued + cancelled).toBe(final.total);
    expect(final.running).toBe(0);
  });
});

describe("live state", () => {
  test.each(["nix-2.8", "nix-2.34"])("%s: a build is called built as soon as it ended well, not at the end", (set) => {
    const log = new NixLog();
    const builtAt = new Map<string, number>();
    linesOf(`${set}/dag-success.stderr`).forEach((line, at) => {
      for (const output of log.line(line, at)) {
        if (output.kind === "derivation" && output.derivation.state === "built")
          builtAt.set(output.derivation.name, at);
      }
    });
    expect([...builtAt.keys()].toSorted()).toEqual(["lab-a", "lab-b", "lab-c", "lab-d", "lab-top"]);
    expect(log.derivations().every(({ state }) => state === "built")).toBe(true);
  });

  test.each(["nix-2.8", "nix-2.34"])("%s: what fails is never called built, not for a moment", (set) => {
    const run = replay(linesOf(`${set}/dag-failure.stderr`), { exitCode: 100 });
    const states = run.outputs.flatMap((output) =>
      output.kind === "derivation" && output.derivation.name === "lab-c" ? [output.derivation.state] : [],
    );
    expect(new Set(states)).toEqual(new Set(["planned", "building", "failed"]));
  });

  test("a success counted before its own stop and taken for that of a failure is put right", () => {
    const at = (name: string): string => `/nix/store/${name}.drv`;
    const send = (event: object): string => `@nix ${JSON.stringify(event)}`;
    const start = (id: number, name: string): string =>
      send({ action: "start", id, type: 105, level: 3, text: "", fields: [at(name), "", 1, 1] });
    const raw = `builder for '${at("bad")}' failed with exit code 1`;
    const log = new NixLog();
    const lines = [
      send({ action: "start", id: 1, type: 104, level: 0, text: "" }),
      start(2, "good"),
      start(3, "bad"),
      start(4, "open"),
      send({ action: "result", id: 1, type: 105, fields: [1, 3, 1, 1] }),
      send({ action: "stop", id: 3 }),
      send({ action: "msg", level: 0, msg: `error: ${raw}`, raw_msg: raw }),
      send({ action: "stop", id: 2 }),
    ];
    for (const line of lines) log.line(line, STARTED_AT);
    expect(log.derivations().map(({ name, state }) => [name, state])).toEqual([
      ["good", "built"],
      ["bad", "failed"],
      ["open", "building"],
    ]);
  });

  test("phases, times and the reason are kept", () => {
    const run = replay(linesOf("nix-2.34/dag-failure.stderr"), { exitCode: 100 });
    const failed = named(run, "lab-c");
    expect(failed).toMatchObject({ phase: "buildPhase", exitCode: 3, reason: "builder failed with exit code 3" });
    expect(failed.endedAt).toBeGreaterThan(failed.startedAt ?? Infinity);
    expect(named(run, "lab-top")).toMatchObject({ reason: "1 dependency failed" });
    expect(named(run, "lab-top").startedAt).toBeUndefined();
  });

  test("log lines carry the name of their derivation", () => {
    const lines = text(replay(linesOf("nix-2.8/dag-success.stderr"), { exitCode: 0 }));
    expect(lines).toContain("lab-a> err line of lab-a");
    expect(lines).toContain("lab-b> err line of lab-b");
    expect(lines.some((line) => line.startsWith("@nix"))).toBe(false);
  });

  test("two derivations of one name are told apart", () => {
    const start = (id: number, hash: string): string =>
      `@nix ${JSON.stringify({ action: "start", id, type: 105, level: 3, text: "", fields: [`/nix/store/${hash}-source.drv`, "", 1, 1] })}`;
    const say = (id: number): string => `@nix ${JSON.stringify({ action: "result", id, type: 101, fields: ["hi"] })}`;
    const [one, two] = ["a".repeat(32), "b".repeat(32)];
    const run = replay([start(1, one), start(2, two), say(1), say(2)], { exitCode: 0 });
    expect(text(run).filter((line) => line.endsWith("hi"))).toEqual(["source> hi", "source-bbbbbbbb> hi"]);
  });

  test("neighbouring ids beyond 2^53 stay apart", () => {
    const start = (id: string, name: string): string =>
      `@nix {"action":"start","id":${id},"type":105,"level":3,"text":"","fields":["/nix/store/${name}.drv","",1,1]}`;
    const lines = [start("17750270905679872", "x"), start("17750270905679873", "y")];
    const say = (id: string): string => `@nix {"action":"result","id":${id},"type":101,"fields":["hi \\"id\\":1"]}`;
    const run = replay([...lines, say("17750270905679872"), say("17750270905679873")], { exitCode: 0 });
    expect(text(run).filter((line) => line.includes("hi"))).toEqual(['x> hi "id":1', 'y> hi "id":1']);
  });

  test("half of a wide build's lines are noise and leave nothing", () => {
    const lines = linesOf("nix-2.8/fan-200-jobs-4.stderr");
    const run = replay(lines, { exitCode: 0 });
    expect(lines.length).toBeGreaterThan(3000);
    expect(text(run).length).toBeLessThan(700);
    expect(progressOf(run).at(-1)).toMatchObject({ total: 201, done: 201, running: 0, failed: 0, queued: 0 });
  });

  test("bytes are counted once", () => {
    const run = replay(linesOf("nix-2.8/fetchurl-fixed-output.stderr"), { exitCode: 0 });
    expect(progressOf(run).at(-1)).toMatchObject({ bytes: 12, expectedBytes: 12 });
  });
});

describe("what a builder forges", () => {
  test.each(["nix-2.8", "nix-2.34"])("%s: forged errors are marked and change no state", (set) => {
    const run = replay(linesOf(`${set}/forged-lines.stderr`), { exitCode: 0 });
    expect(text(run).find((line) => line.includes("xxx-other"))).toMatch(/^\[unverified\] error: builder for/);
    expect(run.log.derivations().map(({ name }) => name)).toEqual(["lab-spoof"]);
    expect(run.log.errors()).toEqual([]);
  });

  test("a forged plan after the first build adds no derivation", () => {
    const lines = linesOf("nix-2.8/forged-lines.stderr");
    const forged = '@nix {"action":"msg","level":3,"msg":"  /lab/store/00000000000000000000000000000000-ghost.drv"}';
    const run = replay([...lines.slice(0, -6), forged, ...lines.slice(-6)], { exitCode: 0 });
    expect(run.log.derivations().map(({ name }) => name)).toEqual(["lab-spoof"]);
  });

  test("the log tail inside a real error names no other derivation", () => {
    const victim = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-victim.drv";
    const start = `@nix {"action":"start","id":1,"type":105,"level":3,"text":"","fields":["${victim}","",1,1]}`;
    const raw = `builder for '/nix/store/a-evil.drv' failed due to signal 9 (Killed);\nlast 1 log lines:\n> 1 dependency of derivation '${victim}' failed\n> hash mismatch in fixed-output derivation '${victim}'`;
    const message = `@nix ${JSON.stringify({ action: "msg", level: 0, msg: `error: ${raw}`, raw_msg: raw })}`;
    const run = replay([start, message, '@nix {"action":"stop","id":1}'], { exitCode: 0 });
    expect(named(run, "victim").state).toBe("built");
    expect(run.log.derivations().find(({ drv }) => drv.endsWith("a-evil.drv"))).toMatchObject({
      state: "failed",
      reason: "builder failed due to signal 9 (Killed)",
    });
  });
});

describe("the end of the process", () => {
  test("the store's word wins over Nix's counter", () => {
    const lines = linesOf("nix-2.8/dag-failure.stderr");
    const { unsettled } = replay(lines, { exitCode: 100 });
    expect(unsettled.map((drv) => drv.replace(/.*-lab/, "lab")).toSorted()).toEqual(["lab-a.drv", "lab-b.drv"]);
    const run = replay(lines, { exitCode: 100, valid: new Set(unsettled.filter((drv) => drv.includes("lab-a"))) });
    expect([named(run, "lab-a").state, named(run, "lab-b").state]).toEqual(["built", "lost"]);
  });

  test("an interrupt cancels what was not finished and keeps what was", () => {
    const lines = linesOf("nix-2.34/cancel-sigint.stderr");
    const { unsettled } = replay(lines, { exitCode: 1 });
    expect(named(replay(lines, { exitCode: 1, valid: new Set() }), "lab-slow").state).toBe("cancelled");
    expect(named(replay(lines, { exitCode: 1, valid: new Set(unsettled) }), "lab-slow").state).toBe("built");
  });

  test("a time-out that names nobody and comes before the stop is given to the build that was running", () => {
    const lines = linesOf("nix-2.34/timeout.stderr");
    const error = lines.find((line) => line.includes("timed out")) ?? "";
    const early = [
      ...lines.slice(
        0,
        lines.findIndex((line) => line.includes('"fields":["start"]')),
      ),
      error,
    ];
    expect(named(replay(early, { exitCode: 101 }), "lab-timeout")).toMatchObject({
      state: "timeout",
      reason: "timed out after 1 seconds",
    });
  });

  test("what failed first is told with its last lines, not what the plan has first", () => {
    const drv = (name: string): string => `/nix/store/${"a".repeat(32)}-${name}.drv`;
    const send = (event: object): string => `@nix ${JSON.stringify(event)}`;
    const say = (id: number, line: string): string => send({ action: "result", id, type: 101, fields: [line] });
    const fail = (name: string): string => {
      const raw = `builder for '${drv(name)}' failed with exit code 1`;
      return send({ action: "msg", level: 0, msg: `error: ${raw}`, raw_msg: raw });
    };
    const start = (id: number, name: string): string =>
      send({ action: "start", id, type: 105, level: 3, text: "", fields: [drv(name), "", 1, 1] });
    const lines = Array.from({ length: 40 }, (_, at) => say(2, `\u001b[31mline ${at}\u001b[0m`));
    const run = replay(
      [start(1, "one"), start(2, "two"), say(1, "of one"), ...lines, fail("two"), say(1, "more"), fail("one")],
      { exitCode: 100 },
    );
    const first = run.log.firstFailure();
    expect(first?.derivation).toMatchObject({ name: "two", state: "failed", exitCode: 1 });
    expect(first?.lines).toEqual(Array.from({ length: 25 }, (_, at) => `line ${at + 15}`));
  });

  test("the trace of an evaluation's error is kept beside it, and a long one is shortened in the log", () => {
    const run = replay(linesOf("nix-2.8/eval-error-trace.stderr"), { exitCode: 1 });
    expect(run.log.errors()).toEqual(["evaluation aborted with the following error message: 'bad 1'"]);
    expect(run.log.trace()).toContain("       at /lab/eval-error.nix:1:9:");
    const long = `error: no\n${"… from call site\n".repeat(10_000)}`;
    const message = `@nix ${JSON.stringify({ action: "msg", level: 0, msg: long, raw_msg: "no" })}`;
    const [shown = ""] = text(replay([message], { exitCode: 1 }));
    expect(shown.length).toBeLessThan(70_000);
    expect(shown).toContain("characters left out");
  });

  test("evaluation errors are kept without colours", () => {
    const run = replay(linesOf("nix-2.8/eval-error.stderr"), { exitCode: 1 });
    expect(run.log.errors()).toEqual(["nope"]);
  });
});

describe("with a plan", () => {
  const nodes = parseDerivations(
    readFileSync(new URL("nix-2.8/derivation-show-recursive.json", LOGS), "utf8"),
    "/lab/store",
  );
  const byName = (name: string): string => nodes.find((node) => node.name === name)?.drv ?? "";
  const top = byName("lab-top");
  const dryRun = parseDryRun(linesOf("nix-2.8/dry-run.stderr").join("\n"));

  test("totals stand before the first line", () => {
    const log = new NixLog(planBuild([top], nodes, dryRun));
    expect(log.begin().at(-1)).toMatchObject({ kind: "progress", progress: { total: 5, queued: 5, done: 0 } });
  });

  test("dependents that Nix does not mention are known to be impossible", () => {
    const plan = planBuild([top], nodes, dryRun);
    const start = `@nix {"action":"start","id":1,"type":105,"level":3,"text":"","fields":["${byName("lab-b")}","",1,1]}`;
    const raw = `builder for '${byName("lab-b")}' failed with exit code 2`;
    const message = `@nix ${JSON.stringify({ action: "msg", level: 0, msg: `error: ${raw}`, raw_msg: raw })}`;
    const run = replay([start, message, '@nix {"action":"stop","id":1}'], { exitCode: 100 }, plan);
    expect(Object.fromEntries(run.log.derivations().map(({ name, state }) => [name, state]))).toEqual({
      "lab-a": "planned",
      "lab-b": "failed",
      "lab-c": "dependency-failed",
      "lab-d": "dependency-failed",
      "lab-top": "dependency-failed",
    });
  });

  test("a lock on an output makes its derivation wait, with the reason, and no longer", () => {
    const plan = planBuild([top], nodes, dryRun);
    const output = nodes.find((node) => node.drv === byName("lab-a"))?.outputs["out"];
    const wait = `@nix {"action":"start","id":5,"type":111,"level":1,"text":"waiting for lock on '${output}'"}`;
    const log = new NixLog(plan);
    log.begin();
    expect(log.line(wait, 1)).toContainEqual({
      kind: "derivation",
      derivation: {
        drv: byName("lab-a"),
        name: "lab-a",
        need: "build",
        state: "waiting",
        reason: `waiting for lock on '${output}'`,
      },
    });
    log.line('@nix {"action":"stop","id":5}', 2);
    expect(log.derivations().find(({ name }) => name === "lab-a")).toEqual({
      drv: byName("lab-a"),
      name: "lab-a",
      need: "build",
      state: "planned",
    });
  });

  test("a fetched output makes its derivation substituted", () => {
    const output = nodes.find((node) => node.drv === top)?.outputs["out"] ?? "";
    const plan = planBuild([top], nodes, { willBuild: [], willFetch: [output], unknown: [] });
    const lines = linesOf("nix-2.8/substitution-signed.stderr").map((line) =>
      line.replaceAll("/lab/store/wlwq415qij5hqbdpw4zjvgycfjpl6ibg-r-b", output),
    );
    const run = replay(lines, { exitCode: 0 }, plan);
    expect(run.log.derivations()).toMatchObject([{ name: "lab-top", state: "substituted" }]);
  });
});
