import { createServer, type Server } from "node:http";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { didKeyOf, LIMITS, type RunnerView, type Signer, signerFromSeed, signRecipient } from "@plumule/protocol";
import { newIdentity, openBox } from "@plumule/protocol/seal";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Connection, connectTo } from "../../cli/src/connection.ts";
import { isFailure } from "../../cli/src/failure.ts";
import { chooseRunners, sealAll, sealedLine, type SealTo, unpinnedAdvice } from "../../cli/src/sealing.ts";
import { readCondition, readSecrets } from "../../cli/src/secret-input.ts";

const cwd = mkdtempSync(join(tmpdir(), "plumule-cli-secrets-"));
const env = { XDG_CONFIG_HOME: join(cwd, "config") };
const createdAt = "2026-11-21T10:00:00.000Z";
writeFileSync(join(cwd, "key"), "hunter2!\n");
writeFileSync(join(cwd, "empty"), "");
writeFileSync(join(cwd, "condition.json"), JSON.stringify({ or: [{ branch: "main" }, { deployment: "blog" }] }));
afterAll(() => rmSync(cwd, { recursive: true, force: true }));

describe("a secret on the command line", () => {
  it("is the bytes of a file, or a name of one that is stored", async () => {
    expect(await readSecrets(["KEY=@key", "stored"], cwd)).toEqual([
      { name: "KEY", value: Buffer.from("hunter2!\n") },
      { name: "stored", value: null },
    ]);
  });

  it("is refused as a value, with the reason and without the value", async () => {
    const failure = await readSecrets(["KEY=hunter2!"], cwd);
    expect(failure).toMatchObject({ exit: 2, what: "The value of KEY stands on the command line" });
    expect(failure).toMatchObject({ next: expect.stringContaining("Every program of this machine can read it there") });
    expect(JSON.stringify(failure)).not.toContain("hunter2!");
  });

  it.each([
    ["a name that is a path", ["../KEY=@key"], "is no name of a secret"],
    ["the same name twice", ["KEY=@key", "KEY"], "is given twice"],
    ["standard input twice", ["A=-", "B=-"], "Two secrets come from standard input"],
    ["an empty file", ["KEY=@empty"], "has 0 bytes"],
    ["a file that is not there", ["KEY=@nowhere"], "cannot be read"],
  ])("is refused with %s", async (_, flags, what) => {
    expect(await readSecrets(flags, cwd)).toMatchObject({ exit: 2, what: expect.stringContaining(what) });
  });
});

describe("a condition on the command line", () => {
  const repository = "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5";
  it.each<[string[], unknown]>([
    [["deployment=blog"], { deployment: "blog" }],
    [
      [`repository=${repository}`, "branch=main,release"],
      { and: [{ repository }, { or: [{ branch: "main" }, { branch: "release" }] }] },
    ],
    [["always"], { and: [] }],
    [["@condition.json"], { or: [{ branch: "main" }, { deployment: "blog" }] }],
  ])("%j", async (flags, condition) => {
    expect(await readCondition(flags, cwd)).toEqual(condition);
  });

  it.each<[string[], string]>([
    [[], "needs a condition"],
    [["branch=main"], "a branch of no repository"],
    [["branch"], "is no condition"],
    [["author=me"], "is no condition"],
    [["delegate=me"], "is no condition"],
    [["@key"], "cannot be read"],
  ])("%j is refused", async (flags, what) => {
    expect(await readCondition(flags, cwd)).toMatchObject({ exit: 2, what: expect.stringContaining(what) });
  });
});

