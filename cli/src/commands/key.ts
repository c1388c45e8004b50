import { createPublicKey } from "node:crypto";
import { resolve } from "node:path";
import { admitDidKey, didKeyOf } from "@plumule/protocol";
import { createKey, listAgentKeys, loadKey } from "@plumule/runner/settings";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { ageOf, paint, printDone, shortKey, tableLines } from "../print.ts";
import { defaultKeyFile } from "../runner-settings.ts";
import { inLine } from "../terminal-text.ts";
import { type PinnedKey, readPinned, trustFile, writePinned } from "../trust-store.ts";

/** `plumule key`: keys of runners, and the keys that one believes. */
export function keyCommand(): Command {
  const show = new Command("show")
    .summary("print the did:key of a key file, or of the ssh-agent's keys")
    .argument("[key]", "key file, or a did:key; by default the file of this user's runner")
    .option("--pem", "the public key as PEM, for openssl")
    .option("--agent", "the Ed25519 keys of the ssh-agent")
    .action(act(showKey));
  const make = new Command("new")
    .summary("make a new key file")
    .argument("[file]", "where to; by default for this user's runner. Never overwrites")
    .action(act(newKey));
  const trust = new Command("trust")
    .summary("believe results that are signed with a key")
    .argument("<did>", "did:key of a runner, from somebody who should know")
    .option("--name <name>", "what you call it")
    .action(act(pin));
  const untrust = new Command("untrust")
    .summary("believe a key no longer")
    .argument("<key>", "did:key, or the name that you gave it")
    .action(act(unpin));
  const list = new Command("ls").summary("list the keys that you believe").action(act(listKeys));
  const key = new Command("key").summary("make, show and pin keys");
  for (const command of [show, make, trust, untrust, list]) key.addCommand(command);
  return key;
}

async function showKey(
  { terminal, cwd, env }: Context,
  file: string | undefined,
  { agent, pem }: { agent?: true; pem?: true },
): Promise<ExitCode | Failure> {
  if (agent === true) return showAgent(terminal, env["SSH_AUTH_SOCK"]);
  if (file?.startsWith("did:")) {
    const admitted = admitDidKey(file);
    if (!admitted.ok) return misuse(`${file} is refused: ${admitted.detail}`, "Give the did:key of an Ed25519 key.");
    showPublic(terminal, admitted.value, { pem, file: null });
    return EXIT.ok;
  }
  const path = file === undefined ? defaultKeyFile(env) : resolve(cwd, file);
  const loaded = await loadKey(path);
  if (!loaded.ok)
    return loaded.reason === "missing"
      ? { exit: EXIT.notFound, what: `There is no key at ${path}`, next: "Make one: `plumule key new`." }
      : misuse(loaded.detail, "Give a PKCS #8 or OpenSSH file of an Ed25519 key.");
  showPublic(terminal, loaded.signer.publicKey, { pem, file: path });
  return EXIT.ok;
}

function showPublic(
  terminal: Context["terminal"],
  publicKey: Uint8Array,
  { pem, file }: { pem: true | undefined; file: string | null },
): void {
  const did = didKeyOf(publicKey);
  if (terminal.json) terminal.data({ key: did, file, pem: pemOf(publicKey) });
  else terminal.out(pem === true ? pemOf(publicKey).trimEnd() : did);
}

/** SubjectPublicKeyInfo of an Ed25519 key (RFC 8410) in PEM. */
function pemOf(publicKey: Uint8Array): string {
  const x = Buffer.from(publicKey).toString("base64url");
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" })
    .export({ type: "spki", format: "pem" })
    .toString();
}

async function showAgent(terminal: Context["terminal"], socket: string | undefined): Promise<ExitCode | Failure> {
  if (socket === undefined) return misuse("There is no ssh-agent", "Start one and add the key: ssh-add.");
  const keys = await listAgentKeys(socket);
  for (const { publicKey, comment } of keys) {
    const did = didKeyOf(publicKey);
    if (terminal.json) terminal.data({ key: did, comment });
    else terminal.out(`${did}  ${paint.quiet(inLine(comment))}`);
  }
  if (keys.length === 0) terminal.note("the ssh-agent has no Ed25519 key");
  return EXIT.ok;
}

async function newKey({ terminal, cwd, env }: Context, file: string | undefined): Promise<ExitCode | Failure> {
  const path = file === undefined ? defaultKeyFile(env) : resolve(cwd, file);
  const made = await createKey(path);
  if (!made.ok) return { exit: EXIT.conflict, what: made.detail, next: `See it: plumule key show ${path}` };
  const key = didKeyOf(made.signer.publicKey);
  printDone(terminal, {
    line: `${key} in ${path}`,
    next: `plumule key trust ${key}`,
    id: key,
    answer: { key, file: path },
  });
  return EXIT.ok;
}

async function pin({ terminal, env }: Context, key: string, { name }: { name?: string }): Promise<ExitCode | Failure> {
  const admitted = admitDidKey(key);
  if (!admitted.ok)
    return misuse(`${key} cannot be trusted: ${admitted.detail}`, "Give the did:key of an Ed25519 key.");
  const kept = await readPinned(env);
  if (isFailure(kept)) return kept;
  const pinned: PinnedKey = { key, name: name ?? null, pinnedAt: new Date().toISOString() };
  await writePinned(env, [...kept.filter((one) => one.key !== key), pinned]);
  const line = `results signed with ${name ?? shortKey(key)} are believed from now on`;
  printDone(terminal, { line, next: "plumule verify", id: key, answer: pinned });
  return EXIT.ok;
}

async function unpin({ terminal, env }: Context, which: string): Promise<ExitCode | Failure> {
  const kept = await readPinned(env);
  if (isFailure(kept)) return kept;
  const gone = kept.filter(({ key, name }) => key === which || name === which);
  if (gone.length === 0)
    return { exit: EXIT.notFound, what: `${which} is not pinned`, next: "See what is: `plumule key ls`." };
  await writePinned(
    env,
    kept.filter((one) => !gone.includes(one)),
  );
  const line = `${gone.map(({ key }) => shortKey(key)).join(", ")} is believed no longer`;
  printDone(terminal, {
    line,
    next: "plumule key ls",
    id: gone.map(({ key }) => key).join("\n"),
    answer: { untrusted: gone },
  });
  return EXIT.ok;
}

async function listKeys({ terminal, env }: Context): Promise<ExitCode | Failure> {
  const kept = await readPinned(env);
  if (isFailure(kept)) return kept;
  if (terminal.json) for (const pinned of kept) terminal.data(pinned);
  else if (kept.length === 0)
    terminal.note(`no key is pinned in ${trustFile(env)}  ${paint.quiet("→ plumule key trust DID")}`);
  else {
    const rows = kept.map(({ key, name, pinnedAt }) => [inLine(name ?? ""), ageOf(pinnedAt, Date.now()), key]);
    for (const line of tableLines(["NAME", "AGE", "KEY"], rows)) terminal.out(line);
  }
  return EXIT.ok;
}
