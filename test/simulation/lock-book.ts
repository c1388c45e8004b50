import type { Job } from "#durable-objects/deployment/core/model.ts";
import type { Random } from "./platform/random.ts";
import type { World } from "./platform/world.ts";

/** Names enough that some jobs share none, and few enough that most share one. */
const NAMES = ["host:king", "tf:main", "db"] as const;

/** The locks of one job, or none; nothing is drawn in a world without locks. */
export function drawLocks(random: Random, share: number): { locks?: string[] } {
  if (!random.chance(share)) return {};
  const locks = NAMES.filter(() => random.chance(0.5));
  return { locks: locks.length === 0 ? [NAMES[0]] : [...locks] };
}

/** Who holds which lock, as every deployment has stored it last. */
const holders = new WeakMap<World, Map<string, { owner: string; job: string }>>();

/** Notes the jobs of a deployment that hold locks: no two deployments believe at the same time that a lock is theirs (I24). `owner`: `namespace/deployment`. */
export function noteHolders(world: World, owner: string, jobs: readonly Job[]): void {
  const book = holders.get(world) ?? new Map<string, { owner: string; job: string }>();
  holders.set(world, book);
  for (const [key, holder] of book) if (holder.owner === owner) book.delete(key);
  for (const { id, brief, locks } of jobs) {
    for (const name of locks === undefined ? [] : (brief.locks ?? [])) {
      const key = `${owner.split("/")[0]} ${name}`;
      const other = book.get(key);
      if (other !== undefined)
        world.violate("I24", `${name} is held by ${other.job} in ${other.owner} and by ${id} in ${owner}`);
      book.set(key, { owner, job: id });
    }
  }
}
