import * as z from "zod";
import { equalBytes, parseBase64, toBase64, utf8 } from "./bytes.ts";
import { didKeyOf } from "./did-key.ts";
import { type Signer, verifySignature } from "./ed25519.ts";
import { accepted, refused, type Result } from "./result.ts";
import { parseStrictJson } from "./strict-json.ts";
import { TRUST_LIMITS } from "./trust-limits.ts";

/**
 * A DSSE 1.0.2 envelope (secure-systems-lab/dsse, envelope.md). Unknown fields are allowed. `keyid` is not authenticated: it is a hint,
 * and a missing one equals an empty one.
 */
export const envelopeSchema = z.looseObject({
  payload: z.string().max(Math.ceil(TRUST_LIMITS.statementBytes / 3) * 4),
  payloadType: z
    .string()
    .min(1)
    .max(TRUST_LIMITS.typeCharacters)
    .regex(/^[\x21-\x7e]+$/, "printable ASCII"),
  signatures: z
    .array(
      z.looseObject({
        keyid: z.string().max(TRUST_LIMITS.typeCharacters).optional(),
        sig: z.string().min(1).max(TRUST_LIMITS.typeCharacters),
      }),
    )
    .min(1)
    .max(TRUST_LIMITS.signatures),
});
export type Envelope = z.output<typeof envelopeSchema>;

/**
 * The bytes that a DSSE signature covers: `DSSEv1 <length> <type> <length> <payload>`, lengths in bytes as ASCII decimals.
 * They bind the payload to its type, so that a signature for one purpose is none for another.
 */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const type = utf8(payloadType);
  const head = utf8(`DSSEv1 ${type.length} ${payloadType} ${payload.length} `);
  const bytes = new Uint8Array(head.length + payload.length);
  bytes.set(head);
  bytes.set(payload, head.length);
  return bytes;
}

/** Signs a payload into an envelope. `keyid` is the signer's did:key, because some verifiers ask for one. */
export async function signEnvelope(payloadType: string, payload: Uint8Array, signer: Signer): Promise<Envelope> {
  const signature = await signer.sign(preAuthEncoding(payloadType, payload));
  return {
    payload: toBase64(payload),
    payloadType,
    signatures: [{ keyid: didKeyOf(signer.publicKey), sig: toBase64(signature) }],
  };
}

/** A verified envelope. `value` is the JSON of the very bytes that were verified; `signers` are the distinct keys that signed them. */
export type OpenedEnvelope = {
  payloadType: string;
  payload: Uint8Array;
  value: unknown;
  signers: readonly Uint8Array[];
};

/** The steps of opening, in order; a refusal names the step that failed. */
export const ENVELOPE_STEPS = ["encoding", "signature", "payload-type", "payload"] as const;
export type EnvelopeStep = (typeof ENVELOPE_STEPS)[number];

/**
 * Decodes, verifies, checks the type, and only then parses: nothing that was not signed by one of `keys` is ever interpreted.
 * `keys` are raw keys that were admitted (`admitKey`); the same key twice still is one signer.
 */
export async function openEnvelope(
  envelope: unknown,
  { keys, payloadTypes }: { keys: readonly Uint8Array[]; payloadTypes: readonly string[] },
): Promise<Result<OpenedEnvelope, EnvelopeStep>> {
  const decoded = decodeEnvelope(envelope);
  if (!decoded.ok) return decoded;
  const { payloadType, payload, signatures } = decoded.value;
  const signers = await findSigners(preAuthEncoding(payloadType, payload), signatures, keys);
  if (signers.length === 0)
    return refused(
      "signature",
      `none of ${signatures.length} signature(s) verifies under any of ${keys.length} trusted key(s)`,
    );
  if (!payloadTypes.includes(payloadType))
    return refused("payload-type", `the payload type ${payloadType} is not expected here`);
  const json = parseStrictJson(payload);
  return json.ok
    ? accepted({ payloadType, payload, value: json.value, signers })
    : refused("payload", `the payload is refused: ${json.detail}`);
}

/** Reads one envelope from the bytes of a file or of a line of an `.intoto.jsonl` bundle. */
export function parseEnvelope(bytes: Uint8Array): Result<Envelope, "encoding"> {
  if (bytes.length > TRUST_LIMITS.envelopeBytes)
    return refused("encoding", `the envelope has ${bytes.length} bytes, the limit is ${TRUST_LIMITS.envelopeBytes}`);
  const json = parseStrictJson(bytes);
  if (!json.ok) return refused("encoding", `the envelope is refused: ${json.detail}`);
  const parsed = envelopeSchema.safeParse(json.value);
  return parsed.success ? accepted(parsed.data) : refused("encoding", describeIssues(parsed.error));
}

/** What a schema found wrong, in one line: `pointer: message` for the first three issues. */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => `/${issue.path.join("/")}: ${issue.message}`)
    .join("; ");
}

type DecodedEnvelope = { payloadType: string; payload: Uint8Array; signatures: readonly Uint8Array[] };

function decodeEnvelope(envelope: unknown): Result<DecodedEnvelope, "encoding"> {
  const parsed = envelopeSchema.safeParse(envelope);
  if (!parsed.success) return refused("encoding", describeIssues(parsed.error));
  const payload = parseBase64(parsed.data.payload);
  if (payload === null) return refused("encoding", "/payload: not canonical base64");
  const signatures = parsed.data.signatures.map(({ sig }) => parseBase64(sig));
  if (!signatures.every((signature) => signature !== null))
    return refused("encoding", "/signatures: a signature is not canonical base64");
  return accepted({ payloadType: parsed.data.payloadType, payload, signatures });
}

async function findSigners(
  message: Uint8Array,
  signatures: readonly Uint8Array[],
  keys: readonly Uint8Array[],
): Promise<Uint8Array[]> {
  const signers: Uint8Array[] = [];
  for (const key of keys.slice(0, TRUST_LIMITS.keys)) {
    if (signers.some((signer) => equalBytes(signer, key))) continue;
    const verdicts = await Promise.all(signatures.map((signature) => verifySignature(key, signature, message)));
    if (verdicts.includes(true)) signers.push(key);
  }
  return signers;
}
