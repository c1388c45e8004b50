// Writes down what the wire of this protocol version looks like, for the test that a change of it is meant.
// `--check` compares instead of writing. Once a version is published, a change needs the next version first.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROTOCOL_VERSION } from "../protocol/src/version.ts";
import { wireDigest } from "../test/support/wire.ts";
import { root } from "./child-process.mjs";

const folder = join(root, `protocol/fixtures/v${PROTOCOL_VERSION}`);
const file = join(folder, "schema.sha256");

if (!process.argv.includes("--check")) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, wireDigest());
} else if (readFileSync(file, "utf8") !== wireDigest()) {
  console.error(`plumule: ${file} is not what the schemas say; run node scripts/protocol-fixtures.mjs`);
  process.exitCode = 1;
}
