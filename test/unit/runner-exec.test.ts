import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import {
  EXEC_CHANNELS,
  execBytes,
  type ExecCall,
  type ExecPersonFrame,
  type ExecRunnerFrame,
  LIMITS,
  readExecFrame,
  utf8,
} from "@plumule/protocol";
import { sealSecret } from "@plumule/protocol/seal";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runnerConfigSchema, runnerFolders } from "../../runner/src/config.ts";
import { type DeskDeps, openDesk } from "../../runner/src/exec/desk.ts";
import type { ExecSocket } from "../../runner/src/exec/line.ts";
import { canMakeTerminals, inTerminal, resizeTerminal } from "../../runner/src/exec/terminal.ts";
import { runProcess } from "../../runner/src/process.ts";
import { openIdentity } from "../../runner/src/secrets/identity.ts";

const RUN = "0199a0b1-c2d3-7001-8abc-0123456789ab";
const PATH = process.env["PATH"] ?? "";
const hasTerminals = await canMakeTerminals(PATH);

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), "plumule-exec-"));
  mkdirSync(join(state, "workspaces", RUN, "checkout"), { recursive: true });
});
afterEach(() => rmSync(state, { recursive: true, force: true }));

/** A person at the other end, and what they have got. `reads` confirms everything at once. */
class Person {
  readonly frames: ExecRunnerFrame[] = [];
  readonly bytes: [number, Buffer][] = [];
  reads = true;
  isClosed = false;
  readonly #listeners = new Map<string, ((event: { data: unknown }) => void)[]>();
  readonly socket: ExecSocket = {
    binaryType: "",
    send: (data) => {
      const frame = readExecFrame("runner", typeof data === "string" ? data : data.slice().buffer);
      if ("fault" in frame) throw new Error(frame.fault);
      if (!("payload" in frame)) return void this.frames.push(frame as ExecRunnerFrame);
      this.bytes.push([frame.channel, Buffer.from(frame.payload)]);
      if (this.reads) this.say({ op: "ack", bytes: frame.payload.length });
    },
    close: () => {
      this.isClosed = true;
    },
    addEventListener: (type: string, listener: (event: { data: unknown }) => void) => {
      this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
      if (type === "open") queueMicrotask(() => listener({ data: null }));
    },
  };
  say(frame: ExecPersonFrame): void {
    this.happens("message", JSON.stringify(frame));
  }
  types(text: string): void {
    this.happens("message", execBytes(EXEC_CHANNELS.input, utf8(text)).buffer);
  }
  happens(type: string, data: unknown = null): void {
    for (const listener of this.#listeners.get(type) ?? []) listener({ data });
  }
  text(channel: number = EXEC_CHANNELS.output): string {
    return Buffer.concat(this.bytes.filter(([of]) => of === channel).map(([, bytes]) => bytes)).toString();
  }
  get last(): ExecRunnerFrame | undefined {
    return this.frames.at(-1);
  }
  over(): Promise<void> {
    return expect.poll(() => this.isClosed, { timeout: 15_000 }).toBe(true);
  }
}

const call: ExecCall = {
  exec: "0f3b1c1e-7a11-4c11-9b1f-3b0f6a2d9e10",
  deployment: "web",
  run: RUN,
  token: "t",
  argv: [],
  terminal: null,
  idleMs: 60_000,
  endsMs: 60_000,
};
type LeftRun = NonNullable<ReturnType<DeskDeps["findRun"]>>;
const leftRun = (spec: Partial<LeftRun["spec"]> = {}): LeftRun =>
  ({ run: RUN, attempt: 1, spec: { task: { kind: "shell", script: "true" }, ...spec } }) as LeftRun;

/** A person who calls, and the desk that answers. */
function visit(
  over: Partial<ExecCall> = {},
  deps: Partial<DeskDeps> = {},
): { person: Person; desk: ReturnType<typeof openDesk> } {
  const person = new Person();
  const config = runnerConfigSchema.parse({ url: "http://127.0.0.1:1", namespace: "me", state, allowExec: true });
  const desk = openDesk({
    config,
    folders: runnerFolders(config),
    machine: { isolation: "process-group", path: PATH, variables: {} } as DeskDeps["machine"],
    kept: {
      has: () => true,
      use: async () => ({ assignment: leftRun() }),
      release: () => {},
    } as unknown as DeskDeps["kept"],
    findRun: () => null,
    connect: () => person.socket,
    say: () => {},
    ...deps,
  });
  desk.called({ ...call, ...over });
  setTimeout(() => person.say({ op: "begin" }), 20);
  return { person, desk };
}

describe("a session in a kept workspace", () => {
  it("runs a command with what is typed, both streams apart, and ends with its exit code", async () => {
    const { person } = visit({ argv: ["sh", "-c", "pwd; cat; echo oops >&2; exit 3"] });
    await expect
      .poll(() => person.frames[0], { timeout: 10_000 })
      .toEqual({
        op: "started",
        terminal: false,
        isolation: "process-group",
        workspace: "kept",
      });
    person.types("hello\n");
    person.say({ op: "end-of-input" });
    await person.over();
    expect(person.text()).toBe(`${join(state, "workspaces", RUN, "checkout")}\nhello\n`);
    expect(person.text(EXEC_CHANNELS.error)).toBe("oops\n");
    expect(person.last).toEqual({ op: "exit", code: 3, detail: null });
    expect(person.frames).toContainEqual({ op: "ack", bytes: 6 });
  });

  it("is a login shell unless a command is named", async () => {
    const { person } = visit();
    await expect.poll(() => person.frames.length, { timeout: 10_000 }).toBe(1);
    person.types("echo $((20+3))\n");
    person.say({ op: "end-of-input" });
    await person.over();
    expect(person.text()).toBe("23\n");
  });

  it("waits for a person who does not read, with no more under way than the window", async () => {
    const { person } = visit({ argv: ["head", "-c", "2000000", "/dev/zero"] });
    person.reads = false;
    const bytesOf = (): number => person.bytes.reduce((sum, [, { length }]) => sum + length, 0);
    await expect.poll(bytesOf, { timeout: 10_000 }).toBeGreaterThan(LIMITS.execWindowBytes - LIMITS.execFrameBytes);
    expect(bytesOf()).toBeLessThanOrEqual(LIMITS.execWindowBytes);
    expect(person.isClosed).toBe(false);
    person.reads = true;
    for (const [, { length }] of person.bytes.slice()) person.say({ op: "ack", bytes: length });
    await person.over();
    expect(bytesOf()).toBe(2_000_000);
    expect(person.last).toMatchObject({ op: "exit", code: 0 });
  });

  it("ends once all of it was read, however late", async () => {
    const { person } = visit({ argv: ["echo", "to the last byte"] });
    person.reads = false;
    await expect.poll(() => person.text(), { timeout: 10_000 }).toBe("to the last byte\n");
    // The command has ended by now, and nobody has read.
    await pause(300);
    expect(person.last).toMatchObject({ op: "started" });
    person.say({ op: "ack", bytes: "to the last byte\n".length });
    await person.over();
    expect(person.last).toMatchObject({ op: "exit", code: 0 });
  });

  it("shows no secret of its run, which it is not given either", async () => {
    const { recipient } = (await openIdentity(join(state, "age.key"))) as { recipient: string };
    const about = { version: 1 as const, namespace: "me", workSha256: null, condition: { and: [] }, expiresAt: null };
    const sealed = await sealSecret(utf8("hunter2-is-long"), { ...about, name: "key" }, [recipient]);
    const secrets = [{ name: "key", box: sealed.ok ? sealed.value : "" }];
    const use = async (): Promise<unknown> => ({ assignment: leftRun({ secrets }) });
    const kept = { use, release: () => {} } as unknown as DeskDeps["kept"];
    const script = 'printf "it was hunter2-is-"; sleep 0.5; printf "long, in $PLUMULE_SECRETS\\n"';
    const { person } = visit({ argv: ["sh", "-c", script] }, { kept });
    await person.over();
    expect(person.text()).toBe("it was [redacted], in \n");
  });

  it.each([
    ["nothing is said", { idleMs: 300 }, "nothing was said for too long"],
    ["its time is over", { endsMs: 300 }, "its time was over"],
  ])("ends when %s", async (_, limits, detail) => {
    const { person } = visit({ argv: ["sleep", "300"], ...limits });
    await person.over();
    expect(person.last).toMatchObject({ op: "exit", detail });
  });

  it("ends with its run and with its runner", async () => {
    for (const [how, detail] of [
      ["ended", "the run has ended"],
      ["close", "the runner leaves"],
    ] as const) {
      const { person, desk } = visit({ argv: ["sleep", "300"] });
      await expect.poll(() => person.frames.length, { timeout: 10_000 }).toBe(1);
      if (how === "ended") desk.ended(RUN);
      else await desk.close();
      await person.over();
      expect(person.last).toMatchObject({ op: "exit", detail });
    }
  });
});

describe("nobody is let in", () => {
  const refusal = async (deps: Partial<DeskDeps>): Promise<string> => {
    const { person } = visit({}, deps);
    await person.over();
    expect(person.bytes).toEqual([]);
    return person.last?.op === "refused" ? person.last.detail : JSON.stringify(person.last);
  };

  it("by a runner whose owner did not allow it, whatever its broker says", async () => {
    const config = runnerConfigSchema.parse({ url: "http://127.0.0.1:1", namespace: "me", state });
    expect(await refusal({ config })).toContain("lets nobody in");
  });

  it("to a run whose secrets are open", async () => {
    const secrets = [{ name: "key" }];
    expect(await refusal({ findRun: () => leftRun({ secrets }) })).toContain("secrets of this run are open");
  });

  it("to a run that has no process, or no workspace any more", async () => {
    expect(await refusal({ findRun: () => leftRun() })).toContain("has no process");
    const kept = { use: async () => null, release: () => {} } as unknown as DeskDeps["kept"];
    expect(await refusal({ kept })).toContain("is not kept");
  });
});

describe.skipIf(!hasTerminals)("a terminal", () => {
  it("gets its arguments as they are, ends with the exit code, and learns its new size", async () => {
    const words = ["it's", "a $HOME", 'b"c', "*"];
    const script =
      'stty size; printf "%s|" "$@"; echo; until [ "$(stty size)" = "40 120" ]; do sleep 0.05; done; exit 5';
    let screen = "";
    const trackingId = `exec-test-${process.pid}`;
    const done = runProcess({
      argv: inTerminal(["sh", "-c", script, "sh", ...words], { rows: 10, columns: 33 }),
      cwd: state,
      env: { PATH },
      level: "process-group",
      merged: true,
      trackingId,
      stdin: (async function* () {
        yield await new Promise<Uint8Array>(() => {});
      })(),
      onOutput: (chunk) => (screen += Buffer.from(chunk).toString()),
      graceMs: 0,
      limits: { runMs: 20_000 },
    });
    await expect.poll(() => screen, { timeout: 10_000 }).toContain("*|");
    expect(screen).toBe(`10 33\r\n${words.join("|")}|\r\n`);
    await resizeTerminal(trackingId, { rows: 40, columns: 120 });
    expect(await done).toMatchObject({ reason: "exit", exitCode: 5 });
  });
});
