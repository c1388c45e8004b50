import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { LIMITS } from "@plumule/protocol";
import { startWorker } from "../engine.ts";
import { openHttp } from "../http.ts";
import { percentile } from "../statistics.ts";
import type { Fleet } from "./fleet.ts";
import { readMemory, runnerProcesses } from "./processes.ts";
import { figureOf, type Row } from "./report.ts";

const MB = 1e6;
/** Within the limit of a log, so that all of it has to arrive. */
const LOG_BYTES = 48 * MB;
const ROUNDS = 3;
/** Far beyond that limit, of which head and tail are kept; and about as much as is kept, to see whether memory grows with what a job prints. */
const LONG_BYTES = 200 * MB;
const SHORT_BYTES = 60 * MB;
const SAMPLE_MS = 50;

/**
 * Times a log from the process that prints it to the broker's storage, beside `cat` through a pipe to a file, and beside the same bytes from memory
 * into rows of the same engine, as they are and by requests that check nothing.
 */
export async function measureLogPath(fleet: Fleet, folder: string): Promise<Row[]> {
  const [text, stamp, copy] = [join(folder, "text"), join(folder, "stamp"), join(folder, "copy")];
  writeText(text, LOG_BYTES);
  const bytes = readFileSync(text);
  const worker = await startWorker({ file: "floor.ts", objects: { FLOOR: "Floor" }, folder: join(folder, "floor") });
  const http = openHttp(worker.url);
  const rates: { cat: number; put: number; path: number }[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const bare = execFileSync("bash", ["-c", `date +%s%N; cat ${text} | cat >${copy}; date +%s%N`], {
      encoding: "utf8",
    });
    const [from = 0, to = 0] = bare.trim().split("\n").map(Number);
    rmSync(copy);
    const putAt = performance.now();
    for (let offset = 0; offset < bytes.length; offset += LIMITS.logAppendBytes)
      await http.send("PUT", "/log", { body: bytes.subarray(offset, offset + LIMITS.logAppendBytes) });
    const putMs = performance.now() - putAt;
    const { finishedAtMs, logBytes } = await fleet.run(`date +%s%3N >${stamp}; cat ${text}`);
    if (logBytes !== LOG_BYTES) throw new Error(`of ${LOG_BYTES} bytes the broker has ${logBytes}`);
    const pathMs = finishedAtMs - Number(readFileSync(stamp, "utf8"));
    rates.push({ cat: rateOf((to - from) / 1e6), put: rateOf(putMs), path: rateOf(pathMs) });
  }
  http.close();
  await worker.stop();
  const median = (of: "cat" | "put" | "path"): number =>
    percentile(
      rates.map((rate) => rate[of]),
      0.5,
    );
  const row = (what: string, of: "cat" | "put"): Row => ({
    what,
    count: ROUNDS,
    floor: `${figureOf(median(of))} MB/s`,
    measured: `${figureOf(median("path"))} MB/s`,
    figure: median("path") / median(of),
    unit: "× as fast",
  });
  return [
    {
      ...row("log path, from process to broker, secrets masked, against `cat` into `cat`", "cat"),
      aim: { least: 0.25 },
    },
    row("the same against bare requests that store it", "put"),
  ];
}

/** MB/s of the log in so many ms. */
function rateOf(ms: number): number {
  return LOG_BYTES / MB / (ms / 1e3);
}

/** Watches the memory of a runner and of the supervisor that takes the run, without the job's, while a job prints far more than is kept. */
export async function measureMemory(fleet: Fleet, folder: string): Promise<Row[]> {
  // What is loaded once and kept is loaded before.
  await watchMemory(fleet, join(folder, "first"), SHORT_BYTES);
  const short = await watchMemory(fleet, join(folder, "short"), SHORT_BYTES);
  const long = await watchMemory(fleet, join(folder, "long"), LONG_BYTES);
  const mb = (bytes: number): string => `${figureOf(bytes / MB)} MB`;
  const what = `memory of the runner while a job prints ${LONG_BYTES / MB} MB`;
  return [
    {
      what: `${what}, secrets masked, at its peak`,
      count: long.count,
      floor: `${mb(short.before)} idle`,
      measured: mb(long.peak),
      figure: long.peak / MB,
      unit: " MB",
      aim: { most: 120 },
    },
    {
      what: `the same against one that prints ${SHORT_BYTES / MB} MB`,
      count: long.count,
      floor: mb(short.peak),
      measured: mb(long.peak),
      figure: long.peak / short.peak,
      unit: "×",
      aim: { most: 1.1 },
    },
  ];
}

async function watchMemory(
  fleet: Fleet,
  text: string,
  bytes: number,
): Promise<{ before: number; peak: number; count: number }> {
  writeText(text, bytes);
  // The supervisor that waits now is the one of the run.
  const pids = runnerProcesses(fleet.runnerPid);
  const before = readMemory(pids);
  const samples: number[] = [];
  const timer = setInterval(() => samples.push(readMemory(pids)), SAMPLE_MS);
  await fleet.run(`cat ${text}`).finally(() => clearInterval(timer));
  return { before, peak: Math.max(...samples), count: samples.length };
}

/** Lines as a build prints them, no two alike: packed they are a fifth or sixth, as logs are that do not repeat themselves much. */
function writeText(path: string, bytes: number): void {
  const file = openSync(path, "w");
  let left = bytes;
  for (let block = 0; left > 0; block += 1) {
    const hashes = randomBytes(6_000).toString("hex");
    const lines = Array.from(
      { length: 1_000 },
      (_, at) =>
        `[${block}/${at}] compiling src/part-${at % 50}/file-${at}.ts ${hashes.slice(at * 12, at * 12 + 12)}\n`,
    );
    const chunk = Buffer.from(lines.join("")).subarray(0, left);
    writeSync(file, chunk);
    left -= chunk.length;
  }
  closeSync(file);
}
