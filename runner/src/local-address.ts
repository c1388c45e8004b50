/** Where something is served to this machine alone: on a port of the loopback interface, or on a unix socket. */
export type LocalAddress = { host: string; port: number } | { path: string };

/** Reads `127.0.0.1:PORT`, `localhost:PORT`, `[::1]:PORT` or an absolute path; null for anything else, such as an address that others reach. */
export function localAddress(text: string): LocalAddress | null {
  // The kernel takes no longer name of a socket (sun_path).
  if (text.startsWith("/")) return Buffer.byteLength(text) <= 107 ? { path: text } : null;
  const [, host, port] = /^(127(?:\.\d{1,3}){3}|localhost|\[::1\]):(\d{1,5})$/.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535) return null;
  return { host: host === "[::1]" ? "::1" : host, port: Number(port) };
}

/** Whether a `Host` header names this machine. A page in a browser that was sent here by another name must not be answered. */
export function isLocalHost(header: string | undefined): boolean {
  return /^(127[.\d]*|localhost|\[::1\])(:\d+)?$/.test(header ?? "");
}
