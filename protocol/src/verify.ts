import { sha256Hex } from "./bytes.ts";
import { type Claims, readStatement, type SignedClaims } from "./claims.ts";
import { didKeyOf, parseDidKey } from "./did-key.ts";
import { ENVELOPE_STEPS, envelopeSchema, openEnvelope } from "./dsse.ts";
import { jobIdentity } from "./job-identity.ts";
import { describeOutputs, type OutputContent } from "./job-result.ts";
import { admitKey } from "./key-admission.ts";
import { STATEMENT_PAYLOAD_TYPE, type Statement } from "./statements.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** Everything that is looked at, in this order. The first seven and `times` always, `identity` where there was no lease; the others only where something is expected. */
export const CHECK_NAMES = [
  "key-admission",
  "encoding",
  "signature",
  "payload-type",
  "payload",
  "statement",
  "predicate-type",
  "runner",
  "times",
  "namespace",
  "deployment",
  "job",
  "run",
  "epoch",
  "identity",
  "subject",
  "task",
  "log",
  "outputs",
] as const;
export type CheckName = (typeof CHECK_NAMES)[number];

/** One thing that was checked, with both values where it compares, for people and for pages. */
export type Check = { name: CheckName; ok: boolean; expected?: string; actual?: string; detail: string };

/** What the reader knows from elsewhere. A field that is left out is not checked. `commit: null` expects a statement about no commit. */
export type Expected = {
  namespace?: string | undefined;
  deployment?: string | undefined;
  job?: string | undefined;
  run?: string | undefined;
  /** 0: a run without a lease. */
  epoch?: number | undefined;
  identity?: string | undefined;
  commit?: string | null | undefined;
  taskSha256?: string | undefined;
  logSha256?: string | undefined;
  logBytes?: number | undefined;
  outputs?: readonly OutputContent[] | undefined;
};

/** The checks in the order of `CHECK_NAMES`. */
type Checked = { checks: readonly Check[] };

/**
 * What came of it. When the statement could not be read, `checks` ends at the step that failed: nothing unverified is shown as a value.
 * A statement that verifies but is not what was expected is there to be shown, with `ok: false`.
 */
export type Verification = Checked &
  (({ ok: true; statement: Statement } & SignedClaims) | { ok: false; statement?: Statement; claims?: Claims });

/**
 * Verifies one envelope against keys that the reader chose (raw, or did:key), and what it says against what the reader expects.
 * Pure but for WebCrypto; asks nobody. The page, the command line and the broker use this same function.
 */
export async function verifyStatement(
  envelope: unknown,
  { signers, expected = {} }: { signers: readonly (Uint8Array | string)[]; expected?: Expected },
): Promise<Verification> {
  const admission = admitSigners(signers);
  if (!admission.check.ok) return { ok: false, checks: [admission.check] };
  const opened = await openEnvelope(envelope, { keys: admission.keys, payloadTypes: [STATEMENT_PAYLOAD_TYPE] });
  if (!opened.ok) {
    const before = ENVELOPE_STEPS.slice(0, ENVELOPE_STEPS.indexOf(opened.code)).map((name) => passed(name));
    return { ok: false, checks: [admission.check, ...before, failed(opened.code, opened.detail)] };
  }
  const signedBy = opened.value.signers.map(didKeyOf);
  const steps = [
    admission.check,
    passed("encoding"),
    passed("signature", `signed by ${signedBy.join(", ")}`),
    passed("payload-type", opened.value.payloadType),
    passed("payload"),
  ];
  const read = readStatement(opened.value.value);
  if (!read.ok) {
    const before = read.code === "predicate-type" ? [passed("statement")] : [];
    return { ok: false, checks: [...steps, ...before, failed(read.code, read.detail)] };
  }
  const { statement, claims } = read.value;
  const checks = [
    ...steps,
    passed("statement"),
    passed("predicate-type", statement.predicateType),
    checkRunner(claims, signedBy, namedIn(envelope)),
    ...(await checkClaims(claims, expected)),
  ];
  const seen = { checks, statement, claims };
  if (!checks.every((check) => check.ok)) return { ok: false, ...seen };
  return { ok: true, ...seen, signer: claims.runner, sha256: await sha256Hex(opened.value.payload) };
}

function failed(name: CheckName, detail: string): Check {
  return { name, ok: false, detail };
}

function passed(name: CheckName, detail = "in order"): Check {
  return { name, ok: true, detail };
}

