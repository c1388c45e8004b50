import { accepted, type Millis, refused, type Refused, type Result } from "@plumule/protocol";

/**
 * The one place from which this broker calls addresses that others gave it. An address is checked before every call, redirects are not
 * followed, and whoever gave the address learns of an answer only what the broker makes of it, never its text.
 *
 * A name that leads to a private address cannot be told from here. The flag `global_fetch_strictly_public` keeps such a call out of the
 * broker's own zone; beyond that the operator decides what the network lets out.
 */
export type Outgoing = {
  /** Posts a body to an address that `checkOutgoingUrl` has passed. The value is the status of the answer. */
  post(url: URL, message: Message): Promise<Posted>;
  /** The same with the text of the answer, which has to come within `withinMs` and have at most `maxBytes`. Only for the broker itself to read. */
  ask(url: URL, message: Message & { withinMs: number; maxBytes: number }): Promise<Answered>;
};

/** What is sent. */
export type Message = { body: string; headers: Readonly<Record<string, string>> };

/** An answer with its text. */
export type Answered = Exclude<Posted, { ok: true }> | { ok: true; status: number; text: string };

/** `resting`: the host failed so often that it is left alone until `until`. `unreachable`: no answer in time. */
export type Posted =
  | { ok: true; status: number }
  | { ok: false; code: "unreachable"; detail: string }
  | { ok: false; code: "resting"; detail: string; until: Millis };

/** Ports that a service of the public web has. */
const PORTS: readonly string[] = ["", "8443"];
/** Names that lead into a network of one's own. */
const PRIVATE_NAMES = /(?:^|\.)(?:localhost|local|internal|intranet|lan|home|corp|private|arpa|onion)$/;
/** How long an answer may take, ms. */
const ANSWER_MS = 15_000;
/** Failures in a row after which a host is left alone, and for how long, ms. */
const FAILURES = 5;
const REST_MS = 60_000;
/** Hosts of which failures are remembered. */
const HOSTS_MAX = 1_000;

/**
 * Checks an address that somebody else gave, after parsing, so that every spelling of it is judged alike: `https` to a usual port, a public
 * name and no address in digits, no user, not this broker itself. With `hosts`, one of these alone.
 */
export function checkOutgoingUrl(
  text: string,
  { hosts, own }: { hosts?: readonly string[]; own: string | null },
): Result<URL, "refused-url"> {
  const url = URL.parse(text);
  if (url === null) return no("it is not a URL");
  const host = url.hostname.replace(/\.$/, "");
  if (url.protocol !== "https:") return no("only https is called");
  if (url.username !== "" || url.password !== "") return no("a user and password are not sent");
  if (!PORTS.includes(url.port)) return no(`port ${url.port} is not called, only 443 and 8443`);
  if (host.startsWith("[") || /^[\d.]+$/.test(host)) return no("an address in digits is not called, only a name");
  if (!host.includes(".") || PRIVATE_NAMES.test(host)) return no(`${host} is not a public name`);
  if (own !== null && host === new URL(own).hostname) return no("it is this broker itself");
  if (hosts !== undefined && !hosts.includes(host)) return no(`the host ${host} is not allowed here`);
  return accepted(url);
}

function no(detail: string): Refused<"refused-url"> {
  return refused("refused-url", detail);
}

/** Makes the way out of one object. What failed is remembered in memory: after an eviction a host is tried anew. */
export function createOutgoing(deps: { fetch: typeof fetch; now: () => Millis }): Outgoing {
  const failures = new Map<string, { count: number; until: Millis }>();

  const failed = (host: string): void => {
    if (failures.size >= HOSTS_MAX) failures.clear();
    const count = (failures.get(host)?.count ?? 0) + 1;
    failures.set(host, { count, until: count >= FAILURES ? deps.now() + REST_MS : 0 });
  };

  const call = async <T>(
    url: URL,
    { body, headers }: Message,
    withinMs: number,
    read: (answer: Response) => Promise<T>,
  ): Promise<Exclude<Posted, { ok: true }> | ({ ok: true; status: number } & T)> => {
    const { host } = url;
    const until = failures.get(host)?.until ?? 0;
    if (until > deps.now())
      return { ok: false, code: "resting", detail: `${host} failed ${FAILURES} times in a row`, until };
    // Not `AbortSignal.timeout`: its timer would keep the object in memory after the answer.
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), withinMs);
    try {
      const answer = await deps.fetch(url, {
        method: "POST",
        headers,
        body,
        // A redirect would lead to an address that nobody has checked: 3xx is an answer like any other.
        redirect: "manual",
        signal: abort.signal,
      });
      const rest = await read(answer);
      if (answer.status >= 500 || answer.status === 429) failed(host);
      else failures.delete(host);
      return { ok: true, status: answer.status, ...rest };
    } catch (error) {
      failed(host);
      return { ok: false, code: "unreachable", detail: `${host} cannot be reached (${nameOf(error)})` };
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    post: (url, message) =>
      call(url, message, ANSWER_MS, async (answer) => {
        await answer.body?.cancel();
        return {};
      }),
    ask: (url, { withinMs, maxBytes, ...message }) =>
      call(url, message, withinMs, async (answer) => ({ text: await readText(answer, maxBytes) })),
  };
}

/** The text of an answer, read with a running cap: a length that is announced is no promise. Rejects when it is longer. */
async function readText(answer: Response, maxBytes: number): Promise<string> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for await (const chunk of answer.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new RangeError("the answer is too long");
    chunks.push(chunk);
  }
  return new TextDecoder().decode(await new Blob(chunks).arrayBuffer());
}

/** The kind of a fault alone: its text may quote what is inside the network. */
function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : "unknown";
}
