import { createHash } from "node:crypto";
import type * as z from "zod";
import * as protocol from "../../protocol/src/index.ts";

type Protocol = typeof protocol;

/** Every schema of the wire by name: all that protocol exports, and what its endpoints take and answer. */
export function wireSchemas(of: Protocol = protocol): Record<string, z.ZodType> {
  const exported = Object.entries<unknown>(of).filter((entry): entry is [string, z.ZodType] => isSchema(entry[1]));
  const endpoints = Object.values(of.ENDPOINTS).flatMap(({ name, params, query, body, answers }) => [
    [`${name}.params`, params],
    [`${name}.query`, query],
    [`${name}.body`, body],
    ...Object.entries(answers).map(([status, schema]) => [`${name}.${status}`, schema]),
  ]);
  return Object.fromEntries([...exported, ...endpoints.filter(([, schema]) => schema !== null)]);
}

/**
 * The schemas that a recorded message must keep fitting, by the name of its file: what endpoints take and answer (by the schema's id),
 * each frame of a stream, statements and the push that bridges send.
 */
export function messageSchemas(of: Protocol = protocol): Record<string, z.ZodType> {
  const { clientFrameSchema, serverFrameSchema, execPersonFrameSchema, execRunnerFrameSchema } = of;
  const bodies = Object.entries(wireSchemas(of)).filter(([name]) => /\.(body|\d+)$/.test(name));
  return Object.fromEntries([
    ...bodies.map(([name, schema]) => [schema.meta()?.id ?? name, schema]),
    ...clientFrameSchema.options.map(({ shape }) => [`client.${shape.op.value}`, clientFrameSchema]),
    ...serverFrameSchema.options.map(({ shape }) => [`server.${shape.op.value}`, serverFrameSchema]),
    // Version 1 has no sessions.
    ...(execPersonFrameSchema?.options ?? []).map(({ shape }) => [
      `exec.person.${shape.op.value}`,
      execPersonFrameSchema,
    ]),
    ...(execRunnerFrameSchema?.options ?? []).map(({ shape }) => [
      `exec.runner.${shape.op.value}`,
      execRunnerFrameSchema,
    ]),
    ["statement.job-result", of.jobResultSchema],
    ["statement.provenance", of.provenanceSchema],
    ["Push", of.pushBodySchema],
    ["Problem", of.problemSchema],
    ["NamespaceSnapshot", of.namespaceSnapshotSchema],
  ]);
}

/** One line per schema, sorted: SHA-256 of its JSON Schema and its name, so that a difference names what has changed. */
export function wireDigest(): string {
  const lines = Object.entries(wireSchemas()).map(([name, schema]) => {
    const named = {};
    const text = JSON.stringify([protocol.jsonSchemaOf(schema, "sent", "", named), named]);
    return `${createHash("sha256").update(text).digest("hex")}  ${name}\n`;
  });
  return lines.toSorted((a, b) => (a.slice(66) < b.slice(66) ? -1 : 1)).join("");
}

function isSchema(value: unknown): value is z.ZodType {
  return typeof value === "object" && value !== null && "_zod" in value;
}
