import { writeFile } from "node:fs/promises";
import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { Command, Option } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, misuse } from "../failure.ts";
import { paint } from "../print.ts";
import { bridgeUnit, launchdPlist, systemdUnit } from "../service/units.ts";

type ServiceFlags = { kind: "systemd" | "launchd"; user: string; config: string; registration: string; write?: true };

/** Where each service manager looks for what an administrator adds. */
const PLACES = {
  systemd: "/etc/systemd/system/plumule-runner.service",
  launchd: "/Library/LaunchDaemons/dev.plumule.runner.plist",
} as const;
const NEXT = {
  systemd: "systemctl daemon-reload && systemctl enable --now plumule-runner",
  launchd: `launchctl bootstrap system ${PLACES.launchd}`,
} as const;

/** `plumule runner install-service`. */
export function installServiceCommand(): Command {
  const here = process.platform === "darwin" ? "launchd" : "systemd";
  return new Command("install-service")
    .summary("print, or write, the file with which this machine's service manager starts the runner")
    .addOption(new Option("--kind <manager>", "systemd or launchd").choices(["systemd", "launchd"]).default(here))
    .option("--user <name>", "whom the runner and its jobs run as", "plumule")
    .option("--config <file>", "its file of settings", "/etc/plumule/runner.json")
    .option("--registration <file>", "file of the one-time token (systemd)", "/etc/plumule/registration")
    .option("--write", "write it where the service manager looks, which needs root")
    .action(act(install));
}

/** `plumule bridge install-service`: what stands after `--` are the flags of `plumule bridge start`. */
export function bridgeServiceCommand(): Command {
  return new Command("install-service")
    .summary("print, or write, the unit with which systemd starts the bridge")
    .usage("[options] -- --url URL --namespace NAME [flags of `plumule bridge start`]")
    .argument("<flags...>", "the flags of `plumule bridge start`, after --")
    .option("--user <name>", "whom it runs as: the user of the node", "radicle")
    .option("--write", "write it where systemd looks, which needs root")
    .action(act(installBridge));
}

async function installBridge(
  { terminal }: Context,
  flags: readonly string[],
  { user, write }: Pick<ServiceFlags, "user" | "write">,
): Promise<ExitCode | Failure> {
  if (/[^\w.-]/.test(user)) return misuse(`${user} is no name of a user`, "Name the user of the node.");
  const text = bridgeUnit({ command: commandHere(), flags, user });
  const next = "systemctl daemon-reload && systemctl enable --now plumule-bridge";
  return printOrWrite(terminal, text, write === true ? "/etc/systemd/system/plumule-bridge.service" : null, next);
}

/** The very files that run now: a service has no PATH to find others by. */
function commandHere(): string[] {
  return [process.execPath, ...process.execArgv, realpathSync(process.argv[1] ?? "")];
}

async function printOrWrite(
  terminal: Context["terminal"],
  text: string,
  path: string | null,
  next: string,
): Promise<ExitCode | Failure> {
  if (path === null) {
    terminal.write(text);
    return EXIT.ok;
  }
  try {
    await writeFile(path, text, { mode: 0o644 });
  } catch (error) {
    return misuse(`${path} cannot be written: ${String(error)}`, "Run it as root, or leave --write away.");
  }
  terminal.note(`${paint.good("✓")} ${path}  ${paint.quiet(`→ ${next}`)}`);
  return EXIT.ok;
}

async function install(
  { terminal, cwd }: Context,
  { kind, write, ...flags }: ServiceFlags,
): Promise<ExitCode | Failure> {
  const plan = {
    command: commandHere(),
    user: flags.user,
    config: resolve(cwd, flags.config),
    registration: resolve(cwd, flags.registration),
  };
  if (/[\s:]/.test(plan.registration) || /[^\w.-]/.test(plan.user))
    return misuse("A user or path has a character that no service file takes", "Choose another name without spaces.");
  const text = kind === "systemd" ? systemdUnit(plan) : launchdPlist(plan);
  return printOrWrite(terminal, text, write === true ? PLACES[kind] : null, NEXT[kind]);
}
