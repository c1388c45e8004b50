import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { describe, expect, it } from "vitest";
import * as protocol from "../../protocol/src/index.ts";
import { unreadable } from "../support/readable.ts";
import { releasedProtocol, RELEASES } from "../support/released.ts";
import { messageSchemas } from "../support/wire.ts";

const { ENDPOINTS, PROTOCOL_VERSION, PROTOCOL_VERSION_FLOOR, protocolOf, readableIn, submitBodySchema } = protocol;
const served = RELEASES.filter((release) => {
  const version = Number(release.slice(1));
  return version >= PROTOCOL_VERSION_FLOOR && version < PROTOCOL_VERSION;
});

const HOW = `A peer of an older version that is still served could not read this. Instead of
  a new value of a list, say the nearest old one there and the new thing in a new optional field;
  a new field of a strict object inside an answer, put it beside that object;
  a new field of a submit body, name it in LATER_FIELDS of protocol/src/older-peers.ts.`;

/** Where a submit body is shown or given away: what it holds beyond an older version is left out (\`readableIn\`) or withheld (\`protocolOf\`). */
const BODIES = ["getJob.200", "pollWork.200"];

/** Fields of an effect and of a repository task that came later, wherever a task stands in a body. */
const EFFECT_FIELDS = ["script", "plan", "moveState"];
const REPOSITORY_FIELDS = ["schedule", "effects", "step"];
const inTasks = (place: string): string[] =>
  [...EFFECT_FIELDS, ...REPOSITORY_FIELDS].map((field) => `${place}/task/${field}: new field`);

/** A policy or rule that uses this is refused to readers of version 1 (\`readablePolicy\`, \`readableTriggers\`), and they cannot have put one. */
const WITHHELD = [
  ...["getTrust", "putTrust"].map((name) => `${name}.200/signers/-/purposes: new field`),
  ...["getTriggers", "putTriggers"].flatMap((name) => inTasks(`${name}.200/triggers/-`)),
];

it("keeps a copy of every version that is served beside its own", () => {
  expect(served.map((release) => Number(release.slice(1)))).toEqual(
    Array.from({ length: PROTOCOL_VERSION - PROTOCOL_VERSION_FLOOR }, (_, index) => PROTOCOL_VERSION_FLOOR + index),
  );
});

