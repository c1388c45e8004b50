import { pathToFileURL } from "node:url";

/** The files that installables refer to. */
export interface NixSource {
  /** Absolute path of the checkout. */
  readonly directory: string;
  /** How Nix reads it: from git, at `commit` when given, or as plain files. */
  readonly kind: "git" | "files";
  /** Full object id that is checked out. */
  readonly commit?: string;
  /** True when the repository has no full history; flakes then see no `revCount`. */
  readonly shallow?: boolean;
}

/**
 * Something to build: text such as `.#checks` or `github:owner/repo/<commit>#name`, or an attribute of a Nix file of the
 * checkout (`nix-build file -A attribute`), of which a missing attribute means all derivations.
 */
export type Installable = string | { readonly file: string; readonly attribute?: string };

/** An installable as arguments for Nix; both kinds are safe to stand anywhere on a command line. */
export type ParsedInstallable =
  | { readonly kind: "flake"; readonly label: string; readonly reference: string; readonly attribute: string }
  | { readonly kind: "file"; readonly label: string; readonly file: string; readonly attribute: string };

/** Schemes of flakes outside the checkout. Not `path:` and `file:`, which would read the runner's own disk. */
const REMOTE_SCHEMES = ["github", "gitlab", "sourcehut", "https", "tarball+https", "git+https", "git+ssh"];

/** The reference of the checkout itself, with the directory of the flake below it. */
export function flakeReference(source: NixSource, directory = ""): string {
  const url = pathToFileURL(source.directory);
  // Plain files include `.git`, whose content names a path of this machine: two runners would disagree on every hash.
  // Git gives the tracked files only, and the flake its `rev`.
  const query = new URLSearchParams();
  if (source.kind === "git" && source.commit !== undefined) query.set("rev", source.commit);
  if (source.kind === "git" && source.shallow === true) query.set("shallow", "1");
  if (directory !== "") query.set("dir", directory);
  const base = source.kind === "git" ? `git+${url.href}` : `path:${url.pathname}`;
  return query.size === 0 ? base : `${base}?${query.toString()}`;
}

/** Checks an installable and resolves it against the checkout. A refusal says what is wrong, for its author. */
export function parseInstallable(
  installable: Installable,
  source: NixSource,
): ParsedInstallable | { readonly refused: string } {
  if (typeof installable !== "string") return parseFile(installable);
  const refuse = (why: string): { refused: string } => ({ refused: `${JSON.stringify(installable)}: ${why}` });
  const mark = installable.indexOf("#");
  const reference = mark === -1 ? installable : installable.slice(0, mark);
  const attribute = mark === -1 ? "" : installable.slice(mark + 1);
  const bad = badWord(installable);
  if (bad !== undefined) return refuse(bad);
  if (/[\^!]/.test(attribute)) return refuse("outputs cannot be selected, all outputs of a derivation are built");
  const flake = (url: string): ParsedInstallable => ({ kind: "flake", label: installable, reference: url, attribute });
  if (reference === "" || reference === ".") return flake(flakeReference(source));
  if (reference.startsWith("./")) {
    const directory = reference.slice(2).replace(/\/+$/, "");
    return isInside(directory) ? flake(flakeReference(source, directory)) : refuse("the path leaves the checkout");
  }
  const scheme = /^([a-z][a-z0-9+]*):/.exec(reference)?.[1];
  if (scheme !== undefined && REMOTE_SCHEMES.includes(scheme)) return flake(reference);
  if (scheme !== undefined && scheme !== "flake") return refuse(`flakes of scheme "${scheme}:" are not allowed`);
  if (/^[./~]/.test(reference)) return refuse("only paths inside the checkout can be built, such as .#name");
  return refuse("flake registries are off, write the whole reference, such as github:owner/repo/<commit>#name");
}

function parseFile(input: { file: string; attribute?: string }): ParsedInstallable | { refused: string } {
  const label = input.attribute === undefined ? input.file : `${input.file} -A ${input.attribute}`;
  const file = input.file.replace(/^\.\//, "");
  const attribute = input.attribute ?? "";
  const bad = badWord(file) ?? (attribute === "" ? undefined : badWord(attribute));
  if (bad !== undefined) return { refused: `${JSON.stringify(label)}: ${bad}` };
  if (!isInside(file)) return { refused: `${JSON.stringify(label)}: the file is outside the checkout` };
  return { kind: "file", label, file: `./${file}`, attribute };
}

function badWord(word: string): string | undefined {
  if (word === "") return "is empty";
  if (word.startsWith("-")) return "begins with a hyphen";
  return /[\s\p{Cc}]/u.test(word) ? "contains white space or control characters" : undefined;
}

function isInside(path: string): boolean {
  return path.split("/").every((part) => !["", ".", ".."].includes(part));
}
