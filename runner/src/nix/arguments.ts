import type { Source } from "@plumule/protocol";

/** What of a job an installable that is a function may ask for. `configuration` is the file of its configuration. */
export interface JobFacts {
  readonly configuration: { readonly path: string; readonly sha256: string } | null;
  readonly type: string | null;
  readonly source: Source | null;
}

/** A text as a string of Nix. */
export function nixString(text: string): string {
  return `"${text.replace(/[\\"]/g, "\\$&").replaceAll("${", "\\${")}"`;
}

/**
 * The arguments of a job as an attribute set of Nix: its own, and what Hercules CI gives to `herculesCI` (`primaryRepo` and its fields). The
 * configuration is a file in the store, so that pure evaluation may read it and a derivation may use it: fetched by its digest, which changes
 * nothing when it is there already. A configuration that the job does not have is no argument, so that whoever needs one is told.
 */
export function jobArguments({ configuration, type, source }: JobFacts): string {
  const ref = source?.ref ?? null;
  const branch = /^refs\/heads\/(.+)$/.exec(ref ?? "")?.[1] ?? null;
  const tag = /^refs\/tags\/(.+)$/.exec(ref ?? "")?.[1] ?? null;
  const { name, owner } = nameOf(source?.repository ?? "");
  const commit = {
    branch: nixValue(branch),
    ref: nixValue(ref),
    tag: nixValue(tag),
    rev: nixValue(source?.commit ?? null),
    shortRev: nixValue(source?.commit.slice(0, 7) ?? null),
  };
  const url = nixValue(source?.repository ?? null);
  const primaryRepo = {
    name: nixValue(name),
    owner: nixValue(owner),
    ...commit,
    remoteHttpUrl: url,
    remoteSshUrl: "null",
    webUrl: "null",
    forgeType: '"git"',
  };
  const file =
    configuration === null
      ? {}
      : {
          configuration: `builtins.fetchurl ${nixSet({ url: nixString(`file://${configuration.path}`), sha256: nixString(configuration.sha256) })}`,
        };
  return nixSet({ ...file, type: nixValue(type), ...commit, primaryRepo: nixSet(primaryRepo) });
}

/** A function of Nix that calls a value with those of `args` that it names, or with all where it names none; other values stay. */
export const CALL_WITH = `args: value: if builtins.isFunction value then
    value (if builtins.functionArgs value == { } then args else builtins.intersectAttrs (builtins.functionArgs value) args)
  else value`;

/** Owner and name of a repository, as the last parts of its URL say; a Radicle repository has its id for a name and no owner. */
export function nameOf(repository: string): { owner: string | null; name: string } {
  const radicle = /^rad:(?:\/\/.*\/)?(z[1-9A-HJ-NP-Za-km-z]+)/.exec(repository)?.[1];
  if (radicle !== undefined) return { owner: null, name: radicle };
  const parts = repository
    .replace(/^[a-z]+:\/+/, "")
    .replace(/(?:\.git)?\/*$/, "")
    .split("/");
  return { owner: parts.length > 2 ? (parts.at(-2) ?? null) : null, name: parts.at(-1) ?? "" };
}

function nixValue(text: string | null): string {
  return text === null ? "null" : nixString(text);
}

function nixSet(fields: Readonly<Record<string, string>>): string {
  return `{ ${Object.entries(fields)
    .map(([name, value]) => `${name} = ${value};`)
    .join(" ")} }`;
}
