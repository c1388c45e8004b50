import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import {
  call,
  type AnswerOf,
  type CallInput,
  type ClientDeps,
  type Endpoint,
  followDeployment,
  type Follower,
  namespaceIdSchema,
  streamOpener,
  waitMs,
} from "@plumule/protocol";
import { EXIT } from "./exit-codes.ts";
import { type Failure, failureOf, isFailure, misuse } from "./failure.ts";

/** Where the broker is and who calls it, and where that was found. */
export type Place = { url: string; namespace: string; token: string | undefined; foundIn: string };

/** What may name a broker: flags, then the environment, then a file of ours. */
export type PlaceSources = {
  flags: { url?: string | undefined; namespace?: string | undefined; token?: string | undefined };
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
};

/** A good answer, parsed. `response` is there for answers that are bytes. */
export type Answer<E extends Endpoint> = AnswerOf<E> & { headers: Headers; response: Response };

/** A broker that can be asked. */
export type Connection = {
  place: Place;
  ns: string;
  /** Asks; a refusal or a network that is down is a failure. What may be asked twice is asked again after a fault that may pass. */
  ask: <E extends Endpoint>(endpoint: E, input: CallInput<E>) => Promise<Answer<E> | Failure>;
  /** Follows a deployment until the signal aborts. */
  follow: (deployment: string, options: Parameters<typeof followDeployment>[1]) => Follower;
};

/** The folder of what a person sets once: the broker they use and the keys they trust. */
export function configFolder(env: Readonly<Record<string, string | undefined>>): string {
  return join(env["XDG_CONFIG_HOME"] ?? join(homedir(), ".config"), "plumule");
}

/** Finds the broker. A token of a file is for the broker of that file alone, so that no flag can send it elsewhere. */
export async function findPlace({ flags, env, cwd }: PlaceSources): Promise<Place | Failure> {
  // An empty variable is how a shell takes one away for a single command.
  const variable = (name: string): string | undefined => (env[name] === "" ? undefined : env[name]);
  const asked = {
    url: flags.url ?? variable("PLUMULE_URL"),
    namespace: flags.namespace ?? variable("PLUMULE_NAMESPACE"),
    token: flags.token ?? variable("PLUMULE_TOKEN"),
  };
  const complete = Object.values(asked).every((value) => value !== undefined);
  const file = complete ? null : await findFile(cwd, configFolder(env));
  if (isFailure(file)) return file;
  const url = trimUrl(asked.url ?? file?.url);
  if (url === undefined)
    return misuse(
      "No broker is known",
      "Start one here with `npm start`, or name one with --url, PLUMULE_URL or ~/.config/plumule/config.json.",
    );
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    return misuse(
      `${url} is not the URL of a broker`,
      "Give one like https://plumule.example or http://localhost:8787.",
    );
  const fitting = file !== null && url === trimUrl(file.url) ? file : null;
  const namespace = asked.namespace ?? fitting?.namespace;
  if (namespace === undefined || !namespaceIdSchema.safeParse(namespace).success)
    return misuse(
      namespace === undefined ? "No namespace is known" : `${namespace} is not the name of a namespace`,
      "Name one with --namespace or PLUMULE_NAMESPACE: 1 to 63 of a-z, 0-9 and inner hyphens.",
    );
  const foundIn = asked.url === undefined ? (file?.path ?? "") : flags.url === undefined ? "PLUMULE_URL" : "--url";
  return { url, namespace, token: asked.token ?? fitting?.token, foundIn };
}

/** A connection to a broker. Nothing is sent before something is asked. */
export function connectTo(place: Place): Connection {
  const client: ClientDeps = { fetch, baseUrl: place.url, bearer: place.token };
  return {
    place,
    ns: place.namespace,
    ask: (endpoint, input) => askPatiently(client, endpoint, input, place),
    follow(deployment, options) {
      const open = streamOpener(client, WebSocket, { ns: place.namespace, deployment });
      return followDeployment({ open, random: Math.random, wait: waitMs }, options);
    },
  };
}

/** Pauses before asking again, ms. */
const PAUSES_MS = [200, 1_000];

async function askPatiently<E extends Endpoint>(
  client: ClientDeps,
  endpoint: E,
  input: CallInput<E>,
  place: Place,
): Promise<Answer<E> | Failure> {
  const repeatable = endpoint.method === "get" || input.headers?.["idempotency-key"] !== undefined;
  for (const pauseMs of [...(repeatable ? PAUSES_MS : []), null]) {
    const failure = await ask(client, endpoint, input, place);
    if (!isFailure(failure) || !failure.mayPass || pauseMs === null) return failure;
    await pause(pauseMs);
  }
  throw new Error("the last round always returns");
}

async function ask<E extends Endpoint>(
  client: ClientDeps,
  endpoint: E,
  input: CallInput<E>,
  place: Place,
): Promise<Answer<E> | (Failure & { mayPass: boolean })> {
  try {
    const called = await call(client, endpoint, input);
    if (!called.ok) return { ...failureOf(called.problem), mayPass: called.problem.code === "unavailable" };
    return { ...called.answer, headers: called.headers, response: called.response };
  } catch (error) {
    return { ...unreachable(place, error), mayPass: !["ECONNREFUSED", "ENOTFOUND"].includes(faultOf(error)) };
  }
}

function unreachable({ url, foundIn }: Place, error: unknown): Failure {
  const ownBroker = foundIn.endsWith("dev.json");
  return {
    exit: EXIT.unreachable,
    what: `The broker at ${url} cannot be reached`,
    why: `${faultOf(error)} (the address comes from ${foundIn})`,
    next: ownBroker ? "Start it again with `npm start`." : "Check the address and the network, then try again.",
  };
}

/** The innermost reason of a fetch that failed: its own message is always the same. */
function faultOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause instanceof Error) return faultOf(error.cause);
  return "code" in error && typeof error.code === "string" ? error.code : error.message;
}

type PlaceFile = { path: string; url: string; namespace?: string; token?: string };

/** `.plumule/dev.json` of the folder or one above it, which `plumule dev` writes; else the person's own configuration. */
async function findFile(cwd: string, config: string): Promise<PlaceFile | null | Failure> {
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const found = await readPlace(join(folder, ".plumule", "dev.json"));
    if (found !== null) return found;
    if (dirname(folder) === folder) return readPlace(join(config, "config.json"));
  }
}

/** A file that others can read or wrote is refused: it holds a token, and it says whom to send it to. */
async function readPlace(path: string): Promise<PlaceFile | null | Failure> {
  const status = await stat(path).catch(() => null);
  if (status === null) return null;
  if ((status.mode & 0o077) !== 0 || ![process.getuid?.(), 0].includes(status.uid))
    return misuse(
      `${path} is not yours alone`,
      `Look at it, then run \`chmod 600 ${path}\`, or name the broker with --url.`,
    );
  try {
    const { url, namespace, token } = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    if (typeof url !== "string") throw new TypeError("it names no `url`");
    return {
      path,
      url,
      ...(typeof namespace === "string" ? { namespace } : {}),
      ...(typeof token === "string" ? { token } : {}),
    };
  } catch (error) {
    return misuse(`${path} cannot be read: ${String(error)}`, "Correct it, or name the broker with --url.");
  }
}

function trimUrl(url: string | undefined): string | undefined {
  return url?.replace(/\/+$/, "");
}
