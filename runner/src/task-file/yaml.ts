import { LIMITS } from "@plumule/protocol";
import * as YAML from "yaml";

/** Something wrong in a file, for a person: line and column count from 1, and `pointer` is a JSON pointer to the place. */
export type FileFault = { line: number; column: number; pointer: string; detail: string };

/** A place in a document: a path, and whether the name at its end is meant or the value. */
export type Place = { path: readonly (string | number)[]; at: "name" | "value" };

/** What a YAML text holds, as plain data, and where its parts stand. */
export type YamlText = { content: unknown; locate: (place: Place, detail: string) => FileFault };

/** A small file may hold aliases that unfold into a document larger than any memory. */
const ALIAS_COUNT = 100;

/** Reads one YAML 1.2 document of strings as keys, or says everything that is wrong with its syntax. */
export function readYaml(text: string): YamlText | { faults: FileFault[] } {
  const lines = new YAML.LineCounter();
  const faultAt = (offset: number, detail: string, pointer = ""): FileFault => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col), pointer, detail };
  };
  // The library compares each name of a map with every other, which takes minutes for the names that a file of this size can hold.
  const options = { lineCounter: lines, prettyErrors: false, stringKeys: true, uniqueKeys: false };
  const document = YAML.parseDocument(text, options);
  const wrong = [
    ...[...document.errors, ...document.warnings].map((one) => ({ at: one.pos[0], detail: sentenceOf(one) })),
    ...namesFaults(document),
  ].slice(0, LIMITS.taskFileFaults);
  if (wrong.length > 0) return { faults: wrong.map(({ at, detail }) => faultAt(at, detail)) };
  try {
    return {
      content: document.toJS({ maxAliasCount: ALIAS_COUNT }) as unknown,
      locate: ({ path, at }, detail) =>
        faultAt(offsetOf(document, path, at), detail, path.map((part) => `/${pointerPart(String(part))}`).join("")),
    };
  } catch (error) {
    // The library throws for aliases alone, with a sentence that ends with the name when there is no such anchor.
    const name = /^Unresolved alias .*: (.+)$/.exec(String(error instanceof Error ? error.message : error))?.[1];
    const detail =
      name === undefined
        ? "the aliases of this file unfold into far more than it holds"
        : `no anchor \`${name}\` stands before this`;
    return { faults: [faultAt(firstAlias(document, name), detail)] };
  }
}

function sentenceOf({ code, message }: YAML.YAMLError): string {
  switch (code) {
    case "TAB_AS_INDENT":
      return "a tab; YAML is indented with spaces";
    case "MULTIPLE_DOCS":
      return "a second document begins here; a file holds one";
    case "RESOURCE_EXHAUSTION":
      return "nested too deep";
    default:
      return message;
  }
}

/** Names that stand twice in one map, and the one that objects of JavaScript treat in a way of its own, so that checks would pass over it. */
function namesFaults(document: YAML.Document): { at: number; detail: string }[] {
  const faults: { at: number; detail: string }[] = [];
  YAML.visit(document, {
    Map(_, map) {
      const seen = new Set<unknown>();
      for (const { key } of map.items) {
        if (!YAML.isScalar(key)) continue;
        const at = key.range?.[0] ?? 0;
        if (key.value === "__proto__") faults.push({ at, detail: "`__proto__` cannot be a name" });
        if (seen.has(key.value)) faults.push({ at, detail: "this name stands twice" });
        seen.add(key.value);
      }
    },
  });
  return faults;
}

function firstAlias(document: YAML.Document, name: string | undefined): number {
  let found = 0;
  YAML.visit(document, {
    Alias(_, alias) {
      if (name !== undefined && alias.source !== name) return undefined;
      found = alias.range?.[0] ?? 0;
      return YAML.visit.BREAK;
    },
  });
  return found;
}

/** Where the part at a path begins, or of what there is of the path. */
function offsetOf(document: YAML.Document, path: Place["path"], at: Place["at"]): number {
  let node: unknown = document.contents;
  let offset = beginOf(node) ?? 0;
  for (const [index, part] of path.entries()) {
    const inside = YAML.isAlias(node) ? node.resolve(document) : node;
    if (YAML.isMap(inside)) {
      const pair = inside.items.find(({ key }) => YAML.isScalar(key) && String(key.value) === String(part));
      if (pair === undefined) return offset;
      const name = beginOf(pair.key) ?? offset;
      if (at === "name" && index === path.length - 1) return name;
      node = pair.value;
      offset = beginOf(node) ?? name;
    } else if (YAML.isSeq(inside) && typeof part === "number") {
      node = inside.items[part];
      offset = beginOf(node) ?? offset;
    } else return offset;
  }
  return offset;
}

function beginOf(node: unknown): number | null {
  return YAML.isNode(node) ? (node.range?.[0] ?? null) : null;
}

function pointerPart(part: string): string {
  return part.replaceAll("~", "~0").replaceAll("/", "~1");
}