describe.each(served)("a peer of %s", (release) => {
  const version = Number(release.slice(1));
  const laterFields = (schema: typeof submitBodySchema, known: typeof submitBodySchema): string[] =>
    Object.keys(schema.shape).filter((field) => !(field in known.shape));

  it("can read whatever this broker answers and streams", async () => {
    const old = await releasedProtocol(release);
    const added = laterFields(submitBodySchema, old.submitBodySchema);
    const findings = Object.entries(old.ENDPOINTS).flatMap(([name, endpoint]) =>
      Object.entries(endpoint.answers as Record<string, z.ZodType | null>).flatMap(([status, reader]) => {
        const writer = (ENDPOINTS as Record<string, protocol.Endpoint>)[name]?.answers[Number(status)];
        if (reader === null) return [];
        if (writer === undefined || writer === null) return [`${name}.${status} is not answered any more`];
        const place = `${name}.${status}`;
        const settled = BODIES.includes(place)
          ? [...added.map((field) => `/spec/${field}: new field`), ...inTasks("/spec")]
          : [];
        return unreadable(reader, writer)
          .filter((line) => !settled.includes(line))
          .map((line) => `${place}${line}`)
          .filter((line) => !WITHHELD.includes(line));
      }),
    );
    const frames = unreadable(old.serverFrameSchema, protocol.serverFrameSchema).filter(
      // Frames of a kind that it does not know are passed over.
      (line) => !line.startsWith("/op: new value"),
    );
    const snapshots = [
      unreadable(old.deploymentSnapshotSchema, protocol.deploymentSnapshotSchema),
      unreadable(old.namespaceSnapshotSchema, protocol.namespaceSnapshotSchema),
      unreadable(old.problemSchema, protocol.problemSchema),
    ].flat();
    expect([...findings, ...frames, ...snapshots], HOW).toEqual([]);
  });

  it("is understood in whatever it asks for and sends", async () => {
    const old = await releasedProtocol(release);
    const findings = Object.entries(old.ENDPOINTS).flatMap(([name, endpoint]) => {
      const now = (ENDPOINTS as Record<string, protocol.Endpoint>)[name];
      if (now === undefined) return [`${name} is gone`];
      if (now.method !== endpoint.method || now.path !== endpoint.path) return [`${name} has moved`];
      if (endpoint.body === null) return [];
      if (now.body === null) return [`${name} takes no body any more`];
      return unreadable(now.body, endpoint.body).map((line) => `${name}${line}`);
    });
    expect(findings, HOW).toEqual([]);
    expect(unreadable(protocol.clientFrameSchema, old.clientFrameSchema), HOW).toEqual([]);
    expect(unreadable(protocol.pushBodySchema, old.pushBodySchema), HOW).toEqual([]);
  });

  it("reads the recorded messages of this version", async () => {
    const old = await releasedProtocol(release);
    const folder = join(import.meta.dirname, `../../protocol/fixtures/v${PROTOCOL_VERSION}`);
    const schemas = messageSchemas(old);
    // What a newer peer sends is not for an older one to read: brokers are deployed first.
    const sent = new Set(Object.values(ENDPOINTS).map(({ body }) => body?.meta()?.["id"]));
    const unread = Object.entries(schemas).filter(([name, schema]) => {
      const message = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8")) as { spec?: protocol.SubmitBody };
      const shown = message.spec === undefined ? message : { ...message, spec: readableIn(version, message.spec) };
      return !sent.has(name) && !schema.safeParse(shown).success;
    });
    expect(readdirSync(folder).length).toBeGreaterThan(40);
    expect(unread.map(([name]) => name)).toEqual([]);
  });

  it("is given no body that it could not read, and is shown the part that it can", async () => {
    const old = await releasedProtocol(release);
    const later = laterFields(submitBodySchema, old.submitBodySchema);
    const known = Object.keys(old.submitBodySchema.shape);
    const body = { task: { kind: "shell", script: "true" } } as protocol.SubmitBody;
    expect(old.submitBodySchema.safeParse(body).success).toBe(true);
    expect(Object.fromEntries(known.map((field) => [field, protocolOf({ ...body, [field]: 1 }) <= version]))).toEqual(
      Object.fromEntries(known.map((field) => [field, true])),
    );
    for (const field of [...later, "quorum", "secrets"]) {
      const newer = { ...body, [field]: {} };
      expect(protocolOf(newer), HOW).toBeGreaterThan(version);
      expect(old.submitBodySchema.safeParse(newer).success).toBe(false);
      expect(readableIn(version, newer)).toEqual(body);
      expect(readableIn(PROTOCOL_VERSION, newer)).toEqual(newer);
    }
    for (const field of REPOSITORY_FIELDS) {
      const newer = { task: { kind: "repository", [field]: true } } as unknown as protocol.SubmitBody;
      expect(protocolOf(newer), HOW).toBeGreaterThan(version);
      expect(readableIn(version, newer)).toEqual({ task: { kind: "repository" } });
    }
    const effect = { task: { kind: "effect", installable: ".#deploy" } } as protocol.SubmitBody;
    expect(protocolOf(effect)).toBeLessThanOrEqual(version);
    for (const field of EFFECT_FIELDS) {
      const newer = { ...effect, task: { ...effect.task, [field]: "true" } };
      expect(protocolOf(newer), HOW).toBeGreaterThan(version);
      expect(readableIn(version, newer)).toEqual(effect);
    }
    // What the other known fields hold has not grown: such growth would need to be withheld too.
    expect(
      unreadable(old.submitBodySchema, submitBodySchema).filter(
        (line) => !later.some((field) => line === `/${field}: new field`) && !inTasks("").includes(line),
      ),
      HOW,
    ).toEqual([]);
  });
});

describe("reading by an older schema", () => {
  const shape = z.object({ kind: z.enum(["a", "b"]), list: z.array(z.strictObject({ name: z.string().max(3) })) });
  it.each([
    ["a new value", z.object({ ...shape.shape, kind: z.enum(["a", "c"]) }), ['/kind: new value "c"']],
    ["free text", z.object({ ...shape.shape, kind: z.string() }), ["/kind: any value, where some were named"]],
    ["a field that may be missing", shape.partial({ kind: true }), ["/kind: may be missing"]],
    [
      "a field that may be null",
      z.object({ ...shape.shape, kind: shape.shape.kind.nullable() }),
      ["/kind: null instead of string"],
    ],
    [
      "a field in a strict object",
      z.object({
        ...shape.shape,
        list: z.array(z.strictObject({ name: z.string().max(3), more: z.int().optional() })),
      }),
      ["/list/-/more: new field"],
    ],
    [
      "a longer text",
      z.object({ ...shape.shape, list: z.array(z.object({ name: z.string().max(4) })) }),
      ["/list/-/name: a greater maxLength"],
    ],
    ["another type", z.object({ ...shape.shape, list: z.string() }), ["/list: string instead of array"]],
  ])("is stopped by %s", (_, writer, findings) => {
    expect(unreadable(shape, writer)).toEqual(findings);
  });

  it("is not stopped by a new field of an open object, nor by fewer values", () => {
    expect(unreadable(shape, z.object({ ...shape.shape, kind: z.literal("a"), more: z.string().optional() }))).toEqual(
      [],
    );
  });
});
