import * as z from "zod";
import { utf8 } from "./bytes.ts";
import { didKeyOf } from "./did-key.ts";
import { describeIssues, type Envelope, envelopeSchema, openEnvelope, signEnvelope } from "./dsse.ts";
import type { Signer } from "./ed25519.ts";
import { runnerIdSchema, sha256Schema, timeSchema } from "./ids.ts";
import { admitDidKey } from "./key-admission.ts";
import { accepted, refused, type Result } from "./result.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/**
 * What a runner, or a person, signs to speak with a broker. Each payload type is its own domain: the signed bytes start with it, so that neither can
 * pass for the other or for a statement.
 */
export const REGISTRATION_PAYLOAD_TYPE = "application/vnd.plumule.registration+json";
export const SESSION_PAYLOAD_TYPE = "application/vnd.plumule.session+json";
/** The same for a person who logs in with a Radicle key: one who holds a runner's proof is not logged in with it. */
export const LOGIN_PAYLOAD_TYPE = "application/vnd.plumule.login+json";

const audience = z.string().min(1).max(TRUST_LIMITS.pathCharacters);

/**
 * Proof that a runner holds the key it registers. `audience` is `<broker origin>/v1/{ns}`, so that one broker cannot use it at another;
 * `tokenSha256` is the hash of the one-time registration token, so that it serves once.
 */
export const registrationProofSchema = z.strictObject({
  audience,
  runner: runnerIdSchema,
  tokenSha256: sha256Schema,
  issuedAt: timeSchema,
});
export type RegistrationProof = z.output<typeof registrationProofSchema>;

/** The answer to a session challenge: the broker's random text, signed, for this audience and runner. It needs no clock. */
export const sessionProofSchema = z.strictObject({
  audience,
  runner: runnerIdSchema,
  challenge: z.string().min(1).max(TRUST_LIMITS.challengeCharacters),
});
export type SessionProof = z.output<typeof sessionProofSchema>;

/** Whose session a challenge is for. */
export type SessionPayloadType = typeof SESSION_PAYLOAD_TYPE | typeof LOGIN_PAYLOAD_TYPE;

/** Signs a registration. The runner named is the signer's key. */
export async function signRegistration(
  { audience, tokenSha256, issuedAt }: Omit<RegistrationProof, "runner">,
  signer: Signer,
): Promise<Envelope> {
  return signProof(
    REGISTRATION_PAYLOAD_TYPE,
    { audience, runner: didKeyOf(signer.publicKey), tokenSha256, issuedAt },
    signer,
  );
}

/** Signs a session challenge, as a runner or, with `LOGIN_PAYLOAD_TYPE`, as a person. */
export async function signSession(
  { audience, challenge }: Omit<SessionProof, "runner">,
  signer: Signer,
  payloadType: SessionPayloadType = SESSION_PAYLOAD_TYPE,
): Promise<Envelope> {
  return signProof(payloadType, { audience, runner: didKeyOf(signer.publicKey), challenge }, signer);
}

/** Why a proof is refused. `weak-key` asks for another key; every other code means that the proof is not one. */
export type ProofRefusal =
  | "weak-key"
  | "bad-proof"
  | "wrong-audience"
  | "wrong-token"
  | "wrong-challenge"
  | "wrong-runner"
  | "out-of-window";

/** A runner that has proved to hold its key. */
export type ProvenRunner = { runner: string; publicKey: Uint8Array };

/**
 * Verifies a registration. Which key it is follows from the envelope's key id; that id is believed only because the signature verifies
 * under it and the signed payload names it. The caller looks up and spends the token.
 */
export async function verifyRegistration(
  envelope: unknown,
  expected: { audience: string; tokenSha256: string; nowMs: number },
): Promise<Result<ProvenRunner, ProofRefusal>> {
  const claimed = envelopeSchema.safeParse(envelope).data?.signatures[0]?.keyid;
  if (claimed === undefined)
    return refused("bad-proof", "the proof must be a DSSE envelope whose keyid is the runner's did:key");
  const opened = await openProof(envelope, REGISTRATION_PAYLOAD_TYPE, registrationProofSchema, claimed);
  if (!opened.ok) return opened;
  const { proof, publicKey } = opened.value;
  if (proof.audience !== expected.audience)
    return refused("wrong-audience", `the proof is for ${proof.audience}, not for ${expected.audience}`);
  if (proof.tokenSha256 !== expected.tokenSha256)
    return refused("wrong-token", "the proof is for another registration token");
  const skewMs = Date.parse(proof.issuedAt) - expected.nowMs;
  if (Math.abs(skewMs) > TRUST_LIMITS.registrationWindowMs)
    return refused(
      "out-of-window",
      `the proof was issued at ${proof.issuedAt}, ${Math.round(skewMs / 1000)} s from the time here`,
    );
  return accepted({ runner: proof.runner, publicKey });
}

/** Verifies the answer to a challenge by the key that asked for it. The caller spends the challenge. */
export async function verifySession(
  envelope: unknown,
  expected: SessionProof,
  payloadType: SessionPayloadType = SESSION_PAYLOAD_TYPE,
): Promise<Result<ProvenRunner, ProofRefusal>> {
  const opened = await openProof(envelope, payloadType, sessionProofSchema, expected.runner);
  if (!opened.ok) return opened;
  const { proof, publicKey } = opened.value;
  if (proof.audience !== expected.audience)
    return refused("wrong-audience", `the proof is for ${proof.audience}, not for ${expected.audience}`);
  if (proof.challenge !== expected.challenge) return refused("wrong-challenge", "the proof answers another challenge");
  return accepted({ runner: proof.runner, publicKey });
}

async function signProof(
  payloadType: string,
  proof: RegistrationProof | SessionProof,
  signer: Signer,
): Promise<Envelope> {
  return signEnvelope(payloadType, utf8(JSON.stringify(proof)), signer);
}

async function openProof<Proof extends { runner: string }>(
  envelope: unknown,
  payloadType: string,
  schema: z.ZodType<Proof>,
  runner: string,
): Promise<Result<{ proof: Proof; publicKey: Uint8Array }, ProofRefusal>> {
  const admitted = admitDidKey(runner);
  if (!admitted.ok) return refused(admitted.code === "bad-did-key" ? "bad-proof" : "weak-key", admitted.detail);
  const opened = await openEnvelope(envelope, { keys: [admitted.value], payloadTypes: [payloadType] });
  if (!opened.ok) return refused("bad-proof", opened.detail);
  const parsed = schema.safeParse(opened.value.value);
  if (!parsed.success) return refused("bad-proof", describeIssues(parsed.error));
  if (parsed.data.runner !== runner)
    return refused("wrong-runner", `the proof names ${parsed.data.runner}, but is signed by ${runner}`);
  return accepted({ proof: parsed.data, publicKey: admitted.value });
}
