import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CobRun, type JobCobs, runScribe } from "@plumule/bridge";
import {
  defaultPolicy,
  digestsOf,
  type Envelope,
  type Event,
  type JobDetail,
  type JobState,
  type Task,
} from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { at, job, run } from "./cli-fixtures.ts";
import { commit, dids, signedJobResult, signerNumber } from "./trust-fixtures.ts";

const id = "z3gqcJUoA1n9HaHKufZs5FCSGazv5";
const url = "https://broker.example";
const [READ, TEST, DEPLOY] = ["0", "1", "2"].map((end) => `0199a0b1-c2d3-7000-8abc-01234567890${end}`) as [
  string,
  string,
  string,
];
const SOURCE = { repository: `rad:${id}`, commit, ref: "refs/heads/main" };
const FILE: Task = { kind: "repository" };
const EXPANSION = { jobs: { test: { kind: "shell" as const }, deploy: { kind: "shell" as const, secrets: ["KEY"] } } };
const taskOf = (name: string): Task => ({ ...FILE, step: { job: name, kind: "shell" } });

/** A broker in memory, whose one namespace a scribe follows: what it is asked for, it tells. */
class Told {
  readonly details = new Map<string, JobDetail>();
  readonly statements = new Map<string, Envelope[]>();
  #events: Event[] = [];
  #heard = 0;
  #wake: () => void = () => undefined;

  readonly fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const { pathname } = new URL(input instanceof Request ? input.url : input);
    const signal = input instanceof Request ? input.signal : init?.signal;
    const [, , , what, name, part] = pathname.split("/");
    if (what === "events") return Response.json(await this.#page(signal ?? null));
    if (what === "trust") return Response.json(defaultPolicy(dids));
    const found = this.details.get(name ?? "");
    if (found === undefined) return new Response(null, { status: 404 });
    if (part !== "statements") return Response.json(found);
    const lines = (this.statements.get(name ?? "") ?? []).map((one) => JSON.stringify(one));
    return new Response(lines.join("\n"));
  };

  /** The jobs have changed, and their events come in one page, as of one commit. */
  tell(...jobs: JobDetail[]): void {
    for (const detail of jobs) {
      this.details.set(detail.job.id, detail);
      this.#events.push(eventOf(detail));
    }
    this.#wake();
  }

  async #page(signal: AbortSignal | null): Promise<object> {
    // The first look is history.
    if (this.#heard > 0 && this.#events.length === 0)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        signal?.addEventListener("abort", () => resolve());
      });
    const events = this.#heard === 0 ? [] : this.#events.splice(0);
    this.#heard += 1;
    return { events, cursor: `e1:${this.#heard}`, more: false };
  }
}

function eventOf({ job: about }: JobDetail): Event {
  return {
    specversion: "1.0",
    id: crypto.randomUUID(),
    source: "/acme",
    type: `job.${about.state}`,
    subject: `jobs/${about.id}`,
    time: at(1),
    sequence: "0000000000000001",
    actor: "broker",
    datacontenttype: "application/json",
    data: { job: about },
  };
}

function detailOf(of: string, state: JobState, runner: string | null, task: Task = FILE): JobDetail {
  const about = { namespace: "acme", deployment: "web", source: SOURCE };
  const part = { step: { parent: READ, name: of === TEST ? "test" : "deploy", needs: [] } };
  const runs = runner === null ? [] : [run({ job: of, runner })];
  const has = { run: runs[0]?.id ?? null, runner, startedAt: runner === null ? null : at(2) };
  return {
    job: job({ id: of, state, ...about, ...has, ...(of === READ ? { stepCount: 2 } : part) }),
    spec: { task, source: SOURCE },
    runs,
  };
}

/** The job that has read the file, with its steps as they stand. */
function reading(...steps: [string, string, JobState][]): JobDetail {
  const rows = steps.map(([of, name, state]) => ({ id: of, name, state, kind: "shell" as const, reason: null }));
  return { ...detailOf(READ, "succeeded", dids[0]!), steps: rows };
}

let folder: string;
let broker: Told;
let runs: CobRun[];
let stop: AbortController;
let scribe: Promise<void>;
let said: string[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "plumule-scribe-"));
  mkdirSync(join(folder, "storage", id), { recursive: true });
  [broker, runs, said, stop] = [new Told(), [], [], new AbortController()];
  const cobs: JobCobs = {
    runsOf: async () => runs,
    request: async () => undefined,
    start: async (_, log) => {
      runs.push({ node: "z6MkNode", run: `r${runs.length}`, status: "started", log, recordedAt: 0 });
      return `r${runs.length - 1}`;
    },
    finish: async (_, of, status) => {
      for (const one of runs) if (one.run === of) one.status = status;
    },
    announce: async () => undefined,
  };
  const trust = { keys: new Set(dids.slice(0, 2)), policy: null };
  scribe = runScribe(
    { url, namespace: "acme", state: join(folder, "cobs"), radHome: folder, node: "z6MkNode", trust, repositories: [] },
    {
      fetch: broker.fetch,
      bearer: undefined,
      // Long after it has begun: what is at work is written as started at once.
      now: () => Date.parse(at(3_600)),
      say: (line) => said.push(line),
      openCobs: () => cobs,
      signal: stop.signal,
    },
  );
  broker.statements.set(READ, [await statement(1, READ, FILE, { expansion: EXPANSION })]);
});
afterEach(async () => {
  stop.abort();
  await scribe;
  rmSync(folder, { recursive: true, force: true });
});

