import { refuse, type Refusal } from "./errors.ts";
import { LIMITS } from "./limits.ts";
import { parseStrictJson } from "./strict-json.ts";

/**
 * The JSON of a request body, or a refusal that says what is wrong with it. Duplicate keys, `__proto__`, lone surrogates, invalid
 * UTF-8 and deep nesting are refused, because two readers could see two documents. The value is wrapped, so that a document that looks
 * like a refusal is not taken for one.
 */
export function parseJson(bytes: Uint8Array): { value: unknown } | Refusal {
  const parsed = parseStrictJson(bytes, LIMITS.jsonDepth);
  return parsed.ok ? { value: parsed.value } : refuse("invalid-json", `The body cannot be read: ${parsed.detail}.`);
}
