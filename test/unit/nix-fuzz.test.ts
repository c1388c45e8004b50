import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LINE_LIMIT_CHARS, createLineSplitter } from "../../runner/src/nix/lines.ts";
import { NixLog, type NixOutput } from "../../runner/src/nix/parser.ts";

/** Cases; `npm run fuzz` asks for many more, and a seed repeats those of a failure. */
const { PLUMULE_FUZZ_CASES: cases = "5000", PLUMULE_FUZZ_SEED: seed } = process.env;
const runs = { numRuns: Number(cases), ...(seed === undefined ? {} : { seed: Number(seed) }) };
/** What a parser that is full may still grow by, bytes: noise of the measurement. What the second flood holds would be 9 MB. */
const GROWTH_BYTES = 3 * 1024 * 1024;
/** Longer transcripts only repeat what the others have. */
const MAX_LINES = 150;

const LOGS = new URL("../fixtures/nix-logs/", import.meta.url);
const index = JSON.parse(readFileSync(new URL("index.json", LOGS), "utf8")) as { file: string }[];
const transcripts = index
  .filter(({ file }) => file.endsWith(".stderr"))
  .map(({ file }) => readFileSync(new URL(file, LOGS), "utf8").split("\n").slice(0, MAX_LINES));

const edits = fc.array(
  fc.record({
    at: fc.nat(MAX_LINES),
    what: fc.constantFrom("drop", "repeat", "cut", "flip", "swap", "insert", "graft"),
    text: fc.oneof(
      fc.string({ unit: "binary", maxLength: 40 }),
      fc.json({ depthSize: "small" }).map((json) => `@nix ${json}`),
    ),
    from: fc.nat(transcripts.length - 1),
    offset: fc.nat(400),
  }),
  { minLength: 1, maxLength: 8 },
);

/** A transcript with lines dropped, doubled, cut, changed, in another order, or from another one. */
function mutate(
  transcript: readonly string[],
  changes: typeof edits extends fc.Arbitrary<infer T> ? T : never,
): string[] {
  const lines = [...transcript];
  for (const { at, what, text, from, offset } of changes) {
    const i = at % Math.max(1, lines.length);
    const line = lines[i] ?? "";
    const cut = line.slice(0, offset);
    if (what === "drop" && lines.length > 1) lines.splice(i, 1);
    else if (what === "repeat") lines.splice(i, 0, line);
    else if (what === "cut") lines[i] = cut;
    else if (what === "flip") lines[i] = cut + text.slice(0, 1) + line.slice(offset + 1);
    else if (what === "swap") lines.splice(i, 2, lines[i + 1] ?? "", line);
    else if (what === "graft") lines.splice(i, 0, transcripts[from]?.[offset % MAX_LINES] ?? "");
    else lines.splice(i, 0, text);
  }
  return lines;
}

function expectBalanced(output: NixOutput): void {
  if (output.kind !== "progress") return;
  const { total, done, running, failed, queued } = output.progress;
  if (Math.min(done, running, failed, queued) < 0 || done + running + failed + queued > total)
    throw new Error(`counters that do not add up: ${JSON.stringify(output.progress)}`);
}

describe("a mutated transcript", () => {
  test(
    "never throws, leaves no build running and unbalances no counter",
    { timeout: 20_000 + runs.numRuns * 10 },
    () => {
      const input = fc.record({
        transcript: fc.constantFrom(...transcripts),
        changes: edits,
        exitCode: fc.constantFrom(0, 1, 100, 101, null),
        known: fc.boolean(),
      });
      fc.assert(
        fc.property(input, ({ transcript, changes, exitCode, known }) => {
          const log = new NixLog();
          let at = 0;
          for (const line of mutate(transcript, changes))
            for (const output of log.line(line, at++)) expectBalanced(output);
          const end = { exitCode, atMs: at, ...(known ? { valid: new Set<string>() } : {}) };
          for (const output of log.finish(end)) expectBalanced(output);
          const open = log.derivations().filter(({ state }) => /building|substituting|waiting/.test(state));
          if (open.length > 0) throw new Error(`left open: ${JSON.stringify(open)}`);
          log.firstFailure();
        }),
        runs,
      );
    },
  );
});

describe("a flood", () => {
  const name = (n: number): string => `/nix/store/${String(n).padStart(32, "0")}-${"x".repeat(200)}.drv`;
  const start = (n: number, type: number): string =>
    `@nix ${JSON.stringify({ action: "start", id: n, type, level: 3, text: `waiting for '${name(n)}'`, fields: [name(n), "", 1, 1] })}`;
  const flood = (n: number): string[] => [
    start(n, 101),
    start(n, 105),
    start(n + 1e7, 108),
    start(n + 2e7, 111),
    `@nix {"action":"result","id":${n},"type":101,"fields":["${"line ".repeat(200)}"]}`,
    `@nix {"action":"result","id":${n},"type":105,"fields":[${n},${n + 1},0,0]}`,
    `@nix ${JSON.stringify({ action: "msg", level: 0, msg: "error: no", raw_msg: `builder for '${name(n)}' failed with exit code 1` })}`,
    `@nix {"action":"msg","level":3,"msg":"  ${name(n)}"}`,
    `@nix {"action":"stop","id":${n}}`,
  ];

  test("of events and of bytes without a newline fills what there is room for and no more", { timeout: 60_000 }, () => {
    const log = new NixLog();
    const splitter = createLineSplitter();
    const chunk = new Uint8Array(64 * 1024).fill(0x61);
    let n = 0;
    const heldAfter = (count: number): number => {
      for (const end = n + count; n < end; n += 1) for (const line of flood(n)) log.line(line, n);
      for (let chunks = 0; chunks < 100; chunks += 1) splitter.push(chunk);
      return heapBytes();
    };
    const full = heldAfter(21_000);
    expect(heldAfter(7_000) - full).toBeLessThan(GROWTH_BYTES);
    expect(log.derivations()).toHaveLength(20_000);
    expect(splitter.end()[0]).toHaveLength(LINE_LIMIT_CHARS);
  });
});

function heapBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}
