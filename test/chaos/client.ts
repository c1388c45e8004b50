import { call, type CallAnswer, type CallInput, type Endpoint } from "@plumule/protocol";

/** Somebody with a token of the namespace; the broker is at `url`, or a bad network before it. */
export type Client = {
  url: string;
  ns: string;
  token: string;
  /** Gets what the broker itself answered with a 500. */
  faults: string[];
};

/** How long a request without a hold may take, ms: stalls are shorter, so that what takes longer is a fault. */
const REQUEST_MS = 5_000;

type Body<E extends Endpoint> = Exclude<Extract<CallAnswer<E>, { ok: true }>["answer"]["body"], null>;

/** Asks once. Null when no answer came that is the broker's: a cut, a stall, a proxy's page. */
export async function tryOnce<E extends Endpoint>(
  { url, token, faults }: Client,
  endpoint: E,
  input: CallInput<E>,
  withinMs: number = REQUEST_MS,
): Promise<CallAnswer<E> | null> {
  const signal = AbortSignal.timeout(withinMs);
  const answer = await call({ fetch, baseUrl: url, bearer: token }, endpoint, { ...input, signal }).catch(() => null);
  if (answer?.ok === false && answer.status === 500) faults.push(`${endpoint.name}: ${answer.problem.detail}`);
  return answer === null || (!answer.ok && mayPass(answer.status)) ? null : answer;
}

/** Asks where no fault is between; anything but a 2xx is the end of the round. */
export async function ask<E extends Endpoint>(client: Client, endpoint: E, input: CallInput<E>): Promise<Body<E>> {
  const answer = await call({ fetch, baseUrl: client.url, bearer: client.token }, endpoint, input);
  if (!answer.ok) throw new Error(`${endpoint.name}: ${answer.problem.code}: ${answer.problem.detail}`);
  return answer.answer.body as Body<E>;
}

function mayPass(status: number): boolean {
  return status === 0 || status >= 500 || status === 429 || status === 408;
}
