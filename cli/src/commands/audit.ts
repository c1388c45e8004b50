import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import {
  admitDidKey,
  type AuditEntry,
  auditEntrySchema,
  type AuditItem,
  type AuditVerdict,
  getAudit,
  LIMITS,
  verifyAudit,
} from "@plumule/protocol";
import { Command } from "commander";
import type { Answer, Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";
import { ageOf, fit, paint, shortId, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { readPinned } from "../trust-store.ts";

/** What a row is about gets so many places. */
const ABOUT_COLUMNS = 60;

/** `plumule audit`: who changed what in a namespace, in a log that cannot be changed behind one's back. */
export function auditCommand(): Command {
  const list = new Command("ls")
    .summary("print the audit log, oldest first; with --json as lines to keep and verify")
    .action(act(show));
  const verify = new Command("verify")
    .summary("check that the audit log, or a copy of it, was not changed")
    .description(
      "Checks the chain of rows, and the heads that the broker signed, under keys that you pinned (`plumule key trust`). Keep a copy (`plumule audit ls --json > audit.jsonl`) and verify it later beside the newest one: a broker that lost or changed a row cannot show both.",
    )
    .argument("[file]", "a copy of the log; by default the broker's own")
    .option("--trust <did>", "a key to believe this once; may be repeated", collect)
    .action(act(check));
  const audit = new Command("audit").summary("see and verify who changed what in the namespace");
  for (const command of [list, verify]) audit.addCommand(command);
  return audit;
}

async function show({ terminal, connect }: Context): Promise<ExitCode | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const items = await readItems(connection);
  if (isFailure(items)) return items;
  if (terminal.json) for (const item of items) terminal.data(item);
  else if (items.length === 0) terminal.note("nothing was changed in this namespace yet");
  else for (const line of auditTable(items, Date.now())) terminal.out(line);
  return EXIT.ok;
}

async function readItems(connection: Connection): Promise<AuditItem[] | Failure> {
  const items: AuditItem[] = [];
  let cursor: string | null | undefined;
  while (cursor !== null) {
    const query: { limit: number; cursor?: string } = { limit: LIMITS.listPage };
    if (cursor !== undefined) query.cursor = cursor;
    const answer: Answer<typeof getAudit> | Failure = await connection.ask(getAudit, {
      params: { ns: connection.ns },
      query,
    });
    if (isFailure(answer)) return answer;
    items.push(...answer.body.items);
    cursor = answer.body.nextCursor;
  }
  return items;
}

/** Rows as a table; a mark stands behind those that a head covers. */
export function auditTable(items: readonly AuditItem[], now: number): string[] {
  const rows = items.map((item) => {
    if ("head" in item) return ["", "", paint.quiet("signed by the broker up to here"), "", "", ""];
    const entry = readEntry(item.entry);
    if (entry === null) return ["", "", paint.bad("a row that cannot be read"), "", "", ""];
    const { sequence, at, action, target, actor, count, detail } = entry;
    const [kind = "", id = ""] = target.split("/", 2);
    const about = [count === undefined ? "" : `${count} times`, detail ?? ""].filter((text) => text !== "").join(", ");
    return [
      String(sequence),
      ageOf(at, now),
      paint.strong(inLine(action)),
      inLine(id === "" ? kind : `${kind}/${id.length > 36 ? shortId(id) : id}`),
      inLine(actor),
      fit(inLine(about), ABOUT_COLUMNS),
    ];
  });
  return tableLines(["ROW", "AGE", "ACTION", "WHAT", "WHO", "ABOUT"], rows);
}

function readEntry(text: string): AuditEntry | null {
  try {
    return auditEntrySchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

async function check(
  { terminal, cwd, env, globals, connect }: Context,
  file: string | undefined,
  flags: { trust?: string[] },
): Promise<ExitCode | Failure> {
  const keys = await pinnedKeys(env, flags.trust ?? []);
  if (isFailure(keys)) return keys;
  if (keys.length === 0)
    return misuse(
      "No key is pinned that could have signed it",
      "Pin the broker's, which GET /v1 names: plumule key trust.",
    );
  const copy =
    file === undefined ? await readLive(connect) : await readCopy(resolve(cwd, file), globals.namespace ?? null);
  if (isFailure(copy)) return copy;
  const verdict = await verifyAudit(copy.lines, { keys, namespace: copy.ns });
  if (terminal.json) terminal.data(verdict);
  else terminal.note(auditVerdictLine(verdict));
  return verdict.fault === null && verdict.signedThrough > 0 ? EXIT.ok : EXIT.unverified;
}

/** The last word of a verification. */
export function auditVerdictLine({ first, last, begins, signedThrough, fault }: AuditVerdict): string {
  if (fault !== null)
    return `${paint.bad("✗")} line ${fault.line}${fault.sequence === null ? "" : `, row ${fault.sequence}`}: ${inLine(fault.detail)}. Do not rely on this log`;
  if (signedThrough === 0)
    return `${paint.care("!")} rows ${first} to ${last} fit together, but none of your keys has signed them yet: whoever holds the log can have made it anew`;
  const from =
    begins === "start"
      ? "from the first row"
      : begins === "checkpoint"
        ? "from a signed row on"
        : "from a row that nobody has signed";
  const rest = last > signedThrough ? `; rows ${signedThrough + 1} to ${last} are not signed yet` : "";
  return `${paint.good("✓")} rows ${first} to ${signedThrough} are as they were signed, ${from}${rest}`;
}

async function pinnedKeys(env: Context["env"], given: readonly string[]): Promise<Uint8Array[] | Failure> {
  const kept = await readPinned(env);
  if (isFailure(kept)) return kept;
  const keys: Uint8Array[] = [];
  for (const key of [...given, ...kept.map((pinned) => pinned.key)]) {
    const admitted = admitDidKey(key);
    if (!admitted.ok)
      return misuse(`${key} cannot be trusted: ${admitted.detail}`, "Give the did:key of an Ed25519 key.");
    keys.push(admitted.value);
  }
  return keys;
}

async function readLive(connect: Context["connect"]): Promise<{ lines: string[]; ns: string } | Failure> {
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const items = await readItems(connection);
  return isFailure(items) ? items : { lines: items.map((item) => JSON.stringify(item)), ns: connection.ns };
}

async function readCopy(path: string, ns: string | null): Promise<{ lines: string[]; ns: string | null } | Failure> {
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null)
    return misuse(`${path} cannot be read`, "Make a copy first: plumule audit ls --json > audit.jsonl.");
  return { lines: text.split("\n").filter((line) => line !== ""), ns };
}
