import { spawn } from "node:child_process";
import { once } from "node:events";
import { probeIsolation, type RunnerIsolationLevel } from "../../runner/src/isolation.ts";
import { runProcess } from "../../runner/src/process.ts";
import { percentile } from "../statistics.ts";
import { milliseconds, type Row } from "./report.ts";

const ROUNDS = 25;
const WARM_UP = 3;
const SCRIPT = "echo begun";
const env = { PATH: process.env["PATH"] ?? "" };

/** From the start of a process until its first word, and until it is over, ms. */
type Times = { firstMs: number; wholeMs: number };

/** Times one line of bash at every level of isolation that this machine has, beside bash without any. */
export async function measureSandboxes(): Promise<Row[]> {
  const { available } = probeIsolation();
  const plain: Times[] = [];
  const levels = new Map(available.map((level) => [level, [] as Times[]]));
  for (let round = 0; round < WARM_UP + ROUNDS; round += 1) {
    const isKept = round >= WARM_UP;
    const bare = await plainBash();
    if (isKept) plain.push(bare);
    for (const [level, times] of round % 2 === 0 ? levels : [...levels].toReversed()) {
      const taken = await sandboxed(level);
      if (isKept) times.push(taken);
    }
  }
  const row = (what: string, times: readonly Times[], of: keyof Times): Row => {
    const [floor, measured] = [plain, times].map((all) =>
      percentile(
        all.map((one) => one[of]),
        0.5,
      ),
    ) as [number, number];
    return {
      what,
      count: times.length,
      floor: milliseconds(floor),
      measured: milliseconds(measured),
      figure: measured / floor,
      unit: "× slower",
    };
  };
  return [...levels].flatMap(([level, times]) => [
    row(`sandbox ${level} to its first word, against plain bash`, times, "firstMs"),
    row("the same to its end, proved empty", times, "wholeMs"),
  ]);
}

async function plainBash(): Promise<Times> {
  const from = performance.now();
  const child = spawn("bash", ["-c", SCRIPT], { env, cwd: "/", stdio: ["ignore", "pipe", "inherit"] });
  const closed = once(child, "close");
  await once(child.stdout, "data");
  const firstMs = performance.now() - from;
  await closed;
  return { firstMs, wholeMs: performance.now() - from };
}

async function sandboxed(level: RunnerIsolationLevel): Promise<Times> {
  let firstMs: number | null = null;
  const from = performance.now();
  const { reason, detail } = await runProcess({
    argv: ["bash", "-c", SCRIPT],
    cwd: "/",
    env,
    level,
    merged: true,
    graceMs: 0,
    onOutput: () => void (firstMs ??= performance.now() - from),
  });
  if (reason !== "exit" || firstMs === null) throw new Error(`${level}: ${reason} ${detail ?? ""}`);
  return { firstMs, wholeMs: performance.now() - from };
}
