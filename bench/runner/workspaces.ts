import { execFileSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FetchOptions } from "../../runner/src/mirror.ts";
import { dropCheckout, provideCheckout } from "../../runner/src/workspace/checkout.ts";
import { type OverlayMode, probeOverlay } from "../../runner/src/workspace/overlay.ts";
import { percentile } from "../statistics.ts";
import { type Aim, milliseconds, type Row } from "./report.ts";

const FILES = 5_000;
const COMMITS = 500;
/** Files that a commit after the first changes, and lines of a file. */
const FILES_PER_COMMIT = 10;
const LINES = 40;
/** Files that a run leaves, beside one that it changes. */
const JUNK_FILES = 700;
const ROUNDS = 5;

/** A way to have a workspace: a folder of its own with its warm checkouts, and how their files come to be. */
type Way = { name: string; folder: string; overlay: OverlayMode | null; aim: Aim };

/** Times workspaces of a generated repository beside a cold clone of it: at the commit of the workspace before, and at a new one. */
export async function measureWorkspaces(folder: string): Promise<Row[]> {
  const repository = generateRepository(join(folder, "repository.git"));
  const overlay = await probeOverlay(join(folder, "probe"));
  const ways: Way[] = [
    ...(typeof overlay === "string"
      ? [{ name: "overlay", folder: join(folder, "overlay"), overlay, aim: { least: 50 } }]
      : []),
    { name: "reuse", folder: join(folder, "reuse"), overlay: null, aim: { least: 10 } },
  ];
  for (const way of ways) await roundTrip(way, repository.url, repository.head());

  const clones: number[] = [];
  const times = new Map(
    ways.map((way) => [way, { next: [] as number[], same: [] as number[], whole: [] as number[] }]),
  );
  for (let round = 0; round < ROUNDS; round += 1) {
    const commit = repository.grow();
    clones.push(cloneMs(repository.url, join(folder, "clone")));
    for (const [way, { next, same, whole }] of round % 2 === 0 ? times : [...times].toReversed()) {
      next.push((await roundTrip(way, repository.url, commit)).setupMs);
      const { setupMs, wholeMs } = await roundTrip(way, repository.url, commit);
      same.push(setupMs);
      whole.push(wholeMs);
    }
  }
  const cloneMedian = percentile(clones, 0.5);
  const row = (what: string, samples: readonly number[], aim?: Aim): Row => {
    const median = percentile(samples, 0.5);
    return {
      what,
      count: samples.length,
      floor: milliseconds(cloneMedian),
      measured: milliseconds(median),
      figure: cloneMedian / median,
      unit: "× faster",
      ...(aim === undefined ? {} : { aim }),
    };
  };
  return [...times].flatMap(([{ name, aim }, { next, same, whole }]) => [
    row(`workspace by ${name}, against a cold clone`, same, aim),
    row("the same with taking it down after 700 files of junk", whole),
    row("the same at a new commit, which is fetched", next),
  ]);
}

/** Sets a workspace up, as the runner does for a run, and takes it down again. */
async function roundTrip(
  { folder, overlay }: Way,
  url: string,
  commit: string,
): Promise<{ setupMs: number; wholeMs: number }> {
  const [id, warm] = [randomUUID(), join(folder, "warm")];
  const fetch: FetchOptions = { mirrors: join(folder, "mirrors"), policy: { allowLocal: true }, timeoutMs: 60_000 };
  const from = performance.now();
  const made = await provideCheckout({
    warm,
    id,
    folder: join(folder, "workspaces", id),
    sources: [{ source: { repository: url, commit }, path: "." }],
    domain: "bench",
    overlay,
    setup: null,
    fetch,
  });
  const setupMs = performance.now() - from;
  if (!made.ok) throw new Error(made.detail);
  // Another process does not see the mounts of a namespace.
  if (overlay !== "namespace") leaveJunk(join(folder, "workspaces", id, "checkout"));
  const dropFrom = performance.now();
  await dropCheckout(warm, id);
  return { setupMs, wholeMs: setupMs + performance.now() - dropFrom };
}

/** What a build leaves: new files, and a tracked one that it changed. */
function leaveJunk(checkout: string): void {
  mkdirSync(join(checkout, "build"));
  for (let file = 0; file < JUNK_FILES; file += 1)
    writeFileSync(join(checkout, "build", String(file)), contentOf(file));
  writeFileSync(join(checkout, pathOf(0)), "changed");
}

function cloneMs(url: string, folder: string): number {
  const from = performance.now();
  execFileSync("git", ["clone", "--quiet", url, folder]);
  const ms = performance.now() - from;
  rmSync(folder, { recursive: true });
  return ms;
}

/** A bare repository of text files, in one pack. `grow` adds a commit and answers it. */
function generateRepository(path: string): { url: string; head(): string; grow(): string } {
  const git = (args: readonly string[], input = ""): string =>
    execFileSync("git", ["-C", path, ...args], { input, encoding: "utf8", maxBuffer: 2 ** 20 }).trim();
  execFileSync("git", ["init", "--quiet", "--bare", "--initial-branch=main", path]);
  const head = (): string => git(["rev-parse", "main"]);
  let count = 0;
  const commit = (files: readonly number[], onto: string | null): string => {
    count += 1;
    const text = `commit ${count}`;
    const lines = [
      "commit refs/heads/main",
      `committer bench <bench@example.invalid> ${1_700_000_000 + count} +0000`,
      `data ${text.length}`,
      text,
      ...(onto === null ? [] : [`from ${onto}`]),
    ];
    for (const file of files) {
      const content = contentOf(file);
      lines.push(`M 100644 inline ${pathOf(file)}`, `data ${content.length}`, content);
    }
    return `${lines.join("\n")}\n`;
  };
  const some = (): number[] => Array.from({ length: FILES_PER_COMMIT }, (_, at) => (count * 7 + at * 491) % FILES);
  const history = [
    commit(
      Array.from({ length: FILES }, (_, file) => file),
      null,
    ),
  ];
  while (count < COMMITS) history.push(commit(some(), null));
  git(["fast-import", "--quiet"], history.join(""));
  git(["repack", "-a", "-d", "--quiet"]);
  return {
    url: `file://${path}`,
    head,
    grow() {
      git(["fast-import", "--quiet"], commit(some(), head()));
      return head();
    },
  };
}

function pathOf(file: number): string {
  return `src/part-${file % 50}/module-${file % 500}/file-${file}.ts`;
}

/** About two kilobytes, half of it words and half what no packer makes smaller. */
function contentOf(file: number): string {
  const lines = Array.from(
    { length: LINES },
    (_, at) => `export const value_${file}_${at} = "${randomBytes(9).toString("hex")}";`,
  );
  return lines.join("\n");
}
