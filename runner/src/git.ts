import { execFile } from "node:child_process";
import { homedir } from "node:os";
import { promisify } from "node:util";
import { type ProcessRequest, type ProcessResult, runProcess } from "./process.ts";
import type { RadiclePolicy } from "./radicle.ts";

/** Which repositories the owner of this machine lets jobs name. */
export interface UrlPolicy {
  /** Also `file:` URLs and absolute paths: for a box whose jobs come from its own user. */
  allowLocal: boolean;
  /** How `rad:` URLs are had; without it only by git-remote-rad. */
  radicle?: RadiclePolicy;
}

/** A URL that may be given to git. */
export interface FetchUrl {
  url: string;
  protocol: "https" | "rad" | "file";
  /** What its host may ask for. */
  credential?: Credential;
}

/** A user name and password (or token) for one repository, apart from its URL. */
export interface Credential {
  username: string;
  password: string;
}

/** How a git command ended. `detail` is the end of what git said, for a person. */
export type GitResult =
  | { ok: true; stdout: string }
  | { ok: false; reason: ProcessResult["reason"]; exitCode: number | null; detail: string };

/** One call of git. */
export interface GitRequest {
  args: readonly string[];
  cwd: string;
  /** What the command may fetch from; none for local work. */
  from?: FetchUrl;
  timeoutMs: number;
  cancel?: AbortSignal;
  /** Most bytes kept of each stream, from the end; 64 KiB unless given. */
  outputBytes?: number;
}

/** Most bytes kept of each stream: git's answers here are ids and error messages, unless a call lists files. */
const OUTPUT_BYTES = 64 * 1024;

/**
 * Set for every call, so that neither a repository nor an account can make git run something: no hooks, no file-system
 * monitor, no credential helper but ours, no submodules. LFS and other filters stay off because no configuration defines them.
 * Mirrors lend their objects to checkouts, therefore nothing may ever be collected.
 */
const CONFIG = [
  "core.hooksPath=/dev/null",
  "core.fsmonitor=false",
  "core.autocrlf=false",
  "submodule.recurse=false",
  "fetch.recurseSubmodules=false",
  "gc.auto=0",
  "maintenance.auto=false",
  "protocol.version=2",
  "init.defaultBranch=main",
  "advice.detachedHead=false",
].flatMap((setting) => ["-c", setting]);

/** Network settings of the machine that a fetch needs; nothing else of the runner's environment reaches git. */
export const NETWORK_VARIABLES = [
  "GIT_SSL_CAINFO",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "https_proxy",
  "HTTPS_PROXY",
  "all_proxy",
  "ALL_PROXY",
  "no_proxy",
  "NO_PROXY",
];

/**
 * The form of a repository URL that git understands, or why it is refused. `rad:z…` becomes `rad://z…`, the form of
 * git-remote-rad. Credentials in a URL are refused: they would end in argv and in logs.
 */
export function admitUrl(url: string, policy: UrlPolicy): FetchUrl | { refused: string } {
  if (/[\s\p{Cc}]/u.test(url)) return { refused: "the URL has white space or control characters" };
  if (url.startsWith("/")) return admitLocal(url, policy);
  if (/^rad:(?:\/\/)?z[1-9A-HJ-NP-Za-km-z]{20,64}(?:\/z6Mk[1-9A-HJ-NP-Za-km-z]{40,50})?$/.test(url)) {
    return { url: url.replace(/^rad:(?!\/\/)/, "rad://"), protocol: "rad" };
  }
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed?.protocol === "file:") {
    const local = url.startsWith("file:///") && parsed.search === "" && parsed.hash === "";
    return local ? admitLocal(url, policy) : { refused: "a file: URL has an absolute path and nothing else" };
  }
  if (parsed?.protocol !== "https:") return { refused: "only https:, rad: and, where allowed, file: URLs are fetched" };
  if (parsed.username !== "" || parsed.password !== "") return { refused: "the URL holds credentials" };
  return { url: parsed.href, protocol: "https" };
}

function admitLocal(url: string, policy: UrlPolicy): FetchUrl | { refused: string } {
  return policy.allowLocal ? { url, protocol: "file" } : { refused: "this runner does not fetch from local paths" };
}

