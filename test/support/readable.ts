import * as z from "zod";

type Schema = {
  $ref?: string;
  $defs?: Record<string, Schema>;
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema | boolean;
  prefixItems?: Schema[];
  pattern?: string;
  maxLength?: number;
  minLength?: number;
  maxItems?: number;
  minItems?: number;
  maximum?: number;
  minimum?: number;
};

/**
 * Why somebody who reads by one schema could fail on what another lets somebody write: fields that the reader does not know and
 * refuses, values that are new, fields that may be missing now, bounds that were moved. Empty: whatever is written can be read.
 */
export function unreadable(reader: z.ZodType, writer: z.ZodType): string[] {
  const read = z.toJSONSchema(reader, { io: "input", unrepresentable: "any" }) as Schema;
  const written = z.toJSONSchema(writer, { io: "output", unrepresentable: "any" }) as Schema;
  return [...new Set(differences({ root: read, at: read }, { root: written, at: written }, "", 0))];
}

type Place = { root: Schema; at: Schema };

function resolve({ root, at }: Place): Place {
  if (at.$ref === undefined) return { root, at };
  const name = at.$ref.replace("#/$defs/", "");
  return resolve({ root, at: at.$ref === "#" ? root : (root.$defs?.[name] ?? {}) });
}

function branches({ root, at }: Place): Place[] | null {
  const { type } = at;
  const either = Array.isArray(type) ? type.map((one) => ({ ...at, type: one })) : (at.anyOf ?? at.oneOf);
  return either?.map((branch) => resolve({ root, at: branch })) ?? null;
}

/** JSON values nest for ever. */
const DEPTH = 24;

function differences(readerAt: Place, writerAt: Place, path: string, depth: number): string[] {
  const reader = resolve(readerAt);
  const writer = resolve(writerAt);
  if (depth > DEPTH) return [];
  const written = branches(writer);
  if (written !== null) return written.flatMap((branch) => differences(reader, branch, path, depth + 1));
  const readable = branches(reader);
  if (readable !== null) {
    const tried = readable.map((branch) => differences(branch, writer, path, depth + 1));
    return tried.toSorted((a, b) => a.length - b.length || depthOf(b) - depthOf(a))[0] ?? [];
  }
  return [
    ...valueDifferences(reader.at, writer.at, path),
    ...objectDifferences(reader, writer, path, depth),
    ...arrayDifferences(reader, writer, path, depth),
  ];
}

/** Of several branches that fail, the one that fails deepest is the one that was meant. */
const depthOf = (found: readonly string[]): number => Math.max(0, ...found.map((line) => line.split("/").length));

function valueDifferences(reader: Schema, writer: Schema, path: string): string[] {
  const isWider = reader.type === undefined || (reader.type === "number" && writer.type === "integer");
  if (reader.type !== writer.type && !isWider)
    return [`${path}: ${String(writer.type ?? "anything")} instead of ${String(reader.type)}`];
  const known = valuesOf(reader);
  const written = valuesOf(writer);
  if (written !== null)
    return written
      .filter((one) => known !== null && !known.includes(one))
      .map((one) => `${path}: new value ${JSON.stringify(one)}`);
  if (known !== null) return [`${path}: any value, where some were named`];
  const tops = (["maxLength", "maxItems", "maximum"] as const).filter(
    (bound) => (writer[bound] ?? Infinity) > (reader[bound] ?? Infinity),
  );
  const floors = (["minLength", "minItems", "minimum"] as const).filter(
    (bound) => (writer[bound] ?? -Infinity) < (reader[bound] ?? -Infinity),
  );
  return [
    ...(reader.pattern !== undefined && reader.pattern !== writer.pattern ? [`${path}: another pattern`] : []),
    ...tops.map((bound) => `${path}: a greater ${bound}`),
    ...floors.map((bound) => `${path}: a smaller ${bound}`),
  ];
}

/** The values that a schema names, or null when it names none. */
function valuesOf(schema: Schema): unknown[] | null {
  return schema.const === undefined ? (schema.enum ?? null) : [schema.const];
}

function objectDifferences(reader: Place, writer: Place, path: string, depth: number): string[] {
  if (reader.at.type !== "object" || writer.at.type !== "object") return [];
  const { properties: known = {}, required = [], additionalProperties: others } = reader.at;
  const { properties: written = {}, required: always = [], additionalProperties: more } = writer.at;
  const found = required.filter((name) => !always.includes(name)).map((name) => `${path}/${name}: may be missing`);
  for (const [name, schema] of Object.entries(written)) {
    const expected = known[name] ?? (typeof others === "object" ? others : undefined);
    if (expected !== undefined)
      found.push(...differences({ ...reader, at: expected }, { ...writer, at: schema }, `${path}/${name}`, depth + 1));
    else if (others === false) found.push(`${path}/${name}: new field`);
  }
  if (typeof others === "object" && typeof more === "object")
    found.push(...differences({ ...reader, at: others }, { ...writer, at: more }, `${path}/*`, depth + 1));
  return found;
}

function arrayDifferences(reader: Place, writer: Place, path: string, depth: number): string[] {
  if (reader.at.type !== "array" || writer.at.type !== "array") return [];
  const pairs = (reader.at.prefixItems ?? []).map((item, index) => [item, writer.at.prefixItems?.[index] ?? {}]);
  if (typeof reader.at.items === "object")
    pairs.push([reader.at.items, typeof writer.at.items === "object" ? writer.at.items : {}]);
  return pairs.flatMap(([read = {}, written = {}]) =>
    differences({ ...reader, at: read }, { ...writer, at: written }, `${path}/-`, depth + 1),
  );
}
