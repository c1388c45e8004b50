import { currentContext, runAs } from "./clock.ts";
import { copyOf } from "./copy.ts";
import type { Network } from "./network.ts";
import { HostedObject, type ObjectClass } from "./objects.ts";
import type { World } from "./world.ts";

/** The namespaces of objects that a Worker is bound to, as stubs that reach objects over a network. */
export class ObjectHosts {
  readonly all = new Map<string, HostedObject>();
  /** What objects are bound to. */
  env: unknown = null;
  readonly #world: World;
  readonly #network: Network;
  readonly #classes = new Map<string, ObjectClass>();
  readonly #born: (host: HostedObject) => void;

  /** `born` gets each object when it comes into being. */
  constructor(world: World, network: Network, born: (host: HostedObject) => void) {
    this.#world = world;
    this.#network = network;
    this.#born = born;
  }

  /** A binding: `getByName` gives a stub. Making a stub wakes nothing. */
  bind(className: string, objectClass: ObjectClass): { getByName(name: string): unknown } {
    this.#classes.set(className, objectClass);
    return { getByName: (name) => this.#stub(className, name) };
  }

  find(className: string, name: string): HostedObject | undefined {
    return this.all.get(`${className} ${name}`);
  }

  host(className: string, name: string): HostedObject {
    const key = `${className} ${name}`;
    const known = this.all.get(key);
    const objectClass = this.#classes.get(className);
    if (known !== undefined) return known;
    if (objectClass === undefined) throw new Error(`no class ${className}`);
    const made = new HostedObject(this.#world, { className, name, objectClass, env: this.env });
    this.all.set(key, made);
    this.#born(made);
    return made;
  }

  #stub(className: string, name: string): unknown {
    return new Proxy(
      { name },
      {
        get: (target, property) => {
          if (typeof property !== "string" || property === "then") return undefined;
          if (property === "name") return target.name;
          return (...args: unknown[]) => this.#remoteCall(className, name, property, args);
        },
      },
    );
  }

  #remoteCall(className: string, name: string, method: string, args: unknown[]): Promise<unknown> {
    const caller = currentContext();
    if (caller === null) throw new Error("nobody calls");
    const copies = method === "fetch" ? args : args.map(copyOf);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const send = (): void =>
      this.#network.exchange<unknown>(caller.owner, {
        from: caller.owner.name,
        to: `${className} ${name}`,
        distance: "near",
        ask: (answer, fail) => {
          this.#world.note(`${caller.owner.name} > ${className} ${name} ${method}`);
          this.host(className, name).call(method, copies, caller.stranger, answer, fail);
        },
        answered: (value) => runAs(caller, () => resolve(value)),
        failed: (error) => runAs(caller, () => reject(error)),
      });
    // The output gate of the object that calls.
    const from = this.all.get(caller.owner.name);
    if (from !== undefined && from.owner === caller.owner) from.storage.leave(send);
    else send();
    return promise;
  }
}
