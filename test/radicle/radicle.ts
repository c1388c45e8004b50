import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import { once } from "node:events";

/** The crates that stand for Radicle, and the command that each of them brings. */
const CRATES = [
  ["radicle-cli", "0.23.0", "rad"],
  ["radicle-node", "0.21.1", "radicle-node"],
  ["radicle-remote-helper", "0.18.1", "git-remote-rad"],
  ["radicle-job", "0.6.0", "rad-job"],
  ["radicle-ci-broker", "0.32.1", "cib"],
] as const;

/** PATH with the programs of Radicle: those that are there, else ones that cargo builds once into a folder that git ignores, which takes half an hour. */
export function pathWithRadicle(): string {
  const path = process.env["PATH"] ?? "";
  const root = join(import.meta.dirname, "../../.plumule/radicle");
  const folders = [...path.split(delimiter), join(root, "bin")];
  for (const [crate, version, program] of CRATES) {
    if (folders.some((folder) => existsSync(join(folder, program)))) continue;
    execFileSync("cargo", ["install", "--locked", "--root", root, "--version", version, crate], { stdio: "inherit" });
  }
  return folders.join(delimiter);
}

/** A Radicle node of a test's own, which speaks on loopback with the nodes that are told to. */
export class RadicleNode {
  readonly home: string;
  readonly id: string;
  readonly #port: number;
  readonly #env: NodeJS.ProcessEnv;
  #process: ChildProcess | null = null;

  /** Its folder has to be short: the path of a Unix socket has some hundred characters. */
  constructor(folder: string, name: string, port: number, path: string) {
    this.home = join(folder, name);
    this.#port = port;
    const who = { GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: "a@example.org" };
    const committer = { GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: "a@example.org" };
    this.#env = { ...process.env, ...who, ...committer, PATH: path, RAD_HOME: this.home, RAD_PASSPHRASE: "" };
    delete this.#env["RAD_SOCKET"];
    mkdirSync(this.home);
    this.run(folder, "rad", "auth", "--alias", name, "--stdin");
    const config = join(this.home, "config.json");
    const settings = JSON.parse(readFileSync(config, "utf8")) as { node: object };
    const node = {
      ...settings.node,
      connect: [],
      network: "test",
      peers: { type: "static" },
      listen: [`127.0.0.1:${port}`],
      relay: "always",
      seedingPolicy: { default: "allow", scope: "all" },
    };
    writeFileSync(config, JSON.stringify({ ...settings, preferredSeeds: [], node }));
    this.id = this.run(folder, "rad", "self", "--nid").trim();
  }

  /** The environment of programs that are to find this node. */
  get env(): Record<string, string> {
    return Object.fromEntries(Object.entries(this.#env).filter((entry): entry is [string, string] => !!entry[1]));
  }

  /** Runs a program as the user of this node, in a folder; answers what it printed. */
  run(cwd: string, program: string, ...args: string[]): string {
    return execFileSync(program, args, { cwd, env: this.#env, encoding: "utf8", input: "", stdio: "pipe" });
  }

  async start(): Promise<void> {
    const child = spawn("radicle-node", ["--force"], { env: this.#env, stdio: "ignore" });
    this.#process = child;
    const socket = join(this.home, "node/control.sock");
    const answers = (): Promise<boolean> =>
      new Promise((resolve) => {
        const line = connect(socket, () => resolve(line.destroy() !== undefined)).on("error", () => resolve(false));
      });
    while (!(await answers())) {
      if (child.exitCode !== null) throw new Error(`radicle-node has ended with ${child.exitCode}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Connects to another node. */
  connect(folder: string, other: RadicleNode): void {
    this.run(folder, "rad", "node", "connect", `${other.id}@127.0.0.1:${other.#port}`);
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child === null || child.exitCode !== null) return;
    const ended = once(child, "exit");
    child.kill();
    await ended;
    rmSync(join(this.home, "node/control.sock"), { force: true });
  }
}
