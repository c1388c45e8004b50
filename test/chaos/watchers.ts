import {
  type Event,
  eventSchema,
  type Fold,
  followDeployment,
  type FollowDeps,
  type Follower,
  followStream,
  getDeploymentEvents,
  deploymentSource,
  namespaceSource,
  parseCursor,
  type RunId,
  type ServerFrame,
  streamOpener,
  waitMs,
} from "@plumule/protocol";
import { type Client, tryOnce } from "./client.ts";
import type { LogWatch, Note, SeenEvent, Watch } from "./history.ts";
import { digestOf } from "./people.ts";

/** Somebody who watches a stream until `stop`, and writes down all that they see. */
export type Watcher = { watch(): Watch; logs(): LogWatch[]; reachedSequence(): number; stop(): Promise<void> };

/** Long enough that a stall is sat out, short enough that a round does not wait for a watcher that is patient. */
const LONGEST_WAIT_MS = 4_000;

/** What is kept of an event. */
export function seen(event: Event): SeenEvent {
  const job = event.data.job?.id ?? event.data.run?.job ?? null;
  return { sequence: Number(event.sequence), type: event.type, job, digest: digestOf(event) };
}

/** Watches a deployment over WebSockets, as the page and the command line do, and the log of each run from its first byte. */
export function watchDeployment(client: Client, name: string, deployment: string): Watcher {
  const notes: Note[] = [];
  const logs = new Map<string, LogWatch & { pieces: { offset: number; text: string }[] }>();
  const over = new AbortController();
  let states: Record<string, string> = {};
  let [received, resets] = [0, 0];
  let follower: Follower | null = null;
  const watchLog = (run: RunId): void => {
    if (logs.has(run) || follower === null) return;
    const log = {
      name,
      run,
      pieces: [] as { offset: number; text: string }[],
      skippedBytes: 0,
      endBytes: null as number | null,
    };
    logs.set(run, log);
    follower.log(run, {
      onBytes: (offset, bytes) => log.pieces.push({ offset, text: Buffer.from(bytes).toString("latin1") }),
      onSkip: (from, to) => (log.skippedBytes += to - from),
      onEnd: ({ bytes }) => (log.endBytes = bytes),
    });
  };
  follower = followDeployment(depsOf(client, deployment), {
    signal: over.signal,
    onState(state, events) {
      if (state.resets > resets) notes.push({ kind: "reset", why: "a reset" });
      resets = state.resets;
      if (
        received === 0 &&
        events.length === 0 &&
        state.deployment !== null &&
        !notes.some(({ kind }) => kind === "begin")
      )
        notes.push({ kind: "begin", after: state.sequence });
      received += events.length;
      for (const event of events) {
        notes.push({ kind: "event", ...seen(event) });
        if (event.type === "job.running" && event.data.job?.run != null) watchLog(event.data.job.run);
      }
      states = Object.fromEntries(Object.values(state.jobs).map((job) => [job.id, job.state]));
    },
  });
  const { done } = follower;
  return {
    watch: () => ({ name, source: deploymentSource(client.ns, deployment), notes, states }),
    logs: () => [...logs.values()],
    reachedSequence: () => reached(notes),
    stop: () => stopFollowing(over, done, notes),
  };
}

/** Watches the namespace over WebSockets. */
export function watchNamespace(client: Client, name: string): Watcher {
  const notes: Note[] = [];
  const over = new AbortController();
  const fold: Fold<{ cursor: string | null }> = {
    initial: { cursor: null },
    lose: (state) => state,
    cursorOf: ({ cursor }) => cursor,
    reduce(state, frame: ServerFrame) {
      if (frame.op === "reset") notes.push({ kind: "reset", why: frame.reason });
      if (frame.op === "snapshot") notes.push({ kind: "begin", after: sequenceOf(frame.cursor) });
      if (frame.op === "events") for (const event of frame.events) notes.push({ kind: "event", ...seen(event) });
      return "cursor" in frame && typeof frame.cursor === "string" ? { cursor: frame.cursor } : state;
    },
  };
  const { done } = followStream(depsOf(client), fold, { onState: () => {}, signal: over.signal });
  return {
    watch: () => ({ name, source: namespaceSource(client.ns), notes, states: null }),
    logs: () => [],
    reachedSequence: () => reached(notes),
    stop: () => stopFollowing(over, done, notes),
  };
}

