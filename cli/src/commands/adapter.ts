import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { type AdapterRefusal, runAdapter } from "@plumule/bridge";
import { Command } from "commander";
import { bridgeState, radHomeOf, signerOf } from "../bridge-place.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { collect } from "../flags.ts";

type AdapterFlags = {
  hook: string;
  state?: string;
  key?: string;
  agent?: string;
  radHome?: string;
  fetchFrom?: string[];
};

/** `plumule adapter`: an adapter of radicle-ci-broker. */
export function adapterCommand(): Command {
  return new Command("adapter")
    .summary("do the runs of radicle-ci-broker")
    .description(
      "An adapter of radicle-ci-broker (cib): reads one request from stdin, tells the broker of the push as `plumule bridge` would, and answers on stdout which job that is and what came of it. Cib writes the job COBs. Needs a token with the scope read. When it is killed, the job goes on.",
    )
    .option("--hook <id>", "hook of the namespace whose keys hold that of this adapter", "radicle")
    .option("--state <folder>", "where its key is (default: that of the bridge, ~/.local/state/plumule/bridge)")
    .option("--key <file>", "key file, PKCS #8 or OpenSSH (default: key.pem in the state folder, made when missing)")
    .option("--agent <did>", "sign with this key of the ssh-agent")
    .option("--rad-home <folder>", "the node's home (default: RAD_HOME, else ~/.radicle)")
    .option(
      "--fetch-from <url>",
      "seed from which runners without a node fetch public repositories; may be repeated",
      collect,
    )
    .action(act(adapt));
}

async function adapt(context: Context, flags: AdapterFlags): Promise<ExitCode | Failure> {
  const { terminal, env, cwd, connect } = context;
  const connection = await connect();
  if (isFailure(connection)) return connection;
  const { url, namespace, token } = connection.place;
  const signer = await signerOf(flags, bridgeState(flags.state, { env, cwd }), { env, cwd });
  if (isFailure(signer)) return signer;
  const line = await firstLine();
  if (line === null) return misuse("There is no request on stdin", "Let radicle-ci-broker start the adapter.");
  const options = {
    url,
    namespace,
    hook: flags.hook,
    radHome: radHomeOf(flags.radHome, { env, cwd }),
    fetchFrom: flags.fetchFrom ?? [],
  };
  const end = await runAdapter(line, options, {
    fetch,
    bearer: token,
    signer,
    now: () => new Date(),
    pause: (ms) => pause(ms),
    answer: (text) => terminal.write(`${text}\n`),
    say: terminal.note,
  });
  // The result is in the answer: another exit code would tell cib that the adapter itself has failed.
  return end.ok ? EXIT.ok : { exit: EXITS[end.code], what: end.detail, next: NEXT[end.code] };
}

const EXITS: Readonly<Record<AdapterRefusal, ExitCode>> = {
  "not-a-request": EXIT.usage,
  gone: EXIT.notFound,
  "no-job": EXIT.failed,
  held: EXIT.failed,
  denied: EXIT.authentication,
  left: EXIT.interrupted,
  unreachable: EXIT.unreachable,
};

const NEXT: Readonly<Record<AdapterRefusal, string>> = {
  "not-a-request": "Only version 1 of the protocol of radicle-ci-broker is understood.",
  gone: "A deleted branch or tag starts nothing; leave it out with a filter such as !Not [ !TagDeleted ].",
  "no-job": "Let a rule of the namespace match it: `plumule ls deliveries`.",
  held: "Approve it with `plumule approve`, then `cibtool trigger` again.",
  denied: "See that the hook believes this key (`plumule key show`), and that the token has the scope read.",
  left: "",
  unreachable: "Look whether the broker runs, then `cibtool trigger` again.",
};

async function firstLine(): Promise<string | null> {
  for await (const line of createInterface({ input: process.stdin })) return line;
  return null;
}
