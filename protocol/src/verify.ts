import { sha256Hex } from "./bytes.ts";
import { type Claims, readStatement } from "./claims.ts";
import { didKeyOf, parseDidKey } from "./did-key.ts";
import { ENVELOPE_STEPS, openEnvelope } from "./dsse.ts";
import { describeOutputs, type OutputContent } from "./job-result.ts";
import { admitKey } from "./key-admission.ts";
import { STATEMENT_PAYLOAD_TYPE, type Statement } from "./statements.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/** Everything that is looked at, in this order. The first seven always; those below `runner` only where something is expected. */
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
  epoch?: number | undefined;
  commit?: string | null | undefined;
  taskSha256?: string | undefined;
  logSha256?: string | undefined;
  logBytes?: number | undefined;
  outputs?: readonly OutputContent[] | undefined;
};

/**
 * What came of it. `checks` ends at the step that failed, as long as the statement could not be read: nothing unverified is shown as a
 * value. `signer` is the did:key that signed, `sha256` the digest of the signed payload, the identity of a statement.
 */
export type Verification = {
  ok: boolean;
  checks: readonly Check[];
  statement?: Statement;
  claims?: Claims;
  signer?: string;
  sha256?: string;
};

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
    const passedSteps = ENVELOPE_STEPS.slice(0, ENVELOPE_STEPS.indexOf(opened.code)).map((name) => passed(name));
    return {
      ok: false,
      checks: [admission.check, ...passedSteps, { name: opened.code, ok: false, detail: opened.detail }],
    };
  }
  const { payload, value, signers: keys } = opened.value;
  const dids = keys.map(didKeyOf);
  const steps: Check[] = [
    admission.check,
    ...ENVELOPE_STEPS.map((name) =>
      name === "signature" ? passed(name, `signed by ${dids.join(", ")}`) : passed(name),
    ),
  ];
  const sha256 = await sha256Hex(payload);
  const read = readStatement(value);
  if (!read.ok) {
    const before = read.code === "predicate-type" ? [passed("statement")] : [];
    return {
      ok: false,
      checks: [...steps, ...before, { name: read.code, ok: false, detail: read.detail }],
      signer: dids[0]!,
      sha256,
    };
  }
  const { statement, claims } = read.value;
  const signer = dids.includes(claims.runner) ? claims.runner : dids[0]!;
  const checks = [
    ...steps,
    passed("statement"),
    passed("predicate-type", statement.predicateType),
    ...checkClaims(claims, signer, expected),
  ];
  return { ok: checks.every((check) => check.ok), checks, statement, claims, signer, sha256 };
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

function checkClaims(claims: Claims, signer: string, expected: Expected): Check[] {
  const checks = [compare("runner", signer, claims.runner, "the runner named inside signed it"), checkTimes(claims)];
  const { commit, outputs } = expected;
  for (const name of ["namespace", "deployment", "job", "run", "epoch"] as const) {
    if (expected[name] !== undefined) checks.push(compare(name, String(expected[name]), String(claims[name])));
  }
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

function checkLog({ log }: Claims, { logSha256 = log.sha256, logBytes = log.bytes }: Expected): Check {
  const describe = (sha256: string, bytes: number): string => `sha256:${sha256}, ${bytes} bytes`;
  return compare("log", describe(logSha256, logBytes), describe(log.sha256, log.bytes), "the log that the runner saw");
}
