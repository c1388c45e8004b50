import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type RadicleNode as Running, setApart, startRadicleNode } from "../../cli/src/demo/radicle-node.ts";

/** A Radicle node of a test's own, which speaks on loopback with the nodes that are told to. */
export class RadicleNode {
  readonly home: string;
  readonly id: string;
  readonly #port: number;
  readonly #env: NodeJS.ProcessEnv & { RAD_HOME: string };
  #process: Running | null = null;

  /** Its folder has to be short: the path of a Unix socket has some hundred characters. */
  constructor(folder: string, name: string, port: number) {
    this.home = join(folder, name);
    this.#port = port;
    const who = { GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: "a@example.org" };
    const committer = { GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: "a@example.org" };
    this.#env = { ...process.env, ...who, ...committer, RAD_HOME: this.home, RAD_PASSPHRASE: "" };
    // The person's own node and agent are left alone.
    for (const variable of ["RAD_SOCKET", "SSH_AUTH_SOCK"]) delete this.#env[variable];
    mkdirSync(this.home);
    this.run(folder, "rad", "auth", "--alias", name, "--stdin");
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
    await setApart(this.home, [`127.0.0.1:${this.#port}`]);
    this.#process = await startRadicleNode(this.#env);
  }

  /** Connects to another node. */
  connect(folder: string, other: RadicleNode): void {
    this.run(folder, "rad", "node", "connect", `${other.id}@127.0.0.1:${other.#port}`);
  }

  async stop(): Promise<void> {
    await this.#process?.stop();
    rmSync(join(this.home, "node/control.sock"), { force: true });
  }
}
