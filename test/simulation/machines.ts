import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { didKeyOf } from "@plumule/protocol";
import type { startRunner } from "../../runner/src/runner.ts";
import { runAs } from "./platform/clock.ts";
import { Computer, computerOf } from "./platform/computer.ts";
import { BROKER_URL, registrationOf, type Stage, type Tenant } from "./stage.ts";

/** A machine with a runner on it: runner and jobs may be killed, the disk stays. */
export class RunnerMachine {
  readonly name: string;
  /** The runner's did:key. */
  readonly id: string;
  readonly #stage: Stage;
  readonly #tenant: Tenant;
  readonly #startRunner: typeof startRunner;
  readonly #computer: Computer;
  readonly #capacity: number;
  #pid = 0;
  #isComingBack = false;

  constructor(
    stage: Stage,
    of: { name: string; tenant: Tenant; number: number; capacity: number; startRunner: typeof startRunner },
  ) {
    this.#stage = stage;
    this.#tenant = of.tenant;
    this.#startRunner = of.startRunner;
    this.#capacity = of.capacity;
    this.name = of.name;
    this.#computer = new Computer(stage.world);
    const { disk } = this.#computer;
    disk.makeFolder(STATE);
    const key = disk.create(KEY, true);
    const privateKey = keyOf(of.number);
    const { x } = createPublicKey(privateKey).export({ format: "jwk" });
    this.id = didKeyOf(new Uint8Array(Buffer.from(x ?? "", "base64url")));
    disk.write(KEY, key, new TextEncoder().encode(privateKey.export({ type: "pkcs8", format: "pem" }).toString()));
    disk.syncFile(key);
    disk.syncFolder(STATE);
  }

  get isRunning(): boolean {
    return this.#computer.has(this.#pid);
  }

  /** Registers the machine's key and starts its runner. Resolves when the broker knows it. */
  async register(): Promise<void> {
    const registration = await registrationOf(this.#stage.edge, this.#tenant.ns);
    await new Promise<void>((resolve) => this.start(registration, resolve));
  }

  start(registration?: string, started?: () => void): void {
    const { pid, context } = this.#computer.start(this.name);
    this.#pid = pid;
    const options = {
      url: BROKER_URL,
      namespace: this.#tenant.ns,
      state: STATE,
      name: this.name,
      capacity: this.#capacity,
      isolation: "process-group" as const,
      ...(registration === undefined ? {} : { registration }),
    };
    const { world } = this.#stage;
    const say = (line: string): void => {
      world.note(`${this.name}: ${line}`);
      // Whatever its clock says and however it was killed, what a runner signs can be accepted.
      if (line.includes("The result is not accepted")) world.violate("I23", `${this.name}: ${line}`);
    };
    runAs(context, async () => {
      const runner = await this.#startRunner(options, { fetch: this.#stage.edge.fetch, say });
      if ("refused" in runner) throw new Error(`the runner was refused: ${runner.refused}`);
      started?.();
      // A runner that leaves by itself was refused by the broker, or met a fault: somebody starts it again.
      await runner.done;
      this.kill("it left");
    }).catch((error: unknown) => {
      say(`ended: ${String(error)}`);
      this.kill("it failed");
    });
  }

  /** Somebody starts it again after a while, if it is away; only one at a time. */
  comeBack(ms: number): void {
    if (this.isRunning || this.#isComingBack) return;
    this.#isComingBack = true;
    this.#stage.world.clock.after(ms, () => {
      this.#isComingBack = false;
      if (!this.isRunning) this.start();
    });
  }

  /** Ends the process. Those that do the work of its runs live on. */
  kill(why: string): void {
    if (!this.isRunning) return;
    this.#stage.world.note(`kill ${this.name}: ${why}`);
    this.#computer.kill(this.#pid);
  }

  /** Ends one of the processes that do the work of runs. */
  killSupervisor(): void {
    const pid = this.#computer.pids.find((one) => one !== this.#pid);
    if (pid === undefined) return;
    this.#stage.world.note(`kill a supervisor of ${this.name}`);
    this.#computer.kill(pid);
  }

  /** The machine loses its power. */
  losePower(): void {
    this.#stage.world.note(`no power for ${this.name}`);
    for (const execution of this.#stage.world.executions.values())
      if (computerOf(execution.owner) === this.#computer) execution.lostPower = true;
    this.#computer.losePower();
  }

  fill(isFull: boolean): void {
    this.#computer.disk.isFull = isFull;
  }

  /** Results that it has not delivered. */
  get resultCount(): number {
    const { disk } = this.#computer;
    return disk.isFolder(SPOOL) ? disk.list(SPOOL).length : 0;
  }

  /** Its wall clock jumps. */
  jump(skewMs: number): void {
    this.#computer.jump(skewMs);
  }
}

const STATE = "/var/lib/plumule-runner";
const KEY = `${STATE}/key.pem`;
const SPOOL = `${STATE}/spool`;

/** An Ed25519 key that follows from a number (RFC 8410). */
function keyOf(number: number): KeyObject {
  const seed = Buffer.alloc(32, number + 1);
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
}
