import { spawn } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createLogin, didKeyOf, endLogin, LOGIN_PAYLOAD_TYPE, signSession } from "@plumule/protocol";
import { Command } from "commander";
import { configFolder, findPlace, type Place } from "../connection.ts";
import { connectTo } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { findPersonKey, KEY_FLAG, type KeyFlags } from "../person-key.ts";
import { paint, printDone, shortKey } from "../print.ts";

/** `plumule login`: a bearer for a working day, for a signature of a Radicle key. */
export function loginCommand(): Command {
  return new Command("login")
    .summary("log in with your Radicle key, for a working day")
    .description(
      "Signs a challenge of the broker with your Radicle key, and keeps the bearer in ~/.config/plumule/config.json. Somebody with the role provider has to name your key first: `plumule member add`.",
    )
    .option(...KEY_FLAG)
    .action(act(logIn));
}

/** `plumule logout`. */
export function logoutCommand(): Command {
  return new Command("logout").summary("make the bearer of your login worthless and forget it").action(act(logOut));
}

/** `plumule open`: the page, with the credential that this command would use. */
export function openCommand(): Command {
  return new Command("open")
    .summary("open the web page as who you are here")
    .option("--print", "only print the address; it holds your credential, so show it to nobody")
    .action(act(openPage));
}

async function logIn({ terminal, cwd, env, globals }: Context, flags: KeyFlags): Promise<ExitCode | Failure> {
  const place = await findPlace({ flags: globals, env, cwd });
  if (isFailure(place)) return place;
  const signer = await findPersonKey(flags, { env, cwd });
  if (isFailure(signer)) return signer;
  const key = didKeyOf(signer.publicKey);
  const { ask, ns } = connectTo({ ...place, token: undefined });
  const asked = await ask(createLogin, { params: { ns }, body: { key } });
  if (isFailure(asked)) return asked;
  if (asked.status !== 200) return misuse("The broker gave no challenge", "Is this the URL of a broker?");
  const { challenge, audience } = asked.body;
  // A broker that passed on the challenge of another one would be logged in there with this signature.
  const own = `${place.url}/v1/${ns}`;
  if (audience !== own)
    return misuse(
      `The broker calls itself ${audience}, but was asked as ${own}`,
      "Use the address that it knows itself by: --url.",
    );
  const proof = await signSession({ challenge, audience }, signer, LOGIN_PAYLOAD_TYPE);
  const begun = await ask(createLogin, { params: { ns }, body: { key, proof } });
  if (isFailure(begun))
    return begun.exit === EXIT.authentication
      ? {
          ...begun,
          what: `${key} may not log in to ${ns}`,
          next: `Ask its provider: plumule member add ${key} --role developer`,
        }
      : begun;
  if (begun.status !== 201) return misuse("The broker gave another challenge for a proof", "Try again.");
  const { token, role, deployments, expiresAt } = begun.body;
  await keepLogin(env, { url: place.url, namespace: ns, token, expiresAt });
  const where = deployments === undefined ? ns : `${ns} (${deployments.join(", ")})`;
  printDone(terminal, {
    line: `${shortKey(key)} is logged in to ${where} as ${role} until ${expiresAt.slice(0, 16).replace("T", " ")} UTC`,
    next: "plumule ls",
    id: key,
    answer: { key, namespace: ns, role, deployments: deployments ?? null, expiresAt },
  });
  return EXIT.ok;
}

async function logOut({ terminal, cwd, env, globals }: Context): Promise<ExitCode | Failure> {
  const place = await findPlace({ flags: globals, env, cwd });
  if (isFailure(place)) return place;
  const { ask, ns } = connectTo(place);
  const answer = place.token?.startsWith("plu_") === true ? await ask(endLogin, { params: { ns } }) : null;
  const path = await forgetLogin(env);
  if (isFailure(answer) && answer.exit !== EXIT.authentication) return answer;
  if (answer === null && path === null)
    return misuse("Nobody is logged in here", "A token is made worthless with `plumule token revoke`.");
  printDone(terminal, {
    line: "logged out",
    next: "plumule login",
    id: ns,
    answer: { namespace: ns, loggedOut: true },
  });
  return EXIT.ok;
}

async function openPage(
  { terminal, cwd, env, globals }: Context,
  flags: { print?: true },
): Promise<ExitCode | Failure> {
  const place = await findPlace({ flags: globals, env, cwd });
  if (isFailure(place)) return place;
  const address = pageAddress(place);
  if (address === null) return misuse("The page needs a credential", "Log in first: `plumule login`.");
  // The credential stands behind `#`, which no browser sends anywhere.
  if (flags.print === true || !(await startBrowser(address))) {
    terminal.out(address);
    terminal.note(paint.quiet("the address holds your credential: show it to nobody"));
  }
  return EXIT.ok;
}

/** The address of the page for a place; null without a credential. */
export function pageAddress({ url, namespace, token }: Place): string | null {
  return token === undefined ? null : `${url}/#${new URLSearchParams({ ns: namespace, token }).toString()}`;
}

function startBrowser(address: string): Promise<boolean> {
  const command = process.platform === "darwin" ? "open" : "xdg-open";
  return new Promise((resolve) => {
    const child = spawn(command, [address], { stdio: "ignore", detached: true });
    child.once("error", () => resolve(false));
    child.once("spawn", () => {
      child.unref();
      resolve(true);
    });
  });
}

type Env = Readonly<Record<string, string | undefined>>;

async function keepLogin(env: Env, login: Record<string, string>): Promise<void> {
  await mkdir(configFolder(env), { recursive: true, mode: 0o700 });
  await writeFile(join(configFolder(env), "config.json"), `${JSON.stringify(login, null, 2)}\n`, { mode: 0o600 });
}

/** Takes the bearer out of this user's configuration. Null when there was none. */
async function forgetLogin(env: Env): Promise<string | null> {
  const path = join(configFolder(env), "config.json");
  const kept = await readFile(path, "utf8").then(
    (text) => JSON.parse(text) as Record<string, unknown>,
    () => null,
  );
  if (typeof kept?.["token"] !== "string" || !kept["token"].startsWith("plu_")) return null;
  const { token: _token, expiresAt: _expiresAt, ...place } = kept;
  await rm(path);
  await writeFile(path, `${JSON.stringify(place, null, 2)}\n`, { mode: 0o600 });
  return path;
}
