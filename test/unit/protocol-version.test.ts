import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { PROTOCOL_VERSION, PROTOCOL_VERSION_FLOOR } from "../../protocol/src/version.ts";
import { messageSchemas, wireDigest } from "../support/wire.ts";

const fixtures = join(import.meta.dirname, "../../protocol/fixtures");
const versions = readdirSync(fixtures).toSorted();
const folder = join(fixtures, `v${PROTOCOL_VERSION}`);
const schemas = messageSchemas();

const HOW = `The wire has changed. If version ${PROTOCOL_VERSION} is published, an old peer may not understand it:
  1. raise PROTOCOL_VERSION in protocol/src/version.ts, with a line of history, and PROTOCOL_VERSION_FLOOR to one less;
  2. run node scripts/protocol-fixtures.mjs and copy the messages of the old version into the new folder;
  3. commit both. The old folder stays: its messages must keep parsing.
If version ${PROTOCOL_VERSION} is not published yet, only run node scripts/protocol-fixtures.mjs.`;

it("has the wire that was recorded for this protocol version", () => {
  expect(existsSync(folder), HOW).toBe(true);
  const recorded = readFileSync(join(folder, "schema.sha256"), "utf8").split("\n");
  const actual = wireDigest().split("\n");
  const changed = [
    ...actual.filter((line) => !recorded.includes(line)),
    ...recorded.filter((line) => !actual.includes(line)),
  ];
  expect([...new Set(changed.map((line) => line.slice(66)))], HOW).toEqual([]);
});

it("serves the version before its own, and no older one", () => {
  expect(PROTOCOL_VERSION_FLOOR).toBe(Math.max(1, PROTOCOL_VERSION - 1));
});

it("has a recorded message for every message of this version, and no other", () => {
  const recorded = readdirSync(folder).filter((file) => file.endsWith(".json"));
  expect(recorded.toSorted()).toEqual(
    Object.keys(schemas)
      .map((name) => `${name}.json`)
      .toSorted(),
  );
});

it.each(
  versions.flatMap((version) =>
    readdirSync(join(fixtures, version))
      .filter((file) => file.endsWith(".json"))
      .map((file) => ({ version, name: file.slice(0, -".json".length) })),
  ),
)("still reads $name of $version, and keeps all of it", ({ version, name }) => {
  const message: unknown = JSON.parse(readFileSync(join(fixtures, version, `${name}.json`), "utf8"));
  const schema = schemas[name];
  expect(schema, `${name} is not a message any more, but peers of ${version} send it`).toBeDefined();
  expect(schema?.parse(message)).toEqual(message);
});
