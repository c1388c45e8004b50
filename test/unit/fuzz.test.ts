import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { admitUrl } from "../../runner/src/git.ts";
import { createLineSplitter, decodeLine, stripColour } from "../../runner/src/nix/lines.ts";
import { NixLog } from "../../runner/src/nix/parser.ts";
import { parseInstallable } from "../../runner/src/nix/installables.ts";
import { parseDerivationFile, parseDryRun } from "../../runner/src/nix/plan.ts";
import { readHookBody } from "../../durable-objects/namespace/core/push.ts";
import { checkOutgoingUrl } from "../../durable-objects/shared/outgoing.ts";
import { readClientFrame } from "../../durable-objects/shared/client-frame.ts";
import { createTextFilter } from "../../cli/src/terminal-text.ts";
import { PLAIN, styleLine } from "../../dashboard/src/sgr.ts";
import * as protocol from "../../protocol/src/index.ts";
import { almost, almostText, bytesOf } from "../support/mess.ts";
import { messageSchemas, wireSchemas } from "../support/wire.ts";
import { signerNumber } from "./trust-fixtures.ts";

/** Cases of all fuzz tests together; each takes its share. `npm run fuzz` asks for many more. */
const CASES = Number(process.env["PLUMULE_FUZZ_CASES"] ?? 5_000);
/** One input must not take this long, ms: an expression that backtracks without an end takes minutes. */
const SLOW_MS = 2_000;
/** What may be left in memory after everything was read, bytes. */
const LEFT_BYTES = 48 * 1024 * 1024;

const folder = join(import.meta.dirname, "../../protocol/fixtures");
const messages = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".json"))
  .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as unknown);
const logs = join(import.meta.dirname, "../fixtures/nix-logs");
const logLines = readdirSync(logs, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".stderr"))
  .flatMap((name) => readFileSync(join(logs, name), "utf8").split("\n").slice(0, 60));

/** What would move a cursor or turn text. */
// oxlint-disable-next-line no-control-regex -- controls are what must be gone
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e]/;

/** A share of the cases. A failure prints seed and path, with which fast-check repeats it. */
function share(percent: number): fc.Parameters<unknown> & { numRuns: number } {
  const seed = process.env["PLUMULE_FUZZ_SEED"];
  return { numRuns: Math.ceil((CASES * percent) / 100), ...(seed === undefined ? {} : { seed: Number(seed) }) };
}
const timeout = 20_000 + CASES * 20;

/** The answer of `read`, in time; what it throws fails the property. */
function quickly<T>(read: () => T): T {
  const started = performance.now();
  const answer = read();
  expect(performance.now() - started).toBeLessThan(SLOW_MS);
  return answer;
}

function heapBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

let signer: protocol.Signer;
let before: number;
beforeAll(async () => {
  signer = await signerNumber(1);
  before = heapBytes();
});

