import { statfs } from "node:fs/promises";
import { createConnection } from "node:net";
import { userInfo } from "node:os";
import { dirname } from "node:path";
import {
  call,
  type ClientDeps,
  didKeyOf,
  getCapabilities,
  PROTOCOL_VERSION,
  PROTOCOL_VERSION_FLOOR,
  type Signer,
} from "@plumule/protocol";
import { connectBroker } from "../broker.ts";
import { type RunnerConfig, type RunnerFolders, runnerFolders } from "../config.ts";
import { findExecutable } from "../executable.ts";
import { probeEffects } from "../effects/probe.ts";
import type { RunnerIsolationLevel } from "../isolation.ts";
import { probeLimits } from "../limits/probe.ts";
import { loadKey } from "../key.ts";
import { machineTools, nixSettings } from "../machine.ts";
import { cacheKeyFault } from "../nix/cache.ts";
import { probeNix } from "../nix/probe.ts";
import { type ContainerEngine, probeLevels } from "../probe-container.ts";
import { readPrivateFile } from "../private-file.ts";
import { openAgentSigner } from "../register.ts";
import {
  bad,
  care,
  type Check,
  good,
  judgeClock,
  judgeDisk,
  judgeEffects,
  judgeIsolation,
  judgeKeyFile,
  judgeLimits,
  judgeNix,
  judgeProtocol,
  judgeSecrets,
  type NixFindings,
} from "./judge.ts";

/** How long the broker may take to answer, ms. */
const ANSWER_MS = 10_000;
/** The daemon's socket where nothing else is configured (nix.conf(5), `NIX_DAEMON_SOCKET_PATH`). */
const DAEMON_SOCKET = "/nix/var/nix/daemon-socket/socket";

/** Looks at everything that a runner with this configuration needs. It changes nothing: a key that is not there stays so. */
export async function examine(config: RunnerConfig, fetch: ClientDeps["fetch"]): Promise<Check[]> {
  const limits = probeLimits();
  const { report, container } = await probeLevels(config.containerImage, limits);
  const parts = await Promise.all([
    examineBriefly(config, fetch),
    examineRegistration(config, fetch),
    examineNix(config, report.level, container ?? undefined).then(judgeNix),
    examineEffects(config, report.level),
  ]);
  return [...parts.flat(), ...judgeIsolation(report, config.isolation), ...judgeLimits(limits)];
}

/** What changes between two starts, and costs no process to look at. */
export async function examineBriefly(config: RunnerConfig, fetch: ClientDeps["fetch"]): Promise<Check[]> {
  const folders = runnerFolders(config);
  const [broker, disk, keys] = await Promise.all([
    examineBroker(config, fetch),
    examineDisk(config),
    examineKeys(config, folders),
  ]);
  const path = config.path ?? process.env["PATH"] ?? "";
  const git = findExecutable("git", path, "/");
  return [
    ...broker,
    disk,
    judgeSecrets(folders.secrets.folder, folders.secrets.folder?.startsWith(config.state) ?? false),
    ...keys,
    git === null
      ? bad("git", "no git in PATH", "Install git: without it no commit can be checked out.")
      : good("git", git),
  ];
}

async function examineEffects(config: RunnerConfig, best: RunnerIsolationLevel): Promise<Check[]> {
  const level = config.isolation ?? best;
  // As above: a doctor makes no folders.
  const tools = await machineTools({ ...config, state: "/" }, level);
  return "refused" in tools ? [] : [judgeEffects(await probeEffects(level, tools.nix))];
}

async function examineBroker({ url }: RunnerConfig, fetch: ClientDeps["fetch"]): Promise<Check[]> {
  if (url === undefined) return [];
  const sentAt = Date.now();
  const answer = await call({ fetch, baseUrl: url }, getCapabilities, {
    params: {},
    signal: AbortSignal.timeout(ANSWER_MS),
  }).catch((error: unknown) => ({ ok: false as const, problem: { detail: faultOf(error) } }));
  if (!answer.ok)
    return [bad("broker", `${url}: ${answer.problem.detail}`, "Check the URL, the network and any proxy.")];
  const date = Date.parse(answer.headers.get("date") ?? "");
  // The header has whole seconds; half of the way there and back is how old it is.
  const skewMs = (sentAt + Date.now()) / 2 - (date + 500);
  return [
    good("broker", url),
    judgeProtocol(answer.answer.body, { newest: PROTOCOL_VERSION, oldest: PROTOCOL_VERSION_FLOOR }),
    ...(Number.isNaN(date) ? [] : [judgeClock(skewMs)]),
  ];
}

