import { createHash } from "node:crypto";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Assignment, LIMITS, type ResultBody } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Broker, BrokerAnswer } from "../../runner/src/broker.ts";
import { createDeliverer } from "../../runner/src/deliver.ts";
import { openLogFile } from "../../runner/src/log-file.ts";
import { createLogUpload } from "../../runner/src/log-upload.ts";
import type { SpoolRecord } from "../../runner/src/records.ts";
import { openSpool } from "../../runner/src/spool.ts";

const RUN = "0199c0de-7a11-7001-9b1f-3b0f6a2d9e10";
const problem = { type: "", title: "", status: 0, code: "unavailable", detail: "away", next: "" };
const away: BrokerAnswer<never> = { ok: false, retry: true, problem, logSize: null };

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "plumule-deliver-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A broker that stores a log as the real one does, and fails the first `faults` requests. */
function storingBroker(
  faults: number,
  had: Uint8Array = new Uint8Array(0),
): Broker & { stored: () => Buffer; results: ResultBody[]; requests: number } {
  let stored = Buffer.from(had);
  const broker = {
    results: [] as ResultBody[],
    requests: 0,
    stored: () => stored,
    appendLog: async (_: unknown, offset: number, bytes: Uint8Array): Promise<BrokerAnswer<{ bytes: number }>> => {
      broker.requests += 1;
      if (faults-- > 0) return away;
      if (offset > stored.length) return { ok: false, retry: false, problem, logSize: stored.length };
      expect(
        stored.subarray(offset, offset + bytes.length).equals(bytes.subarray(0, Math.max(0, stored.length - offset))),
      ).toBe(true);
      if (offset + bytes.length > stored.length) stored = Buffer.concat([stored.subarray(0, offset), bytes]);
      return { ok: true, value: { bytes: stored.length } };
    },
    result: async (
      _: unknown,
      body: ResultBody,
    ): Promise<BrokerAnswer<{ accepted: boolean; late: boolean; state: "succeeded" }>> => {
      broker.requests += 1;
      if (faults-- > 0) return away;
      const tail = Buffer.from(body.logTail?.base64 ?? "", "base64");
      stored = Buffer.concat([stored.subarray(0, body.logTail?.offset ?? stored.length), tail]);
      broker.results.push(body);
      return { ok: true, value: { accepted: true, late: false, state: "succeeded" } };
    },
  };
  return broker as unknown as ReturnType<typeof storingBroker>;
}

async function spoolWith(
  log: Uint8Array,
): Promise<{ spool: Awaited<ReturnType<typeof openSpool<SpoolRecord>>>; logPath: string }> {
  const logPath = join(folder, "run.log");
  await writeFile(logPath, log);
  const spool = await openSpool<SpoolRecord>(join(folder, "spool"), (value) => value as SpoolRecord, 10_000_000);
  const result = {
    log: { bytes: log.length, sha256: createHash("sha256").update(log).digest("hex"), truncated: false },
  } as ResultBody;
  await spool.put(RUN, { assignment: { run: RUN } as Assignment, result, logPath });
  return { spool, logPath };
}

const bytesOf = (length: number): Buffer => Buffer.alloc(length, "0123456789abcdef\n");

describe("the deliverer", () => {
  it.each([
    ["a log that rides on the result whole, in one request", 1_000, 0, 0, 1],
    ["an empty log", 0, 0, 0, 1],
    ["a long log before the result", LIMITS.logChunkBytes * 2 + 5, 0, 0, null],
    ["a long log of which the broker has a part", LIMITS.logChunkBytes * 2 + 5, LIMITS.logChunkBytes - 7, 0, null],
    ["after the broker was away", 5_000, 0, 3, 4],
  ])("brings %s", async (_, length, had, faults, requests) => {
    const log = bytesOf(length);
    const broker = storingBroker(faults, log.subarray(0, had));
    const { spool } = await spoolWith(log);
    const stopped = new AbortController();
    const deliverer = createDeliverer({
      broker,
      spool,
      stopped: stopped.signal,
      say: () => {},
      answered: async (run, final) => {
        if (final) await spool.remove(run);
      },
    });
    deliverer.wake();
    await deliverer.drained(AbortSignal.timeout(20_000));
    expect(broker.stored().equals(log)).toBe(true);
    expect(broker.results).toHaveLength(1);
    expect(spool.pending()).toEqual([]);
    if (requests !== null) expect(broker.requests).toBe(requests);
  });

  it.each([
    ["of which the broker has more than the disk has kept", 200_000, 100_000, 100_000],
    [
      "whose end was lost with the power after the result was made",
      0,
      LIMITS.logTailBytes + 9_000,
      LIMITS.logTailBytes,
    ],
  ])("delivers the result of a log %s", async (_, had, saidBytes, leftBytes) => {
    const log = bytesOf(Math.max(had, saidBytes));
    const broker = storingBroker(0, log.subarray(0, had));
    const { spool, logPath } = await spoolWith(log.subarray(0, saidBytes));
    await truncate(logPath, leftBytes);
    const said: boolean[] = [];
    const deliverer = createDeliverer({
      broker,
      spool,
      stopped: new AbortController().signal,
      say: () => {},
      answered: async (run, final) => {
        said.push(final);
        if (final) await spool.remove(run);
      },
    });
    deliverer.wake();
    await deliverer.drained(AbortSignal.timeout(20_000));
    expect(said).toEqual([true]);
    expect(broker.results).toHaveLength(1);
  });

  it("keeps the result while the broker is away, for the next process of the runner", async () => {
    const { spool } = await spoolWith(bytesOf(10));
    const stopped = new AbortController();
    const answers: boolean[] = [];
    const deliverer = createDeliverer({
      broker: storingBroker(1_000),
      spool,
      stopped: stopped.signal,
      say: () => {},
      answered: async (_, final) => void answers.push(final),
    });
    deliverer.wake();
    await deliverer.drained(AbortSignal.timeout(600));
    stopped.abort();
    expect(new Set(answers)).toEqual(new Set([false]));
    const again = await openSpool<SpoolRecord>(join(folder, "spool"), (value) => value as SpoolRecord, 10_000_000);
    expect(again.pending().map((one) => one.runId)).toEqual([RUN]);
  });
});

describe("the live upload of a log", () => {
  it("resumes at the size that the broker names, and never sends a byte to the wrong place", async () => {
    const file = await openLogFile(join(folder, "live.log"), { limitBytes: 10_000_000, tailBytes: 1_000 });
    const broker = storingBroker(2);
    const upload = createLogUpload(file, (offset, bytes) => broker.appendLog({} as Assignment, offset, bytes));
    for (let line = 0; line < 40; line += 1) {
      file.append(Buffer.from(`line ${line}\n`));
      upload.grew();
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await upload.stop();
    const sealed = file.seal();
    expect(createHash("sha256").update(broker.stored()).digest("hex")).toBe(sealed.sha256);
  });
});
