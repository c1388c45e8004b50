import type { Finding, History, Note, SeenEvent, StoredStream, Watch } from "./history.ts";

/** Numbers without a gap or repeat in what is stored, and every watcher saw exactly that. */
export function checkStreams({ streams, watches }: History): Finding[] {
  const bySource = new Map(streams.map((stream) => [stream.source, stream]));
  return [
    ...streams.flatMap(checkStored),
    ...watches.flatMap((watch) => {
      const stream = bySource.get(watch.source);
      return stream === undefined
        ? [{ promise: "P7 watchers miss nothing" as const, detail: `${watch.name}: ${watch.source} is not there` }]
        : checkWatch(watch, stream);
    }),
  ];
}

function checkStored({ source, events }: StoredStream): Finding[] {
  const wrong = events.findIndex(({ sequence }, index) => sequence !== index + 1);
  if (wrong === -1) return [];
  return [
    { promise: "P3 sequences", detail: `${source}: ${events[wrong]?.sequence} is stored where ${wrong + 1} belongs` },
  ];
}

/** The first thing that a watcher saw wrongly; what follows from it says no more. */
function checkWatch({ name, source, notes, states }: Watch, stream: StoredStream): Finding[] {
  const broken = (detail: string): Finding[] => [
    { promise: "P7 watchers miss nothing", detail: `${name} of ${source}: ${detail}` },
  ];
  let at: number | null = null;
  for (const note of notes) {
    const wrong = wrongNote(note, at, stream.events);
    if (wrong !== null) return broken(wrong);
    at = note.kind === "event" ? note.sequence : note.kind === "begin" ? note.after : at;
  }
  const head = stream.events.length;
  if (at !== head) return broken(`it ended at ${at ?? "nothing"}, and the stream at ${head}`);
  const stored = new Map(stream.events.flatMap(({ type, job }) => (job === null ? [] : [[job, type] as const])));
  for (const [job, state] of Object.entries(states ?? {})) {
    const last = stored.get(job);
    if (last !== undefined && last.startsWith("job.") && FINAL_TYPES.has(last) && last !== `job.${state}`)
      return broken(`it holds job ${job} for ${state}, after ${last}`);
  }
  return [];
}

const FINAL_TYPES = new Set([
  "job.succeeded",
  "job.failed",
  "job.cancelled",
  "job.superseded",
  "job.skipped",
  "job.unknown",
]);

function wrongNote(note: Note, at: number | null, events: readonly SeenEvent[]): string | null {
  switch (note.kind) {
    case "reset":
      return `it was told to start over (${note.why}), and nothing was lost`;
    case "begin":
      return at === null ? null : `it began again at ${note.after}, having been at ${at}`;
    case "event": {
      if (at === null) return `it got ${note.sequence} before it had begun`;
      if (note.sequence !== at + 1) return `it got ${note.sequence} after ${at}`;
      const stored = events[note.sequence - 1];
      if (stored?.digest !== note.digest)
        return `its ${note.sequence} (${note.type}) is not what is stored (${stored?.type ?? "nothing"})`;
      return null;
    }
  }
}
