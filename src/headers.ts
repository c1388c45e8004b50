/**
 * What every answer says to a browser: guess no type, tell nobody where you came from, stay on TLS, and treat the bytes as data, which
 * neither run, load anything, nor stand in a frame. An answer that has to be shown brings a policy of its own.
 */
const ALWAYS: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "strict-transport-security": "max-age=63072000; includeSubDomains",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  // The filter that this once turned on could be made to remove parts of a page.
  "x-xss-protection": "0",
};
const UNLESS_SAID: Readonly<Record<string, string>> = {
  "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
  "cache-control": "no-store",
};

/** Adds these headers to an answer. */
export function harden(headers: Headers): void {
  for (const [name, value] of Object.entries(ALWAYS)) headers.set(name, value);
  for (const [name, value] of Object.entries(UNLESS_SAID)) if (!headers.has(name)) headers.set(name, value);
}
