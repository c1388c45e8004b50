import { createPublicKey, verify } from "node:crypto";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { createKey, loadKey } from "../../runner/src/key.ts";
import { agentSigner, listAgentKeys } from "../../runner/src/ssh-agent.ts";

const root = mkdtempSync(join(tmpdir(), "plumule-key-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
});

const MESSAGE = Buffer.from("DSSEv1 4 type 7 payload");

function isSigned(publicKey: Uint8Array, signature: Uint8Array): boolean {
  const x = Buffer.from(publicKey).toString("base64url");
  return verify(null, MESSAGE, createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }), signature);
}

/** The raw public key in an OpenSSH `.pub` line: after the length-prefixed name and a length. */
function publicKeyOf(file: string): Uint8Array {
  return new Uint8Array(Buffer.from(readFileSync(`${file}.pub`, "utf8").split(" ")[1] ?? "", "base64").subarray(-32));
}

function keygen(name: string, ...args: string[]): string {
  const file = join(folder, name);
  execFileSync("ssh-keygen", ["-q", "-f", file, "-C", name, ...args]);
  return file;
}

async function load(path: string): Promise<Awaited<ReturnType<typeof loadKey>> & { ok: true }> {
  const result = await loadKey(path);
  if (!result.ok) throw new Error(result.detail);
  return result;
}

describe("a key file", () => {
  test("is made with mode 0600, loads as the same key, and signs", async () => {
    const path = join(folder, "new/runner.key");
    const made = await createKey(path);
    if (!made.ok) throw new Error(made.detail);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const { signer } = await load(path);
    expect(signer.publicKey).toEqual(made.signer.publicKey);
    expect(isSigned(signer.publicKey, await signer.sign(MESSAGE))).toBe(true);
  });

  test("is never overwritten", async () => {
    const path = join(folder, "runner.key");
    await createKey(path);
    const before = readFileSync(path);
    expect(await createKey(path)).toMatchObject({ ok: false, reason: "exists" });
    expect(readFileSync(path)).toEqual(before);
  });

  test.each([0o640, 0o604, 0o660, 0o777])("that others may read is refused (mode %o)", async (mode) => {
    const path = join(folder, "runner.key");
    await createKey(path);
    chmodSync(path, mode);
    expect(await loadKey(path)).toMatchObject({
      ok: false,
      reason: "permissions",
      detail: expect.stringContaining("chmod 600"),
    });
  });

  test("of OpenSSH is read when it has no passphrase", async () => {
    const file = keygen("plain", "-t", "ed25519", "-N", "");
    const { signer } = await load(file);
    expect(signer.publicKey).toEqual(publicKeyOf(file));
    expect(isSigned(publicKeyOf(file), await signer.sign(MESSAGE))).toBe(true);
  });

  test("of another kind, damaged, with a passphrase or missing is refused with the reason", async () => {
    expect(await loadKey(keygen("locked", "-t", "ed25519", "-N", "a passphrase"))).toMatchObject({
      reason: "encrypted",
    });
    expect(await loadKey(keygen("ecdsa", "-t", "ecdsa", "-N", ""))).toMatchObject({
      reason: "format",
      detail: expect.stringContaining("ecdsa"),
    });
    expect(await loadKey(join(folder, "nowhere"))).toMatchObject({ reason: "missing" });
    expect(await loadKey("/dev/null")).toMatchObject({ reason: "format" });
    expect(await loadKey(folder)).toMatchObject({ reason: "format" });
    const damaged = readFileSync(keygen("whole", "-t", "ed25519", "-N", ""), "utf8").split("\n");
    const texts = [
      "",
      "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
      damaged.toSpliced(2, 1).join("\n"),
      "x".repeat(20_000),
    ];
    for (const text of texts) {
      writeFileSync(join(folder, "bad"), text, { mode: 0o600 });
      expect(await loadKey(join(folder, "bad"))).toMatchObject({ ok: false, reason: "format" });
    }
  });

  test("behind a symbolic link is judged by its own mode", async () => {
    const path = join(folder, "runner.key");
    await createKey(path);
    symlinkSync(path, join(folder, "link"));
    expect(await loadKey(join(folder, "link"))).toMatchObject({ ok: true });
    chmodSync(path, 0o644);
    expect(await loadKey(join(folder, "link"))).toMatchObject({ reason: "permissions" });
  });
});

describe("an ssh-agent", () => {
  let agent: ChildProcess;
  let socket: string;
  beforeEach(async () => {
    socket = join(folder, "agent.sock");
    agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: "ignore" });
    await expect.poll(() => existsSync(socket)).toBe(true);
  });
  afterEach(() => void agent.kill());
  const add = (file: string): unknown =>
    execFileSync("ssh-add", ["-q", file], { env: { ...process.env, SSH_AUTH_SOCK: socket }, stdio: "ignore" });

  test("lists its Ed25519 keys and signs raw bytes with them", async () => {
    expect(await listAgentKeys(socket)).toEqual([]);
    const file = keygen("radicle", "-t", "ed25519", "-N", "");
    add(keygen("other", "-t", "ecdsa", "-N", ""));
    add(file);
    expect(await listAgentKeys(socket)).toEqual([{ publicKey: publicKeyOf(file), comment: "radicle" }]);
    const signer = agentSigner(socket, publicKeyOf(file));
    const signatures = await Promise.all([1, 2, 3].map(() => signer.sign(MESSAGE)));
    for (const signature of signatures) expect(isSigned(signer.publicKey, signature)).toBe(true);
    const { signer: direct } = await load(file);
    expect(signatures[0]).toEqual(await direct.sign(MESSAGE));
  });

  test("that does not hold the key, or is not there, is an error that says so", async () => {
    const missing = agentSigner(socket, publicKeyOf(keygen("absent", "-t", "ed25519", "-N", "")));
    await expect(missing.sign(MESSAGE)).rejects.toThrow("refused");
    await expect(listAgentKeys(join(folder, "nowhere"))).rejects.toThrow("ENOENT");
  });

  test("that answers with rubbish is an error, never a signature", async () => {
    const word = (value: number): Buffer => Buffer.from([value >> 24, value >> 16, value >> 8, value]);
    const string = (value: string | Buffer): Buffer =>
      Buffer.concat([word(Buffer.byteLength(value)), Buffer.from(value)]);
    const blob = Buffer.concat([string("ssh-ed25519"), string(Buffer.alloc(64))]);
    const wrongSignature = Buffer.concat([Buffer.from([14]), string(blob)]);
    const answers = [
      Buffer.concat([word(wrongSignature.length), wrongSignature]),
      Buffer.from("HTTP/1.1 400 Bad Request\r\n"),
      Buffer.concat([word(5), Buffer.from([14]), word(1_000)]),
      Buffer.alloc(0),
    ];
    for (const [index, answer] of answers.entries()) {
      const path = join(folder, `fake-${index}`);
      const server = createServer((connection) => void connection.once("data", () => connection.end(answer)));
      await new Promise<void>((resolve) => server.listen(path, resolve));
      await expect(agentSigner(path, new Uint8Array(32).fill(9)).sign(MESSAGE)).rejects.toThrow(/ssh-agent|too early/);
      server.close();
    }
  });
});