/** One key that cannot be trusted spoils the list: under such a key anything may verify, and its owner should know. */
function admitSigners(signers: readonly (Uint8Array | string)[]): { check: Check; keys: Uint8Array[] } {
  const name = "key-admission";
  const keys: Uint8Array[] = [];
  if (signers.length === 0 || signers.length > TRUST_LIMITS.keys) {
    return {
      check: {
        name,
        ok: false,
        detail: `1 to ${TRUST_LIMITS.keys} trusted keys are needed, ${signers.length} were given`,
      },
      keys,
    };
  }
  for (const signer of signers) {
    const parsed = typeof signer === "string" ? parseDidKey(signer) : ({ ok: true, value: signer } as const);
    const admitted = parsed.ok ? admitKey(parsed.value) : parsed;
    if (!admitted.ok)
      return {
        check: { name, ok: false, ...(typeof signer === "string" ? { actual: signer } : {}), detail: admitted.detail },
        keys,
      };
    keys.push(admitted.value);
  }
  return { check: passed(name, `${keys.length} trusted key(s)`), keys };
}

/**
 * A runner speaks for itself only: another trusted key that signs in its name is refused. A `keyid` is a hint that nothing relies on, but one that
 * names somebody who did not sign misleads whoever reads the envelope, and was changed after it was made.
 */
function checkRunner({ runner }: Claims, signedBy: readonly string[], named: readonly string[]): Check {
  const stranger = named.find((keyid) => !signedBy.includes(keyid));
  if (stranger !== undefined) return compare("runner", signedBy.join(", "), stranger, "the keyid names who signed it");
  const signer = signedBy.includes(runner) ? runner : signedBy.join(", ");
  return compare("runner", signer, runner, "the runner named inside signed it");
}

/** The key ids of an envelope that was opened already; an empty one equals a missing one (DSSE, envelope.md). */
function namedIn(envelope: unknown): string[] {
  return envelopeSchema.parse(envelope).signatures.flatMap(({ keyid = "" }) => (keyid === "" ? [] : [keyid]));
}

async function checkClaims(claims: Claims, expected: Expected): Promise<Check[]> {
  const checks = [checkTimes(claims)];
  const { commit, outputs } = expected;
  for (const name of ["namespace", "deployment", "job", "run", "epoch"] as const) {
    if (expected[name] !== undefined) checks.push(compare(name, String(expected[name]), String(claims[name])));
  }
  if (claims.identity !== undefined || expected.identity !== undefined)
    checks.push(await checkIdentity(claims, expected));
  if (commit !== undefined)
    checks.push(compare("subject", commit ?? "no commit", claims.commit ?? "no commit", "the commit it is about"));
  if (expected.taskSha256 !== undefined)
    checks.push(compare("task", expected.taskSha256, claims.taskSha256 ?? "not stated"));
  if (expected.logSha256 !== undefined || expected.logBytes !== undefined) checks.push(checkLog(claims, expected));
  if (outputs !== undefined) checks.push(compare("outputs", describeOutputs(outputs), describeOutputs(claims.outputs)));
  return checks;
}

function compare(name: CheckName, expected: string, actual: string, what = `the ${name} it is about`): Check {
  const ok = expected === actual;
  return { name, ok, expected, actual, detail: ok ? what : `not as expected: ${what}` };
}

function checkTimes({ startedAt, finishedAt }: Claims): Check {
  const ok = Date.parse(startedAt) <= Date.parse(finishedAt);
  return {
    name: "times",
    ok,
    actual: `${startedAt} to ${finishedAt}`,
    detail: ok ? "started before it finished" : "finished before it started",
  };
}

/** What a run without a lease is bound to: the work itself, which the statement names, and no other. */
async function checkIdentity(claims: Claims, expected: Expected): Promise<Check> {
  const { identity, repository, commit, taskSha256, configurationSha256 } = claims;
  const ofWork =
    repository === null || commit === null || taskSha256 === null
      ? "that of no work: the statement names no repository, commit or task"
      : await jobIdentity({ repository, commit, taskSha256, configurationSha256 });
  const what = "a run without a lease, of this repository, commit, task and configuration";
  if (identity !== undefined && identity !== ofWork) return compare("identity", ofWork, identity, what);
  return compare("identity", expected.identity ?? ofWork, identity ?? "not stated", what);
}

function checkLog({ log }: Claims, { logSha256 = log.sha256, logBytes = log.bytes }: Expected): Check {
  const describe = (sha256: string, bytes: number): string => `sha256:${sha256}, ${bytes} bytes`;
  return compare("log", describe(logSha256, logBytes), describe(log.sha256, log.bytes), "the log that the runner saw");
}