describe("the runners that secrets are sealed to", () => {
  let server: Server;
  let connection: Connection;
  let fleet: RunnerView[] = [];
  const keys: { signer: Signer; did: string; identity: string; recipient: string }[] = [];

  beforeAll(async () => {
    for (const fill of [1, 2, 3]) {
      const signer = await signerFromSeed(new Uint8Array(32).fill(fill));
      keys.push({ signer, did: didKeyOf(signer.publicKey), ...(await newIdentity()) });
    }
    server = createServer((_, response) => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ items: fleet, nextCursor: null }));
    });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const { port } = server.address() as AddressInfo;
    const place = { url: `http://127.0.0.1:${port}`, namespace: "acme", token: "t", foundIn: "the test" };
    const connected = connectTo(place);
    if (isFailure(connected)) throw new Error(connected.what);
    connection = connected;
  });
  afterAll(() => void server.close());

  async function runner(at: number, over: Partial<RunnerView> = {}, signedBy = at): Promise<RunnerView> {
    const offer = { name: `r${at}`, systems: ["x86_64-linux"], features: [], labels: [], version: "1", capacity: 1 };
    return {
      id: keys[at]!.did,
      name: `r${at}`,
      pool: "default",
      state: "online",
      drained: false,
      revoked: false,
      offer: { ...offer, isolation: "process-group" },
      busy: 0,
      registeredAt: createdAt,
      seenAt: createdAt,
      recipient: await signRecipient({ recipient: keys[at]!.recipient, createdAt }, keys[signedBy]!.signer),
      ...over,
    };
  }
  const choose = (
    named: string[],
    requires?: Parameters<typeof chooseRunners>[2]["requires"],
  ): ReturnType<typeof chooseRunners> => chooseRunners(connection, env, { named, requires });
  const names = (chosen: unknown): unknown =>
    Array.isArray(chosen) ? (chosen as SealTo[]).map(({ name }) => name) : chosen;

  it("are by default all that match the job and are not revoked, and the person is told whose word that is", async () => {
    const { recipient: _, ...silent } = await runner(2);
    fleet = [await runner(0), await runner(1, { revoked: true }), silent];
    const chosen = await choose([]);
    expect(names(chosen)).toEqual(["r0"]);
    expect(sealedLine(["KEY"], chosen as SealTo[])).toMatch(/^KEY can be opened by r0 z6Mk\w{4}…\w{4}$/);
    expect(unpinnedAdvice(chosen as SealTo[], [])).toContain("the broker named these runners");
    expect(await choose([], { systems: ["aarch64-linux"] })).toMatchObject({ exit: 9 });
  });

  it("are those that are named, by key or by the name of a pinned key", async () => {
    fleet = [await runner(0), await runner(1), await runner(2)];
    mkdirSync(join(env.XDG_CONFIG_HOME, "plumule"), { recursive: true });
    const pins = { keys: [{ key: keys[2]!.did, name: "queen", pinnedAt: createdAt }] };
    writeFileSync(join(env.XDG_CONFIG_HOME, "plumule", "trust.json"), JSON.stringify(pins));
    const chosen = await choose([keys[0]!.did, "queen"]);
    expect(names(chosen)).toEqual(["r0", "r2"]);
    expect(unpinnedAdvice(chosen as SealTo[], ["queen"])).toBeNull();
    const sealed = await sealAll([{ name: "KEY", value: Buffer.from("hunter2!") }], chosen as SealTo[], {
      namespace: "acme",
      workSha256: null,
      condition: { and: [] },
      expiresAt: null,
    });
    if (isFailure(sealed)) throw new Error(sealed.what);
    const [{ box = "", runners } = {}] = sealed;
    expect(runners).toEqual([keys[0]!.did, keys[2]!.did]);
    const opened = await Promise.all(keys.map(({ identity }) => openBox(box, identity)));
    expect(opened.map(({ ok }) => ok)).toEqual([true, false, true]);
  });

  it("never include a named key for which the broker shows a key of its own", async () => {
    fleet = [await runner(0, {}, 1)];
    expect(await choose([keys[0]!.did])).toMatchObject({
      exit: 8,
      next: "Do not use this broker for secrets before you know why.",
    });
    expect(await choose([])).toMatchObject({ exit: 9 });
  });

  it("are not guessed: a key that is not registered, or no key at all, is said", async () => {
    fleet = [await runner(0)];
    expect(await choose([keys[1]!.did])).toMatchObject({ exit: 4, what: expect.stringContaining(keys[1]!.did) });
    expect(await choose(["king"])).toMatchObject({ exit: 2, what: "king is no key" });
  });

  it("are no more than a box can hold", async () => {
    const one = await runner(0);
    fleet = Array.from({ length: LIMITS.secretRunners + 1 }, () => one);
    expect(await choose([])).toMatchObject({ exit: 2 });
  });
});
