import {
  type Check,
  type Claims,
  type Expected,
  parseBase64,
  parseUtf8,
  type Verification,
  verifyStatement,
} from "@plumule/protocol";
import type { PinnedKey } from "./trust-store.ts";
import { paint, paintState, shortId, sizeOf } from "./print.ts";
import { inLine } from "./terminal-text.ts";

/** One statement, looked at. `pinned` is the reader's entry for the key that it says it is signed by; null when there is none. */
export type Examined = { signer: string | null; pinned: PinnedKey | null; verification: Verification };

/** `verified`: every check holds, under keys that the reader pinned. `unpinned`: valid signatures of keys that nobody vouches for. */
export type Outcome = "verified" | "unpinned" | "failed";

/** What a statement says of itself before anything is verified: only to know which key and which run to check it against. */
export function readUnverified(envelope: unknown): { signer: string | null; run: string | null } {
  const payload = fieldOf(envelope, "payload");
  const bytes = typeof payload === "string" ? parseBase64(payload) : null;
  let statement: unknown = null;
  try {
    statement = JSON.parse((bytes === null ? null : parseUtf8(bytes)) ?? "null");
  } catch {
    // The verification will say so.
  }
  const predicate = fieldOf(statement, "predicate");
  const builder = fieldOf(fieldOf(fieldOf(predicate, "runDetails"), "builder"), "id");
  const signer =
    fieldOf(fieldOf(predicate, "runner"), "did") ?? (typeof builder === "string" ? builder.split("#", 1)[0] : null);
  const run =
    fieldOf(predicate, "run") ?? fieldOf(fieldOf(fieldOf(predicate, "buildDefinition"), "internalParameters"), "run");
  return { signer: typeof signer === "string" ? signer : null, run: typeof run === "string" ? run : null };
}

/** Nobody can be asked about a text that names no signer. */
const UNREADABLE: Verification = {
  ok: false,
  checks: [{ name: "encoding", ok: false, detail: "no statement that names its signer can be read in it" }],
};

/** Verifies a statement under the key that it names, and says whether the reader pinned that key. */
export async function examine(envelope: unknown, pinned: readonly PinnedKey[], expected: Expected): Promise<Examined> {
  const { signer } = readUnverified(envelope);
  if (signer === null) return { signer, pinned: null, verification: UNREADABLE };
  const verification = await verifyStatement(envelope, { signers: [signer], expected });
  return { signer, pinned: pinned.find(({ key }) => key === signer) ?? null, verification };
}

/** What came of all statements together. No statement at all is a failure: there is nothing to believe. */
export function outcomeOf(examined: readonly Examined[]): Outcome {
  if (examined.length === 0 || !examined.every(({ verification }) => verification.ok)) return "failed";
  return examined.every(({ pinned }) => pinned !== null) ? "verified" : "unpinned";
}

/** A statement as lines: what it says, who signed it, and each check with its values. Nothing is green under a key that is not pinned. */
export function examinedLines({ signer, pinned, verification }: Examined): string[] {
  const { checks, claims } = verification;
  const by =
    signer === null
      ? "nobody"
      : pinned === null
        ? `${signer} (not pinned)`
        : `${signer} (${inLine(pinned.name ?? "pinned")})`;
  const head = claims === undefined ? paint.bad("a statement that cannot be read") : claimsText(claims);
  const longest = Math.max(...checks.map(({ name }) => name.length));
  return [
    `${head}  ${paint.quiet(`by ${inLine(by)}`)}`,
    ...checks.map((check) => checkLine(check, longest, pinned !== null)),
  ];
}

function checkLine({ name, ok, expected, actual, detail }: Check, longest: number, pinned: boolean): string {
  // Whether a key is sound is one question, whether the reader knows it another; here the reader's one is answered.
  if (name === "key-admission" && ok)
    return pinned
      ? `  ${paint.good("✓")} ${name.padEnd(longest)}  a sound key that you pinned`
      : `  ${paint.care("!")} ${name.padEnd(longest)}  a sound key, but not one that you pinned`;
  const values = [
    actual === undefined ? "" : inLine(actual),
    ok || expected === undefined ? "" : paint.bad(`expected ${inLine(expected)}`),
  ];
  const mark = ok ? (pinned ? paint.good("✓") : paint.quiet("•")) : paint.bad("✗");
  const shown = values.filter((value) => value !== "").join("  ");
  return `  ${mark} ${name.padEnd(longest)}  ${shown === "" ? inLine(detail) : ok ? shown : `${inLine(detail)}: ${shown}`}`;
}

function claimsText({ predicateType, result, job, deployment, log, outputs, plan }: Claims): string {
  const kind = predicateType.includes("slsa") ? "provenance" : "job result";
  const made = outputs.length === 0 ? "" : `, ${outputs.length} ${outputs.length === 1 ? "output" : "outputs"}`;
  const planned = plan === undefined ? "" : `, plan ${plan.slice(0, 12)}`;
  const state = result === "refused" ? paint.bad("refused") : paintState(result);
  return `${paint.strong(kind)}  ${shortId(job)} in ${inLine(deployment)} ${state}, log ${sizeOf(log.bytes)}${made}${planned}`;
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
