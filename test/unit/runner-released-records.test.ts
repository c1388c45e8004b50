import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openJournal } from "../../runner/src/journal.ts";
import { journalRecordSchema, recordReader, spoolRecordSchema } from "../../runner/src/records.ts";
import { openSpool } from "../../runner/src/spool.ts";

const storage = join(import.meta.dirname, "../fixtures/storage");
const QUOTA_BYTES = 1024 * 1024;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-records-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The files of a folder, by the key of their record. */
function recordsIn(path: string): Map<string, unknown> {
  return new Map(
    readdirSync(path).map((file) => [
      file.replace(".json", ""),
      JSON.parse(readFileSync(join(path, file), "utf8")) as unknown,
    ]),
  );
}

describe.each(readdirSync(storage))("what a runner of %s has left on its disk", (release) => {
  beforeEach(() => cpSync(join(storage, release, "runner"), folder, { recursive: true }));

  it("is read whole: keys that were asked under, runs that were given and begun, results that wait", async () => {
    const journal = await openJournal(join(folder, "journal"), recordReader(journalRecordSchema));
    const kept = recordsIn(join(storage, release, "runner/journal"));
    expect(journal.setAside).toEqual([]);
    expect([...journal.list().keys()].toSorted()).toEqual([...kept.keys()].toSorted());
    for (const [key, record] of journal.list()) expect(record).toMatchObject(kept.get(key) as object);
    const states = [...kept.values()].map((record) => (record as { state?: string }).state ?? "poll");
    expect(new Set(states)).toEqual(new Set(["poll", "assigned", "running"]));

    const spool = await openSpool(join(folder, "spool"), recordReader(spoolRecordSchema), QUOTA_BYTES);
    const results = recordsIn(join(storage, release, "runner/spool"));
    expect(spool.setAside).toEqual([]);
    expect(spool.pending().map(({ runId }) => runId)).toEqual([...results.keys()]);
    for (const { runId, record } of spool.pending())
      expect({ record }).toMatchObject({ record: (results.get(runId) as { record: object }).record });
  });

  it("stays, set aside and named, where a later runner has written what this one cannot read", async () => {
    const [name = ""] = readdirSync(join(folder, "spool"));
    const record = JSON.parse(readFileSync(join(folder, "spool", name), "utf8")) as { record: { result: object } };
    Object.assign(record.record.result, { laterField: true });
    writeFileSync(join(folder, "spool", name), JSON.stringify(record));
    const spool = await openSpool(join(folder, "spool"), recordReader(spoolRecordSchema), QUOTA_BYTES);
    expect(spool.pending()).toEqual([]);
    expect(spool.setAside).toEqual([join(folder, "spool", `${name}.corrupt`)]);
    expect(JSON.parse(readFileSync(spool.setAside[0] ?? "", "utf8"))).toEqual(record);
  });
});
