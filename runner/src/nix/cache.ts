import { readFile } from "node:fs/promises";
import { readPrivateFile } from "../private-file.ts";
import { capture, NEW_COMMANDS, type NixContext } from "./run.ts";

/** Where what was built is pushed to, as the runner's owner configured it. */
export type NixCache = {
  /** A store as Nix names it, such as `s3://cache?region=eu-central-1`, `file:///srv/cache` or `ssh-ng://host`. */
  to: string;
  /** File of the secret key that signs what is pushed (`nix-store --generate-binary-cache-key`); null for a store that signs by itself, or not at all. */
  keyFile: string | null;
  /** A job whose outputs cannot be pushed goes to another runner, and fails when none can. */
  required: boolean;
};

/** Store paths per command, far below the kernel's limit for arguments. */
const PATHS_PER_COMMAND = 500;
/** Schemes of stores that keep signatures made by whoever pushes. */
const BINARY_CACHE = /^(?:file|s3|https?):/;
/** `name:base64` of seed and public key, 64 bytes. */
const SECRET_KEY = /^[^:\s]+:[A-Za-z0-9+/]{86}==$/;

/**
 * Why a URL is none to push to, or null. What is in it stands on a command line that every user of the machine can read, so passwords and keys
 * may not.
 */
export function cacheUrlFault(url: string): string | null {
  if (!/^(?:(?:file|s3|https?|ssh|ssh-ng):\/\/)[^\s\p{Cc}]+$/u.test(url))
    return "give the URL of a store: file:///…, s3://…, https://…, ssh-ng://… or ssh://…";
  if (/^https?:\/\/[^/?]*@/.test(url)) return "leave name and password out, and name a netrc-file in nix.conf";
  return /[?&]secret-key=/.test(url) ? "leave secret-key out, and name its file with nixCacheKey" : null;
}

/** True for a store that a signing key can be used for. */
export function takesCacheKey(url: string): boolean {
  return BINARY_CACHE.test(url);
}

/**
 * Why a file is no key to sign with, or null. One that others may read is refused, but for a credential of systemd (below `credentials`): that
 * folder is the service's own, whatever the modes of its files say.
 */
export async function cacheKeyFault(path: string, credentials: string | undefined): Promise<string | null> {
  const isCredential = credentials !== undefined && credentials !== "" && path.startsWith(`${credentials}/`);
  const read = isCredential
    ? await readFile(path, "utf8").then(
        (text) => ({ ok: true as const, text }),
        (error: Error) => ({ ok: false as const, detail: error.message }),
      )
    : await readPrivateFile(path);
  if (!read.ok) return read.detail;
  return SECRET_KEY.test(read.text.trim())
    ? null
    : `${path} holds no secret key of a cache; make one with nix-store --generate-binary-cache-key`;
}

/** The store without its parameters, for people. */
export function cacheName({ to }: NixCache): string {
  return to.replace(/\?.*$/, "");
}

/** Copies paths with all that they refer to. Answers what went wrong, or null. The key is named by its file, which Nix reads itself. */
export async function pushPaths(
  context: NixContext,
  cache: NixCache,
  paths: readonly string[],
): Promise<string | null> {
  const url = cache.keyFile === null ? cache.to : withParameter(cache.to, "secret-key", cache.keyFile);
  for (let from = 0; from < paths.length; from += PATHS_PER_COMMAND) {
    const some = paths.slice(from, from + PATHS_PER_COMMAND);
    const done = await capture(context, ["nix", ...NEW_COMMANDS, "copy", "--log-format", "raw", "--to", url, ...some]);
    if (done.exitCode === 0) continue;
    const said = done.stderr.trim().split("\n").at(-1) ?? "";
    return said === "" ? `nix copy ended with ${done.signal ?? `exit code ${done.exitCode}`}` : said;
  }
  return null;
}

function withParameter(url: string, name: string, value: string): string {
  return `${url}${url.includes("?") ? "&" : "?"}${name}=${encodeURI(value)}`;
}
