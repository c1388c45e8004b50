import { type Context, currentContext, newOwner, type Owner } from "./clock.ts";
import { Disk } from "./disk.ts";
import type { World } from "./world.ts";

const computers = new WeakMap<Owner, Computer>();

/** A machine: its disk, which stays, and its processes, which end with its power. */
export class Computer {
  readonly disk: Disk;
  readonly world: World;
  /** Lives of the machine so far; numbers of processes are not given out twice in one of them. */
  bootCount = 1;
  readonly #processes = new Map<number, Owner>();
  #lastPid = 100;
  #skewMs = 0;

  constructor(world: World) {
    this.world = world;
    this.disk = new Disk(world);
  }

  /** Begins a process. */
  start(name: string): { pid: number; context: Context } {
    const pid = (this.#lastPid += 1);
    const owner = newOwner(name, this.#skewMs);
    owner.crashed = (error) => {
      this.world.note(`${name} crashed: ${String(error)}`);
      this.kill(pid);
    };
    computers.set(owner, this);
    this.#processes.set(pid, owner);
    return { pid, context: { owner, stranger: false } };
  }

  /** True when a process is there. */
  has(pid: number): boolean {
    return this.#processes.get(pid)?.alive === true;
  }

  /** Ends a process at once. */
  kill(pid: number): void {
    const owner = this.#processes.get(pid);
    if (owner !== undefined) owner.alive = false;
    this.#processes.delete(pid);
  }

  /** The numbers of all processes. */
  get pids(): number[] {
    return [...this.#processes.keys()];
  }

  losePower(): void {
    for (const pid of this.pids) this.kill(pid);
    this.disk.losePower();
    this.bootCount += 1;
  }

  /** The wall clock jumps; the monotonic one does not. */
  jump(skewMs: number): void {
    this.#skewMs = skewMs;
    for (const owner of this.#processes.values()) owner.skewMs = skewMs;
  }
}

/** The machine of a process. */
export function computerOf(owner: Owner): Computer | undefined {
  return computers.get(owner);
}

/** The machine of the process that runs now. */
export function currentComputer(): Computer {
  const owner = currentContext()?.owner;
  const computer = owner === undefined ? undefined : computerOf(owner);
  if (computer === undefined) throw new Error("this process has no machine");
  return computer;
}

/** Its disk. */
export function currentDisk(): Disk {
  return currentComputer().disk;
}
