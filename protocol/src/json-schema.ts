import * as z from "zod";

/** A JSON Schema (draft 2020-12) as plain data. */
export type JsonSchema = Record<string, unknown>;

/**
 * The JSON Schema of what travels. Schemas with an id are put into `named` and referred to as `<refPrefix><id>`. Objects are as open as
 * their readers are: only those that the broker checks strictly forbid other fields, so that answers may grow.
 *
 * @param side `sent` for what is in the bytes; `read` for what a text (a query parameter) means once it is parsed.
 */
export function jsonSchemaOf(
  schema: z.ZodType,
  side: "sent" | "read",
  refPrefix: string,
  named: Record<string, JsonSchema>,
): JsonSchema {
  const io = side === "sent" ? "input" : "output";
  const standalone = JSON.stringify(z.toJSONSchema(schema, { io, unrepresentable: "any", reused: "inline" }));
  const whole = JSON.parse(standalone.replaceAll('"#/$defs/', `"${refPrefix}`)) as JsonSchema;
  const { $schema: _, $defs, ...rest } = whole;
  Object.assign(named, $defs);
  return rest;
}
