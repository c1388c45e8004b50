// Builds the page that the Worker serves: one bundle, beside it what needs no build. Plain JavaScript for the oldest Node that may
// start anything here; esbuild alone does the work, in a fraction of a second.

import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const from = fileURLToPath(new URL("../dashboard/", import.meta.url));
const to = `${from}dist/`;

/**
 * Nothing is loaded from elsewhere, nothing inline runs, and no string becomes markup or code. Sockets are named by scheme, because this file
 * does not know the broker's host and not every browser counts `wss:` of the same host as `'self'`.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self' ws: wss:",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
].join("; ");

const headers = `/*
  Content-Security-Policy: ${policy}
  X-Content-Type-Options: nosniff
  Referrer-Policy: no-referrer
  Strict-Transport-Security: max-age=63072000; includeSubDomains
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Resource-Policy: same-origin
  Permissions-Policy: camera=(), geolocation=(), microphone=()
  X-XSS-Protection: 0
  Cache-Control: no-cache
`;

mkdirSync(to, { recursive: true });
await build({
  entryPoints: [`${from}src/main.ts`],
  outfile: `${to}main.js`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2023",
  // zod tries to compile its checks with `new Function`, which the policy forbids and reports.
  banner: { js: "globalThis.__zod_globalConfig = { jitless: true };" },
  logLevel: "warning",
});
for (const file of ["index.html", "style.css", "log.css", "icon.svg"]) copyFileSync(from + file, to + file);
writeFileSync(`${to}_headers`, headers);
