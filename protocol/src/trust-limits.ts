/**
 * Bounds of everything that is signed or verified, with unit and reason. The bounds of requests stand in `limits.ts`.
 */
export const TRUST_LIMITS = {
  /** Bytes of a statement before base64: a result with hundreds of outputs fits, a log does not. */
  statementBytes: 100_000,
  /** Subjects of a statement, and outputs named by one job result. */
  subjects: 512,
  /** Bytes of a DSSE envelope as JSON: a statement in base64 with room for several signatures. */
  envelopeBytes: 256 * 1024,
  /** Signatures in an envelope or a webhook header: a rotation needs two, and each may cost one verification per key. */
  signatures: 8,
  /** Keys that one verification tries: signatures × keys bounds the work that one bad input can cause. */
  keys: 256,
  /** Characters of a payload type or predicate type. */
  typeCharacters: 200,
  /** Characters of an output's name, a version, a system and other words in a statement. */
  wordCharacters: 128,
  /** Characters of a store path, a ref or an attribute. */
  pathCharacters: 500,
  /** Characters of a URI. */
  uriCharacters: 1_000,
  /** Materials that a provenance names beside its subjects. */
  dependencies: 512,
  /** Nesting of signed JSON; deeper input is an attack on recursive code. */
  jsonDepth: 32,
  /** Characters of a webhook's id. It is stored as a dedupe key. */
  webhookIdCharacters: 128,
  /** Bytes of a shared webhook secret (Standard Webhooks: 24 to 64). */
  webhookSecretMinBytes: 24,
  webhookSecretMaxBytes: 64,
  /** Age and earliness tolerated for a runner's registration, ms: a clock that is five minutes wrong still registers. */
  registrationWindowMs: 5 * 60_000,
  /** Characters of a challenge that a broker hands out. */
  challengeCharacters: 256,
  /** Signers of a trust policy: admission of a key costs about a millisecond. */
  policySigners: 64,
  /** Rules of a trust policy. */
  policyRules: 64,
  /** Builder ids that a policy names for one signer. */
  policyBuilderIds: 16,
} as const;
