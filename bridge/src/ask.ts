import {
  accepted,
  call,
  type CallAnswer,
  type CallInput,
  type ClientDeps,
  type Endpoint,
  LIMITS,
  refused,
  type Result,
} from "@plumule/protocol";

/** What asking a broker needs. `pause` waits so long, ms; `say` hears why it takes longer. */
export type AskDeps = {
  fetch: ClientDeps["fetch"];
  url: string;
  bearer: string | undefined;
  pause: (ms: number) => Promise<void>;
  say: (line: string) => void;
  /** Gives up between two attempts. */
  signal?: AbortSignal;
};

/** `gone`: there is no such thing, or it is no longer kept. `denied`: every other refusal. `left`: the signal has aborted. */
export type AskRefusal = "gone" | "denied" | "left";
type Answered<E extends Endpoint> = Extract<CallAnswer<E>, { ok: true }>;
export type Ask = <E extends Endpoint>(
  endpoint: E,
  input: CallInput<E>,
) => Promise<Result<Pick<Answered<E>["answer"], "body"> & { response: Response }, AskRefusal>>;

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

/** A way to ask a broker that goes on until there is an answer, however long the broker is away. */
export function asker({ fetch, url, bearer, pause, say, signal }: AskDeps): Ask {
  const client = { fetch, baseUrl: url, bearer };
  return async (endpoint, input) => {
    let said = "";
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      const limit = AbortSignal.timeout(2 * LIMITS.historyHoldMs);
      const attempt = { ...input, signal: signal === undefined ? limit : AbortSignal.any([limit, signal]) };
      const answer = await call(client, endpoint, attempt).catch((error: unknown) => String(error));
      if (signal?.aborted === true) return refused("left", "");
      if (typeof answer !== "string" && answer.ok)
        return accepted({ body: answer.answer.body, response: answer.response });
      const detail = typeof answer === "string" ? answer : `${answer.problem.detail} ${answer.problem.next}`;
      const status = typeof answer === "string" ? 0 : answer.status;
      if (status === 404 || status === 410) return refused("gone", detail);
      if (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) return refused("denied", detail);
      if (detail !== said) say(`${url}: ${detail}; trying again`);
      said = detail;
      await pause(pauseMs);
    }
  };
}
