import { execFileSync, spawn } from "node:child_process";
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { deflateSync } from "node:zlib";
import { didKeyOf, repositoryIdOf } from "@plumule/protocol";

/** Somebody with a Radicle key. */
export type Person = { did: string; node: string; privateKey: KeyObject };

/** Makes somebody. */
export function newPerson(): Person {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const { x } = publicKey.export({ format: "jwk" });
  const did = didKeyOf(new Uint8Array(Buffer.from(x ?? "", "base64url")));
  return { did, node: did.slice("did:key:".length), privateKey };
}

/** Writes the public key by which a node is known, as OpenSSH has it (RFC 8709). */
export function writeNodeKey(radHome: string, { privateKey }: Person): void {
  const { x = "" } = privateKey.export({ format: "jwk" });
  const blob = Buffer.concat([
    Buffer.from("0000000b", "hex"),
    Buffer.from("ssh-ed25519"),
    Buffer.from("00000020", "hex"),
    Buffer.from(x, "base64url"),
  ]);
  mkdirSync(join(radHome, "keys"), { recursive: true });
  writeFileSync(join(radHome, "keys/radicle.pub"), `ssh-ed25519 ${blob.toString("base64")} radicle\n`);
}

/** How a repository is made. */
export type RepositoryKind = { delegates: readonly Person[]; allow?: readonly Person[] };

/**
 * A repository in a node's storage, in Radicle's layout, made by plain git: identity document, namespaces, signed refs with real signatures as
 * Radicle 1.7 writes them, and patches as collaborative objects.
 */
export class StorageRepository {
  readonly folder: string;
  readonly id: string;
  readonly #root: string;
  /** When the next thing happens, s since 1970: the clock of everybody who signs. */
  seconds = Math.floor(Date.now() / 1_000);

  constructor(radHome: string, { delegates, allow }: RepositoryKind) {
    const draft = join(radHome, "storage/draft");
    mkdirSync(draft, { recursive: true });
    execFileSync("git", ["init", "--quiet", "--bare", "--initial-branch=main", draft]);
    this.folder = draft;
    const document = JSON.stringify({
      delegates: delegates.map(({ did }) => did),
      payload: { "xyz.radicle.project": { defaultBranch: "main", description: "", name: "r" } },
      threshold: 1,
      ...(allow === undefined ? {} : { visibility: { type: "private", allow: allow.map(({ did }) => did) } }),
    });
    const blob = this.#blob(document);
    this.id = repositoryIdOf(blob);
    const embeds = this.#tree([["blob", blob, "radicle.json"]]);
    this.#root = this.#commit(this.#tree([["tree", embeds, "embeds"]]), [], "Initialize identity");
    this.folder = join(radHome, "storage", this.id);
    renameSync(draft, this.folder);
    this.git("update-ref", "refs/rad/id", this.#root);
  }

  /** Runs git in the storage. */
  git(...args: string[]): string {
    const env = { PATH: process.env["PATH"], GIT_CONFIG_NOSYSTEM: "1" };
    return execFileSync("git", ["--git-dir", this.folder, ...args], { env, encoding: "utf8" }).trim();
  }

  /** A commit of its own tree, by nobody in particular. */
  commit(message: string, parents: readonly string[] = []): string {
    return this.#commit(this.#tree([["blob", this.#blob(message), "file"]]), parents, message);
  }

  /** An annotated tag: an object that leads to a commit. */
  tagObject(name: string, commit: string): string {
    const text = `object ${commit}\ntype commit\ntag ${name}\ntagger a <a@example.org> ${this.seconds} +0000\n\n${name}\n`;
    return this.#object("tag", text);
  }

  /** Moves refs of somebody, null removes one, and signs what stands there then, as `git push rad` and a fetch both leave it. Answers the commit of the signed refs. */
  push({ node, privateKey }: Person, refs: Readonly<Record<string, string | null>>): string {
    const prefix = `refs/namespaces/${node}/`;
    for (const [ref, oid] of Object.entries(refs))
      this.git("update-ref", ...(oid === null ? ["-d", `${prefix}${ref}`] : [`${prefix}${ref}`, oid]));
    const here = this.git("for-each-ref", "--format=%(objectname) %(refname)", prefix).split("\n");
    const parent = here.find((line) => line.endsWith("/refs/rad/sigrefs"))?.split(" ")[0];
    const lines = here
      .filter((line) => line !== "" && !line.endsWith("/refs/rad/sigrefs"))
      .map((line) => line.replace(prefix, ""));
    lines.push(`${this.#root} refs/rad/root`, ...(parent === undefined ? [] : [`${parent} refs/rad/sigrefs-parent`]));
    const byName = lines.toSorted((one, other) => (one.split(" ")[1]! < other.split(" ")[1]! ? -1 : 1));
    return this.signRefs(node, privateKey, `${byName.join("\n")}\n`, parent);
  }

  /** Writes signed refs of these very bytes. */
  signRefs(node: string, key: KeyObject, text: string, parent: string | undefined): string {
    const tree = this.#tree([
      ["blob", this.#blob(text), "refs"],
      ["blob", this.#blob(sign(null, Buffer.from(text), key)), "signature"],
    ]);
    const at = this.#commit(tree, parent === undefined ? [] : [parent], "Update signed refs");
    this.git("update-ref", `refs/namespaces/${node}/refs/rad/sigrefs`, at);
    return at;
  }

  /** Moves a ref of the repository itself; null removes it. */
  setCanonical(ref: string, oid: string | null): void {
    this.git("update-ref", ...(oid === null ? ["-d", ref] : [ref, oid]));
  }

  /** An operation of a patch: a commit with its actions and trailers, after earlier operations. */
  patchOperation(actions: readonly object[], earlier: readonly string[], related: readonly string[]): string {
    const manifest = JSON.stringify({ typeName: "xyz.radicle.patch", version: 1 });
    const entries = actions.map((action, at) => ["blob", this.#blob(JSON.stringify(action)), String(at)] as const);
    const tree = this.#tree([...entries, ["blob", this.#blob(manifest), "manifest"]]);
    const trailers = [...related.map((oid) => `Rad-Related: ${oid}`), `Rad-Resource: ${this.#root}`].join("\n");
    return this.#commit(tree, [...earlier, ...related, this.#root], `Operation\n\n${trailers}`);
  }

  #blob(content: string | Buffer): string {
    return this.#object("blob", content);
  }

  #tree(entries: readonly (readonly [string, string, string])[]): string {
    const byName = entries.toSorted(([, , one], [, , other]) => (one < other ? -1 : 1));
    const parts = byName.flatMap(([type, oid, name]) => [
      Buffer.from(`${type === "tree" ? "40000" : "100644"} ${name}\0`),
      Buffer.from(oid, "hex"),
    ]);
    return this.#object("tree", Buffer.concat(parts));
  }

  #commit(tree: string, parents: readonly string[], message: string): string {
    const who = `a <a@example.org> ${this.seconds} +0000`;
    const headers = [
      `tree ${tree}`,
      ...parents.map((parent) => `parent ${parent}`),
      `author ${who}`,
      `committer ${who}`,
    ];
    return this.#object("commit", `${headers.join("\n")}\n\n${message}\n`);
  }