describe("whatever comes", () => {
  const schemas = Object.entries(wireSchemas());
  const named = Object.entries(messageSchemas());

  it("a schema takes or refuses it, and takes again what it made of it", { timeout }, () => {
    fc.assert(
      fc.property(almost(messages), fc.nat(), fc.nat(), (value, one, other) => {
        for (const [name, schema] of [schemas[one % schemas.length], named[other % named.length]].flatMap((it) =>
          it ? [it] : [],
        )) {
          const parsed = quickly(() => schema.safeParse(value));
          if (!parsed.success || /\.(?:params|query)$/.test(name)) continue;
          const sent = JSON.parse(JSON.stringify(parsed.data) ?? "null") as unknown;
          expect(schema.safeParse(sent).success, name).toBe(true);
        }
      }),
      share(35),
    );
  });

  it("a body is JSON that every reader reads alike, or refused", { timeout }, () => {
    fc.assert(
      fc.property(bytesOf(almost(messages)), (bytes) => {
        const parsed = quickly(() => protocol.parseJson(bytes));
        if (protocol.isRefusal(parsed)) return;
        expect(parsed.value).toEqual(JSON.parse(new TextDecoder().decode(bytes)));
        expect(JSON.stringify(parsed.value)).not.toContain('"__proto__":');
      }),
      share(15),
    );
  });

  it("a frame of a socket is read, refused, or ends the socket", { timeout }, () => {
    fc.assert(
      fc.property(
        fc.oneof(
          almost(messages).map((value) => JSON.stringify(value) ?? ""),
          almostText(["{", '{"op":"subscribe","id":"a"}']),
        ),
        (raw) => {
          expect(Object.keys(quickly(() => readClientFrame(raw)))).not.toHaveLength(0);
        },
      ),
      share(5),
    );
  });

  it("a webhook's body becomes an event or a refusal", { timeout }, () => {
    fc.assert(
      fc.property(
        almost(messages),
        fc.constantFrom(null, "push", "patch_created", "ping", "\0"),
        fc.boolean(),
        (value, eventType, signedByKey) => {
          const read = quickly(() =>
            readHookBody(value, { eventType, signedByKey, audience: "https://broker.test/v1/acme" }),
          );
          expect("kind" in read || protocol.isRefusal(read)).toBe(true);
        },
      ),
      share(5),
    );
  });

  it("a short text of any format is read or refused, and what is read is written the same", { timeout }, () => {
    const texts = [
      "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw",
      "e12:34",
      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      "AAECAw==",
      "00ff",
      "sha256:10551daed7fa467d0b58826e7eb9a0f2",
      "cache.example-1:MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
      ".#checks",
      "github:o/r/abc#x",
      "https://seed.example/r.git",
      "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5",
      'Derive([("out","/nix/store/a","","")],[],[],"x86_64-linux",',
      "these 2 derivations will be built:\n  /nix/store/a.drv",
    ];
    const source = { directory: "/w", kind: "files" } as const;
    fc.assert(
      fc.property(almostText(texts), (text) => {
        quickly(() => {
          const key = protocol.parseDidKey(text);
          if (key.ok) expect(protocol.didKeyOf(key.value)).toBe(text);
          protocol.admitDidKey(text);
          const cursor = protocol.parseCursor(text);
          if (cursor !== null)
            expect(protocol.parseCursor(protocol.formatCursor(cursor.epoch, cursor.sequence))).toEqual(cursor);
          const bytes = protocol.parseBase64(text);
          if (bytes !== null) expect(protocol.parseBase64(protocol.toBase64(bytes))).toEqual(bytes);
          const hex = protocol.parseHex(text);
          if (hex !== null) expect(protocol.toHex(hex)).toBe(text);
          const nix32 = protocol.parseNix32(text);
          if (nix32 !== null) expect(protocol.toNix32(nix32)).toBe(text);
          protocol.parseNarHash(text);
          protocol.parseNamedBytes(text, 32);
          protocol.parseWebhookSecret(text);
          const url = admitUrl(text, { allowLocal: true });
          if (!("refused" in url)) expect(url.url).toMatch(/^(?:https:|rad:|file:|\/)/);
          const outside = checkOutgoingUrl(text, { own: null });
          if (outside.ok) expect(outside.value.protocol).toBe("https:");
          const installable = parseInstallable(text, source);
          if (!("refused" in installable)) expect(installable.label).not.toMatch(/^-/);
          parseDerivationFile("/nix/store/x.drv", text);
          parseDryRun(text);
        });
      }),
      share(10),
    );
  });

  it("a signature in a header is verified or not", { timeout }, async () => {
    const body = protocol.utf8("{}");
    const signed = await protocol.signWebhook({ id: "msg_1", timestampSeconds: 1_700_000_000, body, signer });
    const trust = { ed25519Keys: [signer.publicKey], secrets: [body], nowMs: 1_700_000_000_000, toleranceSeconds: 300 };
    await fc.assert(
      fc.asyncProperty(
        almostText(Object.values(signed)),
        fc.constantFrom("webhook-id", "webhook-timestamp", "webhook-signature"),
        async (text, name) => {
          const headers: Record<string, string> = { ...signed, [name]: text };
          const verified = await protocol.verifyWebhook({ get: (asked) => headers[asked] ?? null }, body, trust);
          // Another list may hold the right signature; another id or time was not signed.
          if (verified.ok && name !== "webhook-signature")
            expect(headers[name]).toBe({ ...signed }[name as keyof typeof signed]);
          await protocol.verifyHubSignature(text, body, [body]);
        },
      ),
      share(4),
    );
  });

  it("an envelope that opens says what was signed", { timeout }, async () => {
    const payload = { namespace: "acme", sequence: 7, sha256: "0".repeat(64), at: "2026-11-20T10:00:00.000Z" };
    const type = protocol.AUDIT_HEAD_PAYLOAD_TYPE;
    const envelope = await protocol.signEnvelope(type, protocol.utf8(JSON.stringify(payload)), signer);
    await fc.assert(
      fc.asyncProperty(almost([envelope]), async (value) => {
        const opened = await protocol.openEnvelope(value, { keys: [signer.publicKey], payloadTypes: [type] });
        if (opened.ok) expect(opened.value.value).toEqual(payload);
        await protocol.verifyStatement(value, { signers: [protocol.didKeyOf(signer.publicKey)] });
        await protocol.verifyAudit([JSON.stringify({ head: value })], { keys: [signer.publicKey], namespace: null });
      }),
      share(4),
    );
  });

  it("a line of Nix is told as something, and never twice as large as it was", { timeout }, () => {
    fc.assert(
      fc.property(fc.array(almostText(logLines), { minLength: 1, maxLength: 6 }), (lines) => {
        quickly(() => {
          const splitter = createLineSplitter();
          const log = new NixLog();
          const text = lines.join("\n");
          for (const line of [...splitter.push(protocol.utf8(text)), ...splitter.end()]) {
            decodeLine(line);
            stripColour(line);
            const said = log.line(line, 0).map((output) => (output.kind === "log" ? output.text.length : 0));
            expect(Math.max(0, ...said)).toBeLessThanOrEqual(2 * line.length + 100);
          }
          log.finish({ exitCode: 1, atMs: 0 });
        });
      }),
      share(4),
    );
  });

  it("a log on a screen moves nothing", { timeout }, () => {
    const good = [
      "\u001b[1;31mred\u001b[0m",
      "\u001b]8;;javascript:x\u001b\\a",
      "\u001b]52;c;AAAA\u0007",
      "50%\r100%",
      "\u001bP1;1|x\u001b\\",
      "a\u202eb",
    ];
    fc.assert(
      fc.property(almostText(good), (text) => {
        quickly(() => {
          const filter = createTextFilter({ colours: false });
          expect(filter.push(text) + filter.flush()).not.toMatch(CONTROLS);
          for (const line of text.split("\n")) styleLine(line, PLAIN);
        });
      }),
      share(3),
    );
  });

  it("leaves nothing behind in memory", () => {
    expect(heapBytes() - before).toBeLessThan(LEFT_BYTES);
  });
});