const settled = (assertion: () => void): Promise<void> => vi.waitFor(assertion, { timeout: 30_000, interval: 10 });

const words = (): Record<string, string> =>
  Object.fromEntries(runs.map(({ log, status }) => [log.slice(`${url}/j/`.length), status]));

async function statement(
  seed: number,
  of: string,
  task: Task,
  changes: Parameters<typeof signedJobResult>[1] = {},
): Promise<Envelope> {
  const { taskSha256 } = await digestsOf({ task });
  return signedJobResult(await signerNumber(seed), { source: SOURCE, job: of, taskSha256, outputs: [], ...changes });
}

describe("the job COB of a commit whose task file became jobs", () => {
  it("has a run of each step, and none that has succeeded for the whole before all of them have", async () => {
    broker.tell(reading([TEST, "test", "queued"], [DEPLOY, "deploy", "queued"]));
    await settled(() => expect(words()).toEqual({ [READ]: "started" }));
    broker.statements.set(TEST, [await statement(2, TEST, taskOf("test"))]);
    broker.tell(
      reading([TEST, "test", "succeeded"], [DEPLOY, "deploy", "running"]),
      detailOf(TEST, "succeeded", dids[1]!, taskOf("test")),
    );
    await settled(() => expect(words()).toEqual({ [READ]: "started", [TEST]: "succeeded" }));
    broker.statements.set(DEPLOY, [await statement(1, DEPLOY, taskOf("deploy"))]);
    broker.details.set(READ, reading([TEST, "test", "succeeded"], [DEPLOY, "deploy", "succeeded"]));
    broker.tell(detailOf(DEPLOY, "succeeded", dids[0]!, taskOf("deploy")));
    const green = { [READ]: "succeeded", [TEST]: "succeeded", [DEPLOY]: "succeeded" };
    await settled(() => expect(words()).toEqual(green));
  });

  it.each<[string, () => Promise<JobDetail>, string]>([
    ["one that failed", async () => detailOf(DEPLOY, "failed", dids[0]!, taskOf("deploy")), "failed in the job COB"],
    [
      "one that was cancelled before it began",
      async () => detailOf(DEPLOY, "cancelled", null, taskOf("deploy")),
      "failed in the job COB",
    ],
    [
      "a runner that is not believed",
      async () => {
        broker.statements.set(DEPLOY, [await statement(5, DEPLOY, taskOf("deploy"))]);
        return detailOf(DEPLOY, "succeeded", dids[4]!, taskOf("deploy"));
      },
      "nobody whom it believes has signed that `deploy` succeeded",
    ],
    [
      "what was signed of another step",
      async () => {
        broker.statements.set(DEPLOY, [await statement(1, DEPLOY, taskOf("test"))]);
        return detailOf(DEPLOY, "succeeded", dids[0]!, taskOf("deploy"));
      },
      "nobody whom it believes has signed that `deploy` succeeded",
    ],
    [
      "a broker that calls it skipped",
      async () => detailOf(DEPLOY, "skipped", null, taskOf("deploy")),
      "nobody whom it believes has signed that `deploy` succeeded",
    ],
  ])("says that the whole failed because of %s", async (_, end, why) => {
    broker.statements.set(TEST, [await statement(2, TEST, taskOf("test"))]);
    broker.details.set(TEST, detailOf(TEST, "succeeded", dids[1]!, taskOf("test")));
    const last = await end();
    broker.details.set(READ, reading([TEST, "test", "succeeded"], [DEPLOY, "deploy", last.job.state]));
    broker.tell(last);
    await settled(() => expect(words()[READ]).toBe("failed"));
    await settled(() => expect(said.filter((line) => line.includes(READ)).join("\n")).toContain(why));
  });

  it("does without the steps that a stranger's commit does not get, but not without others that a broker leaves out", async () => {
    const untrusted = {
      did: dids[0]!,
      version: "1",
      isolation: "bwrap" as const,
      system: "x86_64-linux",
      untrusted: true,
    };
    broker.statements.set(READ, [await statement(1, READ, FILE, { expansion: EXPANSION, runner: untrusted })]);
    broker.tell(reading([DEPLOY, "deploy", "skipped"]));
    await settled(() => expect(words()).toEqual({ [READ]: "failed" }));
    expect(said.join("\n")).toContain("has signed that `test` succeeded");
    broker.statements.set(TEST, [await statement(2, TEST, taskOf("test"))]);
    broker.details.set(READ, reading([TEST, "test", "succeeded"], [DEPLOY, "deploy", "skipped"]));
    broker.tell(detailOf(TEST, "succeeded", dids[1]!, taskOf("test")));
    await settled(() => expect(words()).toEqual({ [READ]: "succeeded", [TEST]: "succeeded" }));
  });
});
