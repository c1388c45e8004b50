import { receiveNamedHook, signWebhook, utf8 } from "@plumule/protocol";
import type { Book } from "./book.ts";
import { runAs } from "./platform/clock.ts";
import { ask, BROKER_URL, type Client, rest, type Stage, type Tenant } from "./stage.ts";

/** Tries of one webhook before its sender gives up. */
const TRIES = 8;

/** Somebody who pushes, and whose forge tells the broker: each push once or twice, each webhook until it is answered. */
export class Sender {
  readonly #stage: Stage;
  readonly #book: Book;
  readonly #client: Client;
  readonly #tenant: Tenant;
  #count = 0;

  constructor(stage: Stage, book: Book, client: Client, tenant: Tenant) {
    this.#stage = stage;
    this.#book = book;
    this.#client = client;
    this.#tenant = tenant;
  }

  async live(over: () => boolean): Promise<void> {
    const { life } = this.#stage.world;
    while (!over()) {
      await rest(this.#client, (3_000 + life.next() * 25_000) * this.#stage.pace);
      if (!over()) await this.#push();
    }
  }

  async #push(): Promise<void> {
    const { life } = this.#stage.world;
    this.#count += 1;
    const digits = `${this.#client.context.owner.name}${this.#count}`;
    const after = Buffer.from(digits.padEnd(20, "0")).toString("hex").slice(0, 40);
    const body = utf8(
      JSON.stringify({
        type: "push",
        audience: `${BROKER_URL}/v1/${this.#tenant.ns}`,
        repository: "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5",
        ref: `refs/heads/${life.pick(["main", "next"])}`,
        before: "1".repeat(40),
        after,
        message: `of ${this.#tenant.marker}`,
      }),
    );
    // Two nodes may tell of one push, each with an id of its own.
    const ids = life.chance(0.4) ? [`${digits}-a`, `${digits}-b`] : [`${digits}-a`];
    await Promise.all(ids.map((id) => this.#send(id, after, body)));
  }

  async #send(id: string, after: string, body: Uint8Array): Promise<void> {
    const { life } = this.#stage.world;
    const params = { ns: this.#tenant.ns, hook: "forge" };
    for (let count = 1; count <= TRIES; count += 1) {
      const headers = await runAs(this.#client.context, () =>
        signWebhook({
          id,
          timestampSeconds: Math.floor(Date.now() / 1000),
          body,
          secret: utf8(this.#tenant.hookSecret),
        }),
      );
      const answer = await ask(this.#client, receiveNamedHook, { params, body, headers: { ...headers } });
      if (answer?.ok === true) {
        this.#book.pushed.set(after, this.#tenant);
        return;
      }
      await rest(this.#client, life.next() * 1_000 * 2 ** count);
    }
  }
}
