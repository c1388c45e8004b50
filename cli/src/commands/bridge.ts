import { resolve } from "node:path";
import { bridgeOptionsSchema, type BridgeSettings, startBridge } from "@plumule/bridge";
import { scribeOf } from "../scribe.ts";
import { didKeyOf } from "@plumule/protocol";
import { lockState } from "@plumule/runner";
import { Command, InvalidArgumentError } from "commander";
import { explanationData, explanationLines } from "../bridge-lines.ts";
import { bridgeState, radHomeOf, signerOf } from "../bridge-place.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";
import { durationOf } from "../times.ts";
import { bridgeServiceCommand } from "./install-service.ts";

type BridgeFlags = {
  hook?: string;
  state?: string;
  key?: string;
  agent?: string;
  radHome?: string;
  socket?: string;
  seed?: string;
  poll?: number;
  repo?: string[];
  follow?: string[];
  fetchFrom?: string[];
  dryRun?: true;
  once?: true;
  writeCobs?: true;
  policy?: string;
};

/** `plumule bridge`: from a Radicle node to the broker. */
export function bridgeCommand(): Command {
  const start = new Command("start")
    .summary("tell the broker what is pushed to Radicle")
    .description(
      "Beside a radicle-node: follows its events and its storage, and posts every push, patch and tag as a signed webhook, at least once, also what moved while it was away. The first sight of a repository is what it starts from. Ctrl-C leaves; what is not delivered stays in the queue.",
    )
    .option("--hook <id>", "hook of the namespace whose keys hold that of this bridge (default: radicle)")
    .option("--state <folder>", "queue and what was seen (default: ~/.local/state/plumule/bridge)")
    .option("--key <file>", "key file, PKCS #8 or OpenSSH (default: key.pem in the state folder, made when missing)")
    .option("--agent <did>", "sign with this key of the ssh-agent, such as the node's own")
    .option("--rad-home <folder>", "the node's home (default: RAD_HOME, else ~/.radicle)")
    .option("--socket <path>", "the node's control socket (default: RAD_SOCKET, else node/control.sock in its home)")
    .option("--repo <rid>", "tell of this repository alone, rad:z…, also if it is private; may be repeated", collect)
    .option(
      "--follow <did>",
      "tell pushes of this node alone; may be repeated. Moves of the repository's own refs are always told",
      collect,
    )
    .option(
      "--fetch-from <url>",
      "seed from which runners without a node fetch public repositories; may be repeated",
      collect,
    )
    .option("--seed <url>", "poll this seed over HTTP; needs no node, but --repo")
    .option("--poll <time>", "how often the seed is asked (default: 30s)", pollTime)
    .option(
      "--write-cobs",
      "also write what becomes of jobs into job COBs, with rad-job and the node's key; of runners whose keys are pinned (`plumule key trust`), with a token that may read",
    )
    .option("--policy <file>", "with --write-cobs: a trust policy of your own, as JSON, instead of your pinned keys")
    .option("--dry-run", "post nothing and remember nothing: say what each event would start, and why not")
    .option("--once", "look once, deliver, and leave; 75 when something could not be looked at or has to wait")
    .action(act(startHere));
  const bridge = new Command("bridge").summary("tell the broker what is pushed to Radicle");
  for (const command of [start, bridgeServiceCommand()]) bridge.addCommand(command);
  return bridge;
}

function pollTime(text: string): number {
  const ms = durationOf(text);
  if (ms === null || ms < 1_000) throw new InvalidArgumentError("Give it as 30s or 5m, at least 1s.");
  return ms;
}

async function startHere(context: Context, flags: BridgeFlags): Promise<ExitCode | Failure> {
  const { terminal, env, cwd, connect } = context;
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const state = bridgeState(flags.state, { env, cwd });
  const { url, namespace } = connection.place;
  const options = bridgeOptionsSchema.safeParse(settingsOf(flags, { url, namespace, state, env, cwd }));
  if (!options.success) {
    const [issue] = options.error.issues;
    return misuse(`${String(issue?.path[0])}: ${issue?.message}`, "See `plumule bridge start --help`.");
  }
  const lock = await lockState(state);
  if ("refused" in lock) return { exit: EXIT.conflict, what: lock.refused, next: "One bridge per folder." };
  try {
    const signer = await signerOf(flags, state, { env, cwd });
    if (isFailure(signer)) return signer;
    const { hook, once, dryRun } = options.data;
    terminal.note(`bridge ${didKeyOf(signer.publicKey)} for hook ${hook} of ${namespace} at ${url}`);
    const scribe = flags.writeCobs === true ? await scribeOf(context, connection, options.data, flags.policy) : null;
    if (isFailure(scribe)) return scribe;
    const bridge = await startBridge(options.data, {
      fetch,
      signer,
      now: () => new Date(),
      say: terminal.note,
      ...(dryRun
        ? {
            explain: (what) => {
              if (terminal.json) for (const document of explanationData(what)) terminal.data(document);
              else for (const line of explanationLines(what)) terminal.out(line);
            },
          }
        : {}),
    });
    const leaving = new AbortController();
    const leave = (): void => {
      bridge.stop();
      leaving.abort();
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, leave);
    const writing = scribe?.(leaving.signal);
    const isDone = await bridge.done;
    leaving.abort();
    await writing;
    return once && !isDone ? EXIT.tryAgain : EXIT.ok;
  } finally {
    await lock.release();
  }
}

function settingsOf(
  flags: BridgeFlags,
  { url, namespace, state, env, cwd }: Pick<Context, "env" | "cwd"> & Record<"url" | "namespace" | "state", string>,
): BridgeSettings {
  const socket = flags.socket ?? env["RAD_SOCKET"];
  return {
    url,
    namespace,
    state,
    hook: flags.hook,
    radHome: radHomeOf(flags.radHome, { env, cwd }),
    ...(socket === undefined ? {} : { socket: resolve(cwd, socket) }),
    ...(flags.seed === undefined ? {} : { seed: flags.seed }),
    pollMs: flags.poll,
    repositories: flags.repo,
    follow: flags.follow,
    fetchFrom: flags.fetchFrom,
    dryRun: flags.dryRun,
    once: flags.once,
  };
}
