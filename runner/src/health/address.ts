/** Where the state of a runner can be asked for: a port of this machine alone, or a unix socket. */
export type HealthAddress = { host: string; port: number } | { path: string };

/** Reads `127.0.0.1:PORT`, `localhost:PORT`, `[::1]:PORT` or an absolute path; null for anything else, such as an address that others reach. */
export function healthAddress(text: string): HealthAddress | null {
  // The kernel takes no longer name of a socket (sun_path).
  if (text.startsWith("/")) return Buffer.byteLength(text) <= 107 ? { path: text } : null;
  const [, host, port] = /^(127(?:\.\d{1,3}){3}|localhost|\[::1\]):(\d{1,5})$/.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535) return null;
  return { host: host === "[::1]" ? "::1" : host, port: Number(port) };
}
