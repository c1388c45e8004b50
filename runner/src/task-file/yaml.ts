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
  const document = YAML.parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true });
  const wrong = [...document.errors, ...document.warnings];
  if (wrong.length > 0) return { faults: wrong.map((one) => faultAt(one.pos[0], sentenceOf(one))) };
  const reserved = reservedKey(document);
  if (reserved !== null) return { faults: [faultAt(reserved, "`__proto__` cannot be a name")] };
  try {
    return {
      content: document.toJS({ maxAliasCount: ALIAS_COUNT }) as unknown,
      locate: ({ path, at }, detail) =>
        faultAt(offsetOf(document, path, at), detail, path.map((part) => `/${pointerPart(String(part))}`).join("")),
    };
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return { faults: [faultAt(firstAlias(document), detail)] };
  }
}

function sentenceOf({ code, message }: YAML.YAMLError): string {
  switch (code) {
    case "TAB_AS_INDENT":
      return "a tab; YAML is indented with spaces";
    case "DUPLICATE_KEY":
      return "this name stands twice";
    case "MULTIPLE_DOCS":
      return "a second document begins here; a file holds one";
    case "RESOURCE_EXHAUSTION":
      return "nested too deep";
    default:
      return message;
  }
}

/** Where a key stands that objects of JavaScript treat in a way of its own, and checks pass over. */
function reservedKey(document: YAML.Document): number | null {
  let found: number | null = null;
  YAML.visit(document, {
    Pair(_, { key }) {
      if (!YAML.isScalar(key) || key.value !== "__proto__") return undefined;
      found = key.range?.[0] ?? 0;
      return YAML.visit.BREAK;
    },
  });
  return found;
}

function firstAlias(document: YAML.Document): number {
  let found = 0;
  YAML.visit(document, {
    Alias(_, alias) {
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
