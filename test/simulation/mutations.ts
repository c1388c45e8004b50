import type { Seeded } from "./fleet.ts";

/**
 * A bug that somebody might write. `caughtBy` names the invariants of which one has to break, as violations begin with them;
 * `from` is the seed at which the search begins, for those that show rarely.
 */
export type Mutation = { name: string; caughtBy: readonly string[]; from?: number } & Seeded;

/** The seeded bugs: each is a change of one place, and each is found, or the simulation is too weak. */
export const MUTATIONS: readonly Mutation[] = [
  {
    name: "an answer leaves before what it says is stored",
    caughtBy: ["I2", "I3", "I4", "I6", "I7", "I8", "I17", "I22", "index"],
    bug: "answers before the commit",
  },
  {
    name: "the alarm is not set again after it fired",
    caughtBy: ["I6", "I16"],
    changes: [
      {
        file: "durable-objects/deployment/ledger.ts",
        from: "      alarmAt = null;\n      alarmAt = armed(state, false, notBefore);",
        to: "      void notBefore;",
      },
    ],
  },
  {
    name: "a batch of events that is published twice counts twice",
    caughtBy: ["I17"],
    changes: [
      {
        file: "durable-objects/namespace/listing.ts",
        from: "seen?.createdAt === deployment.createdAt ? seen.through : 0",
        to: "seen === null ? 0 : 0",
      },
    ],
  },
  {
    name: "events count as published before the namespace has them",
    caughtBy: ["I17", "index"],
    changes: [
      {
        file: "durable-objects/deployment/publisher.ts",
        from: "      const { judge = [] } = await within(",
        to: "      if (events.length > 0) told(through, []);\n      const { judge = [] } = await within(",
      },
    ],
  },
  {
    name: "a watcher resumes one event too late",
    caughtBy: ["I7"],
    changes: [
      {
        file: "durable-objects/shared/cursor.ts",
        from: "return { after: cursor.sequence };",
        to: "return { after: Math.min(log.head(), cursor.sequence + 1) };",
      },
    ],
  },
  {
    name: "a watcher resumes one event too early",
    caughtBy: ["I7"],
    changes: [
      {
        file: "durable-objects/shared/cursor.ts",
        from: "return { after: cursor.sequence };",
        to: "return { after: Math.max(0, cursor.sequence - 1) };",
      },
    ],
  },
  {
    name: "the answer to an idempotency key is forgotten",
    caughtBy: ["I8", "I9"],
    changes: [
      { file: "durable-objects/deployment/requests.ts", from: "if (known === null) return null;", to: "return null;" },
    ],
  },
  {
    name: "a sequence is taken from memory",
    from: 28,
    caughtBy: ["I3"],
    changes: [
      {
        file: "durable-objects/shared/event-log.ts",
        from: "      const before = head();",
        to: "      const before = remembered ?? head();\n      remembered = before + drafts.length;",
      },
      {
        file: "durable-objects/shared/event-log.ts",
        from: "  let epoch: number | null = null;",
        to: "  let epoch: number | null = null;\n  let remembered: number | null = null;",
      },
    ],
  },
  {
    name: "the state in memory runs ahead of what is stored",
    from: 100,
    caughtBy: ["I1", "I2", "I3", "I5", "I6", "I8", "I10", "I16", "I17", "I22", "index"],
    changes: [
      {
        file: "durable-objects/deployment/ledger.ts",
        from: "      const before = state;",
        to: "      const before = state;\n      state = decided.state;",
      },
    ],
  },
  {
    name: "bytes of a log that come again are added again",
    from: 80,
    caughtBy: ["I11", "RangeError"],
    changes: [
      {
        file: "durable-objects/deployment/runs.ts",
        from: "    if (newBytes === 0) return { bytes: size };\n    const fresh = sent.subarray(repeatedBytes);",
        to: "    const fresh = sent;",
      },
    ],
  },
  {
    name: "a result that comes again is taken again",
    from: 32,
    caughtBy: ["I6", "I17"],
    changes: [
      {
        file: "durable-objects/deployment/runs.ts",
        from: "    const known = this.#parts.store.result(epoch);",
        to: "    const known = this.#parts.store.result(-1);",
      },
    ],
  },
  {
    name: "what could not be handed over is forgotten",
    from: 60,
    caughtBy: ["I2", "I17"],
    changes: [
      {
        file: "durable-objects/namespace/outbox.ts",
        from: "      delayOutbox(context.sql, number, attempts + 1, retryAt(attempts + 1, Date.now()));",
        to: "      deleteOutbox(context.sql, number);",
      },
    ],
  },
  {
    name: "a push that two nodes tell of is two pushes",
    caughtBy: ["I8"],
    changes: [
      {
        file: "durable-objects/namespace/hooks.ts",
        from: "  switch (placed.place) {",
        to: `  switch (placed.place === "same" ? "newest" : placed.place) {`,
      },
    ],
  },
  {
    name: "where a socket stands is not stored",
    caughtBy: ["I6", "I7"],
    changes: [
      {
        file: "durable-objects/shared/sockets.ts",
        from: "      ws.serializeAttachment(encodeSession(next));",
        to: "      if (ws.deserializeAttachment() === null) ws.serializeAttachment(encodeSession(next));",
      },
    ],
  },
  {
    name: "the work of a run goes on after its lease has ended",
    from: 305,
    caughtBy: ["I1", "I20"],
    changes: [
      {
        file: "runner/src/supervisor/stop-switch.ts",
        from: "    const leftMs = lease?.boot === boot ? lease.untilMs - monotonicMs() : 0;",
        to: "    const leftMs = 3_600_000;\n    void boot;",
      },
    ],
  },
  {
    name: "a runner that is started again forgets which key brought its run",
    caughtBy: ["P1", "I1", "I20"],
    changes: [
      {
        file: "runner/src/core/recover.ts",
        from: "  for (const record of disk.runs) {",
        to: `  for (const record of disk.runs.map((one) => ({ ...one, state: "assigned" as const }))) {`,
      },
    ],
  },
  {
    name: "a run ends before it began when the clock of its machine was set back",
    caughtBy: ["I23"],
    changes: [
      {
        file: "runner/src/conclude.ts",
        from: "startedAt === null || startedAt > finishedAt",
        to: "startedAt === null",
      },
    ],
  },
  {
    name: "a lock that is free in one of a job's lines is free in all",
    from: 20,
    caughtBy: ["I24"],
    changes: [
      {
        file: "durable-objects/namespace/core/locks.ts",
        from: "one.locks.every((name) => !taken.has(name))",
        to: "one.locks.some((name) => !taken.has(name))",
      },
    ],
  },
];
