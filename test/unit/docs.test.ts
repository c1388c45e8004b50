import { execFileSync } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { signEnvelope, STATEMENT_PAYLOAD_TYPE, utf8 } from "@plumule/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readRepositorySteps } from "../../runner/src/task-file.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const documents = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];
const textOf = (document: string): string => readFileSync(join(root, document), "utf8");
/** The code blocks of a document, by language. */
const blocks = (document: string, language: string): string[] =>
  [...textOf(document).matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, "g"))].map(([, block]) => block ?? "");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "plumule-docs-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe.each(documents)("%s", (document) => {
  it("links only to what is there", () => {
    const links = [...textOf(document).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .map(([, link]) => link ?? "")
      .filter((link) => !/^[a-z]+:/.test(link));
    expect(links.filter((link) => !existsSync(join(root, dirname(document), link)))).toEqual([]);
  });
});

it("names tests of the promises that are there", () => {
  const named = [...textOf("ARCHITECTURE.md").matchAll(/`((?:unit|workers|e2e)\/[a-z-]+)`/g)].map(
    ([, name]) => `test/${name}.test.ts`,
  );
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((file) => !existsSync(join(root, file)))).toEqual([]);
});

it("shows a task file that the runner reads as described", async () => {
  const [example = ""] = blocks("docs/runner.md", "yaml");
  execFileSync("mkdir", [join(folder, ".radicle")]);
  writeFileSync(join(folder, ".radicle/plumule.yaml"), example);
  expect(await readRepositorySteps(folder, undefined)).toMatchObject({
    found: ".radicle/plumule.yaml",
    steps: [
      { name: "lint", task: { kind: "shell", develop: "." } },
      { name: "build", task: { installables: [".#default", ".#docs"] } },
    ],
  });
});

it("verifies an envelope with openssl alone, by the commands of the document", async () => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ type: "spki", format: "der" }).subarray(-32);
  const envelope = await signEnvelope(STATEMENT_PAYLOAD_TYPE, utf8('{"_type":"https://in-toto.io/Statement/v1"}'), {
    publicKey: raw,
    sign: async (bytes) => sign(null, bytes, privateKey),
  });
  writeFileSync(join(folder, "runner.pub.pem"), publicKey.export({ type: "spki", format: "pem" }));
  const [, commands = ""] = blocks("docs/verify.md", "sh");
  const offline = commands
    .split("\n")
    .filter((line) => !line.startsWith("curl"))
    .join("\n");
  const run = (): string =>
    execFileSync("bash", ["-euo", "pipefail", "-c", offline], { cwd: folder, encoding: "utf8" });
  writeFileSync(join(folder, "envelope.json"), JSON.stringify(envelope));
  expect(run()).toContain("Signature Verified Successfully");
  writeFileSync(
    join(folder, "envelope.json"),
    JSON.stringify({ ...envelope, payload: Buffer.from("{}").toString("base64") }),
  );
  expect(run).toThrow();
});