  /** Writes a loose object as git does (gitformat-loose(5)), without a process for each. */
  #object(type: string, content: string | Buffer): string {
    const body = Buffer.from(content);
    const bytes = Buffer.concat([Buffer.from(`${type} ${body.length}\0`), body]);
    const oid = createHash("sha1").update(bytes).digest("hex");
    const folder = join(this.folder, "objects", oid.slice(0, 2));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, oid.slice(2)), deflateSync(bytes));
    return oid;
  }
}

/** A node's control socket: it says what it is told to say. */
export class ControlSocket {
  readonly path: string;
  /** What subscribers have written. */
  readonly commands: string[] = [];
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;

  constructor(radHome: string) {
    mkdirSync(join(radHome, "node"), { recursive: true });
    this.path = join(radHome, "node/control.sock");
  }

  /** The node starts. */
  async open(): Promise<void> {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("data", (chunk) => this.commands.push(...chunk.toString().split("\n").filter(Boolean)));
    }).listen(this.path);
    await once(this.#server, "listening");
  }

  /** Says a line to every subscriber. */
  say(event: object | string): void {
    for (const socket of this.#sockets) socket.write(`${typeof event === "string" ? event : JSON.stringify(event)}\n`);
  }

  /** Drops every subscriber, as a node does with one whose channel is full. */
  drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The node stops. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    const closed = once(server, "close");
    server.close();
    this.drop();
    await closed;
  }
}

/** A seed that serves the public part of a storage as radicle-httpd does: `/<id>.git` by git-http-backend. */
export async function serveSeed(radHome: string): Promise<{ url: string; stop: () => Promise<void> }> {
  const server = createHttpServer((request, response) => void answer(radHome, request, response)).listen(
    0,
    "127.0.0.1",
  );
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

async function answer(radHome: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://seed");
  const child = spawn("git", ["-c", "uploadpack.allowAnySHA1InWant", "http-backend"], {
    env: {
      PATH: process.env["PATH"],
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_PROJECT_ROOT: join(radHome, "storage"),
      GIT_HTTP_EXPORT_ALL: "",
      REQUEST_METHOD: request.method,
      PATH_INFO: url.pathname.replace(".git/", "/"),
      QUERY_STRING: url.search.slice(1),
      CONTENT_TYPE: request.headers["content-type"] ?? "",
      ...(request.headers["content-encoding"] === undefined
        ? {}
        : { HTTP_CONTENT_ENCODING: request.headers["content-encoding"] }),
    },
    stdio: ["pipe", "pipe", "ignore"],
  });
  child.stdin.on("error", () => {});
  request.pipe(child.stdin);
  const output = await buffer(child.stdout);
  const end = output.indexOf("\r\n\r\n");
  const headers = output
    .toString("latin1", 0, end)
    .split("\r\n")
    .map((line) => line.split(": ") as [string, string]);
  const status = headers.find(([name]) => name === "Status")?.[1] ?? "200";
  response.writeHead(Number.parseInt(status, 10), Object.fromEntries(headers.filter(([name]) => name !== "Status")));
  response.end(output.subarray(end + 4));
}
