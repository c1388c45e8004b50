import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { accepted, refused, type Result } from "@plumule/protocol";
import * as z from "zod";
import { writeDurably } from "./durable-file.ts";

/** Where a delivery goes. */
const targetSchema = z.object({ url: z.url(), namespace: z.string(), hook: z.string() });
export type Target = z.output<typeof targetSchema>;

/**
 * A webhook that waits for its answer, as its file holds it. `id` is the webhook's id and the file's name; `body` are the exact bytes
 * that are signed anew for every attempt. A persisted contract: later versions read the files of earlier ones.
 */
const queuedSchema = z.object({ id: z.string(), createdAt: z.iso.datetime(), target: targetSchema, body: z.string() });
export type QueuedDelivery = z.output<typeof queuedSchema>;

/** Deliveries that survive a crash and a broker that is away, oldest first. */
export interface DeliveryQueue {
  /** Writes a delivery to disk before anything is sent. With an `id` of one that waits already that one stays as it is. Refused when the queue is full. */
  add(target: Target, body: string, now: Date, id?: string): Promise<Result<QueuedDelivery, "queue-full">>;
  list(): Promise<QueuedDelivery[]>;
  /** How many wait. */
  count(): Promise<number>;
  /** A number for the next push: the time in ms, but always greater than the one before it, also when the clock was set back. */
  nextNumber(now: Date): Promise<number>;
  /** The delivery was answered for good: it is never sent again. */
  settle(id: string): Promise<void>;
}

/** A broker that is away for long must not fill the disk of the repository's host. */
export const QUEUE_LIMIT_COUNT = 1_000;

/**
 * A queue with one file per delivery in `folder`, which is made, private to the user. Files that cannot be read are set aside as `.unreadable`.
 * It takes at most `limitCount`.
 */
export async function openQueue(folder: string, limitCount: number = QUEUE_LIMIT_COUNT): Promise<DeliveryQueue> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const names = async (): Promise<string[]> =>
    (await readdir(folder)).filter((name) => name.endsWith(".json")).toSorted();
  let lastAt = 0;
  return {
    async add(target, body, now, givenId) {
      const waiting = givenId === undefined ? null : await readQueued(join(folder, `${givenId}.json`));
      if (waiting !== null) return accepted(waiting);
      const waitingCount = (await names()).length;
      if (waitingCount >= limitCount) return refused("queue-full", `${waitingCount} deliveries wait in ${folder}`);
      // Never the same time twice, so that the order of times is the order of pushes; in a name in digits of equal number.
      lastAt = Math.max(now.getTime(), lastAt + 1);
      const id = givenId ?? `push_${String(lastAt).padStart(15, "0")}_${randomUUID()}`;
      const queued = { id, createdAt: new Date(lastAt).toISOString(), target, body };
      await writeDurably(folder, `${id}.json`, JSON.stringify(queued));
      return accepted(queued);
    },
    async nextNumber(now) {
      const path = join(folder, "number");
      const last = Number(await readFile(path, "utf8").catch(() => "0"));
      const next = Math.max(now.getTime(), Number.isSafeInteger(last) ? last + 1 : 0);
      await writeDurably(folder, "number", String(next));
      return next;
    },
    async list() {
      const found: QueuedDelivery[] = [];
      for (const name of await names()) {
        const queued = await readQueued(join(folder, name));
        if (queued !== null) found.push(queued);
      }
      return found.toSorted((one, other) => Date.parse(one.createdAt) - Date.parse(other.createdAt));
    },
    async count() {
      return (await names()).length;
    },
    async settle(id) {
      await rm(join(folder, `${id}.json`), { force: true });
    },
  };
}

async function readQueued(path: string): Promise<QueuedDelivery | null> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    // Another push has just delivered it.
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (text === null) return null;
  const parsed = queuedSchema.safeParse(parse(text));
  if (parsed.success) return parsed.data;
  await rename(path, `${path}.unreadable`);
  return null;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
