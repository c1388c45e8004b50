import { type Push } from "@plumule/protocol";
import { deliver, type DeliverDeps, describeEnd } from "./deliver.ts";
import type { DeliveryQueue, QueuedDelivery } from "./queue.ts";
import { waitFor } from "./waiting.ts";

/** What carrying needs of the world. `budgetMs` is how long one delivery may hold up those after it; `say` gets a line per delivery that came to an end. */
export type CourierDeps = DeliverDeps & { queue: DeliveryQueue; say: (line: string) => void };

/** Carries what is in the queue to the broker, oldest first. */
export interface Courier {
  /** There is something new in the queue. */
  wake(): void;
  /** Goes through the queue once; true when nothing is left. */
  round(): Promise<boolean>;
  /** Goes on until the signal aborts, with pauses that grow while the broker is away. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
}

/** After so many deliveries in a row that a round could not bring, the others wait too: the broker is away. */
const KEPT_COUNT = 3;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

/** Makes a courier. */
export function createCourier({ queue, say, ...deps }: CourierDeps): Courier {
  let alarm = Promise.withResolvers<void>();
  const round = async (signal?: AbortSignal): Promise<boolean> => {
    let [keptCount, isEmpty] = [0, true];
    for (const queued of await queue.list()) {
      if (signal?.aborted === true) return false;
      if (keptCount >= KEPT_COUNT) return false;
      const result = await deliver(queued, { ...deps, patient: true, budgetMs: keptCount === 0 ? deps.budgetMs : 0 });
      if (result.end === "kept") isEmpty = false;
      else await queue.settle(queued.id);
      // Once per round: a broker that is away is away for all of them.
      if (result.end !== "kept" || keptCount === 0)
        for (const line of describeEnd(labelOf(queued), result, queued, "waits in the queue")) say(line);
      keptCount = result.end === "kept" ? keptCount + 1 : 0;
    }
    return isEmpty;
  };
  return {
    wake: () => alarm.resolve(),
    round: () => round(),
    async run(signal) {
      let pauseMs = FIRST_PAUSE_MS;
      signal.addEventListener("abort", () => alarm.resolve(), { once: true });
      while (!signal.aborted) {
        alarm = Promise.withResolvers();
        const isEmpty = await round(signal).catch((error: unknown) => {
          say(`the queue: ${error instanceof Error ? error.message : String(error)}`);
          return false;
        });
        if (isEmpty) {
          pauseMs = FIRST_PAUSE_MS;
          if (!signal.aborted) await alarm.promise;
        } else {
          await waitFor(pauseMs * (0.5 + Math.random() / 2), signal);
          pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
        }
      }
    },
  };
}

/** What a person reads of a push: ref, commit, repository and author. */
export function labelOf({ body }: Pick<QueuedDelivery, "body">): string {
  const { repository, ref, after, author } = JSON.parse(body) as Push;
  const what = /^0+$/.test(after) ? "deleted" : after.slice(0, 7);
  return `${repository} ${ref} ${what}${author == null ? "" : ` by ${author}`}`;
}