/** Reads the history of a deployment page by page, holding the last request open. */
export function pollDeployment(client: Client, name: string, deployment: string): Watcher {
  const read = async (since: string | null, notes: Note[]): Promise<string | null> => {
    const query = { wait: 2, ...(since === null ? {} : { since }) };
    const answer = await tryOnce(client, getDeploymentEvents, { params: { ns: client.ns, deployment }, query });
    if (answer === null) return since;
    if (!answer.ok) {
      notes.push({ kind: "reset", why: answer.problem.detail });
      return null;
    }
    const { events, cursor } = answer.answer.body;
    for (const event of events) notes.push({ kind: "event", ...seen(event) });
    return cursor;
  };
  return readHistory(client, name, deployment, read);
}

/** Reads the history of a deployment as server-sent events, resuming by `Last-Event-ID`. */
export function listenToDeployment(client: Client, name: string, deployment: string): Watcher {
  const url = `${client.url}/v1/${client.ns}/deployments/${deployment}/events`;
  const read = async (since: string | null, notes: Note[], over: AbortSignal): Promise<string | null> => {
    let last = since;
    try {
      const headers = {
        accept: "text/event-stream",
        authorization: `Bearer ${client.token}`,
        ...(since === null ? {} : { "last-event-id": since }),
      };
      const answer = await fetch(url, { headers, signal: AbortSignal.any([over, AbortSignal.timeout(10_000)]) });
      const isStream = answer.headers.get("content-type")?.startsWith("text/event-stream") === true;
      if (!isStream || answer.body === null) return last;
      let text = "";
      for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
        const messages = `${text}${chunk}`.split("\n\n");
        text = messages.pop() ?? "";
        for (const message of messages) last = take(message, notes) ?? last;
      }
    } catch {
      // Cut; it goes on after the last id.
    }
    return last;
  };
  return readHistory(client, name, deployment, read);
}

/** One message of an event stream: its id, if it has one. */
function take(message: string, notes: Note[]): string | null {
  const fields = new Map(
    message.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
  );
  const [type, data] = [fields.get("event"), fields.get("data")];
  if (type === "reset") notes.push({ kind: "reset", why: data ?? "" });
  else if (type !== undefined && type !== "live" && data !== undefined)
    notes.push({ kind: "event", ...seen(eventSchema.parse(JSON.parse(data))) });
  return fields.get("id") ?? null;
}

function readHistory(
  client: Client,
  name: string,
  deployment: string,
  read: (since: string | null, notes: Note[], over: AbortSignal) => Promise<string | null>,
): Watcher {
  const notes: Note[] = [{ kind: "begin", after: 0 }];
  const over = new AbortController();
  const run = async (): Promise<void> => {
    for (let since: string | null = null; !over.signal.aborted; await waitMs(30, over.signal))
      since = await read(since, notes, over.signal);
  };
  const done = run();
  return {
    watch: () => ({ name, source: deploymentSource(client.ns, deployment), notes, states: null }),
    logs: () => [],
    reachedSequence: () => reached(notes),
    async stop() {
      over.abort();
      await done;
    },
  };
}

function depsOf(client: Client, deployment?: string): FollowDeps {
  const of = { ns: client.ns, ...(deployment === undefined ? {} : { deployment }) };
  return {
    open: streamOpener({ fetch, baseUrl: client.url, bearer: client.token }, WebSocket, of),
    random: Math.random,
    wait: (ms, signal) => waitMs(Math.min(ms, LONGEST_WAIT_MS), signal),
  };
}

/** A follower that gave up was refused something that it had a right to. */
async function stopFollowing(over: AbortController, done: Follower["done"], notes: Note[]): Promise<void> {
  over.abort();
  const end = await done;
  if (end.ended === "refused") notes.push({ kind: "reset", why: `refused: ${end.detail}` });
}

function reached(notes: readonly Note[]): number {
  const last = notes.findLast(({ kind }) => kind !== "reset");
  return last === undefined || last.kind === "reset" ? 0 : last.kind === "begin" ? last.after : last.sequence;
}

function sequenceOf(cursor: string): number {
  return parseCursor(cursor)?.sequence ?? 0;
}