/** Runs git without a shell, prompts, hooks, or any configuration but the repository's own and that above. */
export async function runGit({
  args,
  cwd,
  from,
  timeoutMs,
  cancel,
  outputBytes = OUTPUT_BYTES,
}: GitRequest): Promise<GitResult> {
  const output = { stdout: "", stderr: "" };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  const request: ProcessRequest = {
    argv: ["git", ...CONFIG, ...(from?.credential === undefined ? ["-c", "credential.helper="] : []), ...args],
    cwd,
    env: gitEnvironment(from),
    level: "process-group",
    merged: false,
    onOutput: (chunk, stream) => {
      const name = stream === "stderr" ? "stderr" : "stdout";
      output[name] = (output[name] + decoders[name].decode(chunk, { stream: true })).slice(-outputBytes);
    },
    graceMs: 2_000,
    limits: { runMs: timeoutMs },
    ...(cancel === undefined ? {} : { cancel }),
  };
  const { reason, exitCode, detail } = await runProcess(request);
  if (reason === "exit" && exitCode === 0) return { ok: true, stdout: output.stdout };
  const words = output.stderr.trim().slice(-1_000);
  const fallback =
    detail ?? (reason === "exit" ? `git ended with exit code ${exitCode}` : `git was stopped: ${reason}`);
  return { ok: false, reason, exitCode, detail: words === "" ? fallback : words };
}

/**
 * Answers git's question for a credential (gitcredentials(7)) from the environment, which the processes of other users cannot read, so that it
 * is in no argument, no URL and no file. git asks for the host of the URL alone, also after a redirect.
 */
const CREDENTIAL_HELPER = `!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$PLUMULE_GIT_USERNAME" "$PLUMULE_GIT_PASSWORD"; }; f`;

function credentialEnvironment({ url, credential }: FetchUrl): Record<string, string> {
  if (credential === undefined) return {};
  return {
    GIT_CONFIG_COUNT: "2",
    // An empty name first: whatever a repository's configuration may name is not asked.
    GIT_CONFIG_KEY_0: "credential.helper",
    GIT_CONFIG_VALUE_0: "",
    GIT_CONFIG_KEY_1: `credential.${new URL(url).origin}.helper`,
    GIT_CONFIG_VALUE_1: CREDENTIAL_HELPER,
    PLUMULE_GIT_USERNAME: credential.username,
    PLUMULE_GIT_PASSWORD: credential.password,
  };
}

/** Longest answer of `readGit`, bytes. */
const READ_BYTES = 32 * 1024 * 1024;

/** The bytes that a git command says about a repository of this machine, which it only reads; null when it fails. */
export async function readGit(folder: string, args: readonly string[]): Promise<Buffer | null> {
  const options = {
    encoding: "buffer",
    env: gitEnvironment(undefined),
    maxBuffer: READ_BYTES,
    timeout: 60_000,
  } as const;
  return promisify(execFile)(
    "git",
    ["--git-dir", folder, ...CONFIG, "-c", `safe.directory=${folder}`, ...args],
    options,
  ).then(
    ({ stdout }) => stdout,
    () => null,
  );
}

function gitEnvironment(from: FetchUrl | undefined): Record<string, string> {
  const network = NETWORK_VARIABLES.flatMap((name) => {
    const value = process.env[name];
    return from?.protocol !== "https" || value === undefined ? [] : [[name, value] as const];
  });
  return {
    ...Object.fromEntries(network),
    PATH: process.env["PATH"] ?? "",
    LC_ALL: "C",
    // git-remote-rad reads the node's storage below the runner's home; anything else would only find a .netrc there.
    HOME: from?.protocol === "rad" ? homedir() : "/nonexistent",
    ...(from?.protocol === "rad" && process.env["RAD_HOME"] !== undefined ? { RAD_HOME: process.env["RAD_HOME"] } : {}),
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_TERMINAL_PROMPT: "0",
    GIT_ALLOW_PROTOCOL: from?.protocol ?? "none",
    ...(from === undefined ? {} : credentialEnvironment(from)),
  };
}
