import { parseNarHash, toBase64, toHex } from "@plumule/protocol";
import { captureOk, NEW_COMMANDS, type NixContext } from "./run.ts";
import type { SignedPathInfo } from "./signature.ts";

/** What the store says about a valid path. */
export interface PathInfo extends SignedPathInfo {
  /** The same hash as Nix writes it today: `sha256-<base64>`. */
  readonly narHashSri: string;
  /** Full store paths, sorted. */
  readonly references: readonly string[];
  /** Nix-native signatures that the store has, `keyName:base64` each. */
  readonly signatures: readonly string[];
}

/** An output of a derivation that is to be described. */
export interface OutputPath {
  /** `out`, `dev`, … */
  readonly name: string;
  readonly path: string;
  readonly drvPath: string;
}

/** An output that exists, with its hash. */
export interface BuiltOutput extends OutputPath, PathInfo {
  readonly path: string;
}

/** Store paths per command, far below the kernel's limit for arguments. */
const PATHS_PER_COMMAND = 500;

/** Hash, size and references of outputs, in their order. Throws when one of them is not valid in the store. */
export async function describeOutputs(context: NixContext, outputs: readonly OutputPath[]): Promise<BuiltOutput[]> {
  const known = new Map<string, PathInfo>();
  for (let from = 0; from < outputs.length; from += PATHS_PER_COMMAND) {
    const paths = outputs.slice(from, from + PATHS_PER_COMMAND).map(({ path }) => path);
    const argv = ["nix", ...NEW_COMMANDS, "path-info", "--json", ...new Set(paths)];
    const { stdout } = await captureOk(context, argv);
    for (const info of parsePathInfo(stdout)) known.set(info.path, info);
  }
  return outputs.map((output) => {
    const info = known.get(output.path);
    if (info === undefined) throw new Error(`${output.path} is not valid in the store`);
    return { ...output, ...info };
  });
}

/**
 * Reads `nix path-info --json`: an array (2.8), an object keyed by path (format 1) or `{ info, storeDir }` with base names
 * (format 2). Paths that are not valid (null, or `valid: false` in 2.8) are left out. Throws for any other shape.
 */
export function parsePathInfo(json: string): PathInfo[] {
  const document: unknown = JSON.parse(json);
  if (Array.isArray(document)) {
    return document.flatMap((entry: unknown) => readInfo(String(member(entry, "path")), entry, ""));
  }
  const info = member(document, "info");
  const storeDir = member(document, "storeDir");
  const entries = typeof storeDir === "string" && isObject(info) ? info : document;
  const directory = typeof storeDir === "string" ? storeDir : "";
  if (!isObject(entries)) throw new Error("nix path-info answered in an unknown shape");
  return Object.entries(entries).flatMap(([path, entry]) => readInfo(path, entry, directory));
}

function readInfo(key: string, entry: unknown, storeDir: string): PathInfo[] {
  if (entry === null || member(entry, "valid") === false) return [];
  const full = (path: string): string => (path.startsWith("/") ? path : `${storeDir}/${path}`);
  const hash = member(entry, "narHash");
  const narHash = typeof hash === "string" ? parseNarHash(hash) : null;
  const narSize = member(entry, "narSize");
  if (narHash === null || typeof narSize !== "number") throw new Error(`nix path-info gave no hash of ${key}`);
  return [
    {
      path: full(key),
      narHash: toHex(narHash),
      narHashSri: `sha256-${toBase64(narHash)}`,
      narSize,
      references: strings(member(entry, "references")).map(full).toSorted(),
      signatures: strings(member(entry, "signatures")),
    },
  ];
}

function member(value: unknown, name: string): unknown {
  return isObject(value) ? value[name] : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}
