import { join } from "node:path";
import {
  call,
  type CallInput,
  type Endpoint,
  type AnswerOf,
  getTriggers,
  listRunners,
  type Offer,
  putTriggers,
} from "@plumule/protocol";
import { type Instance, startInstance } from "../dev/instance.ts";
import { LOCAL_NAMESPACE } from "../dev/local-namespace.ts";
import { type Garden, HOOK, makeGarden } from "./garden.ts";
import { hasRadicle, makeRadicleGarden } from "./radicle-garden.ts";
import { until } from "./until.ts";

/** Everything that the demo plays with: real parts, all of them in one folder. */
export type Stage = {
  folder: string;
  stateDir: string;
  instance: Instance;
  /** The runner's did:key, as its own process says. */
  runner: string;
  offer: Offer;
  broker: { url: string; namespace: string; token: string };
  garden: Garden;
  signal: AbortSignal;
  keep: Keep;
  ask: Ask;
};

/** Gets what has to be ended however the demo goes, as soon as it has begun. */
export type Keep = (end: () => void | Promise<void>) => void;

/** Asks the broker; throws what it refuses, because nothing here should be refused. */
export type Ask = <E extends Endpoint>(
  endpoint: E,
  input: CallInput<E>,
) => Promise<AnswerOf<E> & { response: Response }>;

/** The deployment to which pushes go. */
export const DEPLOYMENT = "garden";
export const NAMESPACE = LOCAL_NAMESPACE;

/** Starts broker and runner with a Nix store of their own. */
export async function startParts(
  folder: string,
  signal: AbortSignal,
  keep: Keep,
): Promise<Pick<Stage, "stateDir" | "instance" | "runner" | "offer" | "broker" | "ask">> {
  const stateDir = join(folder, "state");
  const instance = await startInstance(
    { port: 0, host: "127.0.0.1", stateDir, runner: true, ownStore: true },
    () => {},
  );
  if ("refused" in instance) throw new Error(instance.refused);
  const end = (): Promise<void> => instance.stop(0, AbortSignal.abort());
  keep(end);
  if (signal.aborted) {
    // Whoever cleans up has done so while this was starting.
    await end();
    throw new Error("interrupted");
  }
  const broker = { url: instance.url, namespace: NAMESPACE, token: instance.token };
  const ask = askerOf(broker);
  const offer = await until("the runner's first poll", 10_000, async () => {
    const { body } = await ask(listRunners, { params: { ns: NAMESPACE } });
    return body.items[0]?.offer ?? null;
  });
  if (!offer.features.includes("nix"))
    throw new Error("no Nix with flakes (2.4 or later) was found: install Nix, then try again");
  return { stateDir, instance, runner: instance.runner?.id ?? "", offer, broker, ask };
}

/**
 * Makes the repository, on a Radicle node of its own where Radicle is installed, tells the broker of the key behind its pushes, and asks for a build of
 * every push to `main`; a newer push replaces an older one.
 */
export async function makeRepository(
  { folder, signal, keep }: Pick<Stage, "folder" | "signal" | "keep">,
  { broker, runner, ask }: Pick<Stage, "broker" | "runner" | "ask">,
): Promise<Garden> {
  const place = join(folder, "garden");
  const garden = hasRadicle()
    ? await makeRadicleGarden(place, { broker, runner, signal, keep })
    : await makeGarden(place, broker);
  const current = await ask(getTriggers, { params: { ns: NAMESPACE } });
  await ask(putTriggers, {
    params: { ns: NAMESPACE },
    headers: { "if-match": current.response.headers.get("etag") ?? "" },
    body: {
      hooks: [{ id: HOOK, keys: [garden.hookKey] }],
      triggers: [
        {
          name: "main",
          refs: ["refs/heads/main"],
          deployment: DEPLOYMENT,
          task: { kind: "nix-build", installables: [".#default"] },
          mode: "replace",
        },
      ],
    },
  });
  return garden;
}

function askerOf({ url, token }: Stage["broker"]): Ask {
  return async (endpoint, input) => {
    const answer = await call({ fetch, baseUrl: url, bearer: token }, endpoint, input);
    if (!answer.ok) throw new Error(`${endpoint.name} was refused: ${answer.problem.detail}`);
    return { ...answer.answer, response: answer.response };
  };
}
