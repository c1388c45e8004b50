import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { openJournal } from "../../runner/src/journal.ts";
import { openLogFile } from "../../runner/src/log-file.ts";
import { openSpool } from "../../runner/src/spool.ts";
import { createLineWriter } from "../../runner/src/supervisor/files.ts";

const root = mkdtempSync(join(tmpdir(), "plumule-storage-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
/** Whether a small file system can be mounted here, as a user of its own. */
const canMount = spawnSync("unshare", ["-rm", "mount", "-t", "tmpfs", "none", root]).status === 0;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
});

interface Note {
  text: string;
}

function parseNote(value: unknown): Note | null {
  const isNote = typeof value === "object" && value !== null && "text" in value && typeof value.text === "string";
  return isNote ? { text: value.text as string } : null;
}

describe("the journal", () => {
  test("gives back after a restart what was put and not removed", async () => {
    const journal = await openJournal(join(folder, "runs"), parseNote);
    await Promise.all([
      journal.put("a", { text: "1" }),
      journal.put("b", { text: "2" }),
      journal.put("a", { text: "3" }),
    ]);
    await journal.put("c", { text: "4" });
    await journal.remove("b");
    await journal.remove("never-there");
    const expected = new Map(Object.entries({ a: { text: "3" }, c: { text: "4" } }));
    expect(journal.list()).toEqual(expected);
    const again = await openJournal(join(folder, "runs"), parseNote);
    expect(again.list()).toEqual(expected);
    expect(again.get("a")).toEqual({ text: "3" });
    expect(statSync(join(folder, "runs/a.json")).mode & 0o777).toBe(0o600);
  });

  test("keeps a record as it was when it was put", async () => {
    const journal = await openJournal(folder, parseNote);
    const note = { text: "then" };
    const written = journal.put("a", note);
    note.text = "now";
    await written;
    expect(journal.get("a")).toEqual({ text: "then" });
    expect((await openJournal(folder, parseNote)).get("a")).toEqual({ text: "then" });
  });

  test("sets damaged files aside, drops unfinished ones and goes on", async () => {
    const journal = await openJournal(folder, parseNote);
    for (const key of ["whole", "cut", "empty", "other"]) await journal.put(key, { text: key });
    truncateSync(join(folder, "cut.json"), 5);
    truncateSync(join(folder, "empty.json"), 0);
    writeFileSync(join(folder, "other.json"), `{"text": 7}`);
    writeFileSync(join(folder, "whole.json.unfinished"), `{"te`);
    const again = await openJournal(folder, parseNote);
    expect([...again.list().keys()]).toEqual(["whole"]);
    expect(again.setAside).toEqual(["cut", "empty", "other"].map((name) => join(folder, `${name}.json.corrupt`)));
    expect(readdirSync(folder).toSorted()).toEqual([
      "cut.json.corrupt",
      "empty.json.corrupt",
      "other.json.corrupt",
      "whole.json",
    ]);
    expect((await openJournal(folder, parseNote)).setAside).toEqual([]);
  });

  test("keeps the earlier record, and works on, when the disk refuses a write", async () => {
    const journal = await openJournal(join(folder, "runs"), parseNote);
    await journal.put("a", { text: "1" });
    rmSync(join(folder, "runs"), { recursive: true });
    await expect(journal.put("a", { text: "2" })).rejects.toThrow("ENOENT");
    expect(journal.get("a")).toEqual({ text: "1" });
  });

  test.each(["", ".", "..", "a/b", "-x", ".hidden", "a".repeat(129), "a\0"])("refuses the key %j", async (key) => {
    const journal = await openJournal(folder, parseNote);
    await expect(journal.put(key, { text: "" })).rejects.toThrow(RangeError);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("the spool", () => {
  test("keeps the order of results through restarts and replacements", async () => {
    const spool = await openSpool(folder, parseNote, 10_000);
    for (const run of ["z", "a", "m"]) expect(await spool.put(run, { text: run })).toEqual({ ok: true });
    await spool.put("z", { text: "z again" });
    await spool.remove("a");
    const again = await openSpool(folder, parseNote, 10_000);
    await again.put("b", { text: "b" });
    const pending = ["z again", "m", "b"].map((text) => ({ runId: text.slice(0, 1), record: { text } }));
    expect(again.pending()).toEqual(pending);
    expect((await openSpool(folder, parseNote, 10_000)).pending()).toEqual(pending);
  });

  test("refuses what does not fit into its quota, and has room again when results are delivered", async () => {
    const spool = await openSpool(folder, parseNote, 300);
    const text = "x".repeat(100);
    const answers = await Promise.all(["a", "b", "c"].map((run) => spool.put(run, { text })));
    expect(answers.map((answer) => answer.ok)).toEqual([true, true, false]);
    expect(answers[2]).toMatchObject({ reason: "full" });
    expect(spool.freeBytes()).toBeLessThan(100);
    expect(await spool.put("a", { text: "smaller" })).toEqual({ ok: true });
    await spool.remove("b");
    expect(await spool.put("c", { text })).toEqual({ ok: true });
    expect((await openSpool(folder, parseNote, 300)).freeBytes()).toBe(spool.freeBytes());
  });

  test("says so when the disk refuses a result", async () => {
    const spool = await openSpool(join(folder, "spool"), parseNote, 300);
    rmSync(join(folder, "spool"), { recursive: true });
    expect(await spool.put("a", { text: "" })).toMatchObject({ ok: false, reason: "disk" });
    expect(spool.freeBytes()).toBe(300);
    expect(spool.pending()).toEqual([]);
  });
});

test("lines that a full disk cut off stand alone, and the next is whole", () => {
  const path = join(folder, "events.jsonl");
  const write = createLineWriter(path);
  write("one");
  renameSync(folder, `${folder}-away`);
  expect(() => write("two")).toThrow("ENOENT");
  renameSync(`${folder}-away`, folder);
  appendFileSync(path, "tw");
  write("two");
  write("three");
  expect(readFileSync(path, "utf8")).toBe("one\ntw\ntwo\nthree\n");
});

describe("a log file", () => {
  const LIMITS = { limitBytes: 1_000, tailBytes: 100 };
  const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

  test("serves by offset what was appended and seals it with length and hash", async () => {
    const path = join(folder, "deep/run.log");
    const log = await openLogFile(path, LIMITS);
    log.append(Buffer.from("hello "));
    log.append(Buffer.from("world\n"));
    expect(Buffer.from(await log.read(6, 3)).toString()).toBe("wor");
    expect(Buffer.from(await log.read(9, 1_000)).toString()).toBe("ld\n");
    expect(await log.read(12, 10)).toHaveLength(0);
    const sealed = log.seal();
    expect(sealed).toEqual({ bytes: 12, sha256: sha256(Buffer.from("hello world\n")), omittedBytes: 0 });
    expect(log.seal()).toBe(sealed);
    expect(() => log.append(Buffer.from("late"))).toThrow("sealed");
  });

  test("goes on after a restart with the same bytes and the same hash", async () => {
    const path = join(folder, "run.log");
    (await openLogFile(path, LIMITS)).append(Buffer.from("before\n"));
    const log = await openLogFile(path, LIMITS);
    expect(log.size()).toBe(7);
    log.append(Buffer.from("after\n"));
    expect(log.seal()).toEqual({ bytes: 13, sha256: sha256(Buffer.from("before\nafter\n")), omittedBytes: 0 });
  });

  test.skipIf(!canMount)("is sealed where it was when a full disk has room again", () => {
    const script = `
      import { rmSync, writeFileSync, readFileSync } from "node:fs";
      import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
      import { openLogFile } from ${JSON.stringify(join(import.meta.dirname, "../../runner/src/log-file.ts"))};
      const log = await openLogFile("full/log", { limitBytes: 200_000, tailBytes: 100_000 });
      for (let line = 0; line < 40_000; line += 1) log.append(Buffer.from("line " + line + "\\n"));
      try { writeFileSync("full/filler", Buffer.alloc(1_000_000)); } catch {}
      let refused = "";
      try { log.seal(); } catch (error) { refused = error.code; }
      const before = log.size();
      rmSync("full/filler");
      const sealed = log.seal();
      const bytes = readFileSync("full/log");
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      console.log(JSON.stringify({ refused, before, sealed, bytes: bytes.length, sha256, end: bytes.subarray(-11).toString() }));`;
    const mount = `mkdir full && mount -t tmpfs -o size=256k none full && exec "$@"`;
    const node = [process.execPath, "--disable-warning=ExperimentalWarning", "--input-type=module", "-e", script];
    const done = spawnSync("unshare", ["-rm", "sh", "-ec", mount, "sh", ...node], { cwd: folder, encoding: "utf8" });
    const { refused, before, sealed, end, ...read } = JSON.parse(done.stdout) as Record<string, never>;
    expect(refused, done.stderr).toBe("ENOSPC");
    expect(before).toBeLessThan(read["bytes"] as never);
    expect(sealed).toMatchObject(read);
    expect(end).toBe("line 39999\n");
  });

  test("keeps head and tail of a log that is too long, and says between them what is missing", async () => {
    for (const step of [1, 7, 50, 400, 5_000]) {
      const path = join(folder, `run-${step}.log`);
      const log = await openLogFile(path, LIMITS);
      const output = Buffer.from(Array.from({ length: 1_000 }, (_, index) => `line ${index}\n`).join(""));
      const seen: Buffer[] = [];
      for (let at = 0; at < output.length; at += step) {
        log.append(output.subarray(at, at + step));
        // What a reader got once is never taken back.
        if (at % (step * 40) === 0) seen.push(Buffer.from(await log.read(0, 2_000)));
      }
      const sealed = log.seal();
      const content = readFileSync(path);
      expect(sealed).toMatchObject({ bytes: content.length, sha256: sha256(content) });
      expect(content.length).toBeLessThanOrEqual(LIMITS.limitBytes);
      for (const early of seen) expect(content.subarray(0, early.length)).toEqual(early);
      const text = content.toString();
      expect(text.startsWith(output.subarray(0, 388).toString())).toBe(true);
      expect(text.slice(388)).toMatch(
        /^\n\[plumule\] the log is longer than 1000 bytes; .*\n\[plumule\] \d+ bytes were left out here\nline \d+\n(.*\n)*line 999\n$/,
      );
      const tail = text.slice(text.indexOf("left out here\n") + 14);
      expect(tail.length).toBeLessThanOrEqual(100);
      expect(tail.length).toBeGreaterThan(80);
      expect(sealed.omittedBytes).toBe(output.length - 388 - tail.length);
    }
  });

  test("stays within its limit when it is opened again beyond its head", async () => {
    const path = join(folder, "run.log");
    (await openLogFile(path, LIMITS)).append(Buffer.alloc(2_000, "a"));
    const log = await openLogFile(path, LIMITS);
    const before = log.size();
    log.append(Buffer.from("b".repeat(500)));
    expect(log.size()).toBe(before);
    expect(log.seal().bytes).toBeLessThanOrEqual(LIMITS.limitBytes);
  });

  test("keeps its own copy of the tail, since a reader's buffer is used again", async () => {
    const path = join(folder, "run.log");
    const log = await openLogFile(path, LIMITS);
    log.append(Buffer.alloc(1_000, "a"));
    const buffer = Buffer.from("\nthe last line\n");
    log.append(buffer);
    buffer.fill("x");
    log.seal();
    expect(readFileSync(path, "utf8").endsWith("\nthe last line\n")).toBe(true);
  });

  test("refuses limits that leave no room for a head", async () => {
    await expect(openLogFile(join(folder, "x"), { limitBytes: 100, tailBytes: 90 })).rejects.toThrow(RangeError);
  });
});