async function examineRegistration(config: RunnerConfig, fetch: ClientDeps["fetch"]): Promise<Check[]> {
  const { url: baseUrl, namespace } = config;
  if (baseUrl === undefined) return [];
  const signer = await ownSigner(config);
  if (signer === null) return [care("registration", "there is no key yet", "Start the runner with --registration.")];
  const runner = didKeyOf(signer.publicKey);
  const session = await connectBroker({ baseUrl, namespace, runner, signer, fetch }).pool();
  if (session.ok) return [good("registration", `${runner} works for pool ${session.value}`)];
  const found = `${runner}: ${session.problem.detail}`;
  if (session.retry) return [care("registration", found, "Look again when the broker answers.")];
  return [
    bad(
      "registration",
      found,
      "Make a token (`plumule runner token`) and start with --registration; a key that was revoked has to be moved away first.",
    ),
  ];
}

async function ownSigner(config: RunnerConfig): Promise<Signer | null> {
  if (config.agentKey === undefined) {
    const loaded = await loadKey(runnerFolders(config).key);
    return loaded.ok ? loaded.signer : null;
  }
  const opened = await openAgentSigner(config.agentKey).catch(() => null);
  return opened === null || "refused" in opened ? null : opened.signer;
}

async function examineKeys(config: RunnerConfig, folders: RunnerFolders): Promise<Check[]> {
  const identity = await readPrivateFile(folders.secrets.identity);
  const forSecrets = [
    judgeKeyFile("age key", folders.secrets.identity, identity.ok ? null : identity),
    ...(await examineCacheKey(config)),
  ];
  if (config.agentKey === undefined) {
    const key = await loadKey(folders.key);
    return [judgeKeyFile("key", folders.key, key.ok ? null : key), ...forSecrets];
  }
  const opened = await openAgentSigner(config.agentKey).catch((error: unknown) => ({ refused: faultOf(error) }));
  const agent =
    "refused" in opened
      ? bad("ssh-agent", opened.refused, "Start the agent, `ssh-add` the key, and set SSH_AUTH_SOCK for the runner.")
      : good("ssh-agent", `has ${config.agentKey}`);
  return [agent, ...forSecrets];
}

async function examineCacheKey({ nixCacheKey: path }: RunnerConfig): Promise<Check[]> {
  if (path === undefined) return [];
  const fault = await cacheKeyFault(path, process.env["CREDENTIALS_DIRECTORY"]);
  return [
    fault === null
      ? good("cache key", path)
      : bad("cache key", fault, "Mend or replace the file, or remove nixCacheKey."),
  ];
}

async function examineDisk({ state, diskFloorBytes }: RunnerConfig): Promise<Check> {
  const free = await freeBytesAt(state);
  return judgeDisk(free, diskFloorBytes, state);
}

/** Bytes that this user may still write where a folder is, or will be. */
export async function freeBytesAt(folder: string): Promise<number> {
  for (let at = folder; ; at = dirname(at)) {
    const status = await statfs(at).catch(() => null);
    if (status !== null) return status.bavail * status.bsize;
    if (dirname(at) === at) return 0;
  }
}

async function examineNix(
  config: RunnerConfig,
  level: RunnerIsolationLevel,
  container: ContainerEngine | undefined,
): Promise<NixFindings | { why: string }> {
  // A doctor makes no folders, so Nix runs where it does no harm.
  const tools = await machineTools({ ...config, state: "/" }, level, container);
  if ("refused" in tools) return { why: tools.refused };
  const probe = await probeNix(tools.nix);
  if (!probe.present) return { why: probe.why };
  const settings = await nixSettings(tools.nix);
  const { username, uid } = userInfo();
  const ownsStore = uid === 0 || config.nixStore !== undefined;
  const trusted = settings?.["trusted-users"]?.value;
  const sandbox = settings?.["sandbox"]?.value;
  return {
    version: probe.version,
    flakes: probe.flakes,
    sandbox: sandbox === true || sandbox === "true",
    daemon: ownsStore ? null : (await answers(DAEMON_SOCKET)) ? "answers" : "silent",
    trusted: ownsStore || (Array.isArray(trusted) && (trusted.includes(username) || trusted.includes("*"))),
    user: username,
  };
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = createConnection(socket, () => resolve(true)).on("error", () => resolve(false));
    connection.on("connect", () => connection.destroy());
  });
}

function faultOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? faultOf(error.cause) : error.message;
}
