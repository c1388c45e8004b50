import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import {
  createPrivateFile,
  createWorkspaceService,
  localAddress,
  readPrivateFile,
  serveWorkspacesHttp,
  serveWorkspacesNats,
  type WorkspaceDoor,
  type WorkspaceService,
} from "@plumule/runner";
import { Command, Option } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { paint } from "../print.ts";
import { configOf, openProvider, type ProvisionFlags, withProvisionFlags, workspacesFolder } from "../workspaces.ts";

type ServeFlags = ProvisionFlags & {
  serverMode: "http" | "nats";
  listen: string;
  tokenFile?: string;
  subject?: string;
};

/** `plumule workspace serve`. */
export function serveCommand(): Command {
  return withProvisionFlags(
    new Command("serve")
      .summary("let other programs set up and use workspaces, over HTTP or NATS")
      .description(
        "Answers requests to set up workspaces of one configuration, run commands in them, read and write files, fetch, reset and tear down, until it is stopped. HTTP is for this machine alone; NATS is found by NATS_URL and the other variables of the `nats` command. The requests are in docs/workspaces-server.md.",
      )
      .addOption(new Option("-s, --server-mode <mode>", "how it is asked").choices(["http", "nats"]).default("http"))
      .option("--listen <address>", "for http: a port of this machine, or the path of a unix socket", "127.0.0.1:50080")
      .option(
        "--token-file <file>",
        "for http: the token, made when there is none; a socket needs one only if this is given",
      )
      .option("--subject <subject>", "for nats: what all subjects begin with (default: workspace.NAME)"),
  ).action(act(serve));
}

async function serve(context: Context, flags: ServeFlags): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const config = await configOf(flags.workspaceConfigPath, context);
  if (isFailure(config)) return config;
  const provider = await openProvider(flags.provisioningMode, flags, context);
  if (isFailure(provider)) return provider;
  const service = createWorkspaceService(provider, config);
  const door = await (flags.serverMode === "http" ? openHttp : openNats)(context, service, flags);
  if (isFailure(door)) return door;
  const { address, tokenFile } = door;
  if (terminal.json) terminal.data({ name: config.name, provider: provider.name, address, tokenFile });
  else {
    terminal.note(
      `${paint.good("✓")} workspaces of ${config.name} (${provider.name}) are served: ${paint.strong(address)}`,
    );
    if (tokenFile !== null) terminal.note(`  ${paint.quiet("token")}  ${tokenFile}`);
    terminal.note(`  ${paint.quiet("Ctrl-C ends what runs and the server; the workspaces stay")}`);
  }
  await new Promise<void>((left) => {
    const stop = (): void => {
      service.stop();
      void door.close().then(left);
    };
    process.on("SIGINT", stop);
    process.on("SIGTERM", stop);
  });
  return EXIT.ok;
}

/** A door that stands open, and where its token is. */
type OpenDoor = WorkspaceDoor & { tokenFile: string | null };

async function openHttp(
  context: Context,
  service: WorkspaceService,
  { listen, tokenFile: chosen, state }: ServeFlags,
): Promise<OpenDoor | Failure> {
  const address = localAddress(listen.includes("/") ? resolve(context.cwd, listen) : listen);
  if (address === null)
    return misuse(
      `${listen} is no address of this machine alone`,
      "Give 127.0.0.1:50080, [::1]:50080 or the path of a unix socket; for other machines put an SSH tunnel before it, or use `-s nats`.",
    );
  const needsToken = !("path" in address) || chosen !== undefined;
  const tokenFile = needsToken
    ? resolve(context.cwd, chosen ?? join(workspacesFolder(state, context), "server-token"))
    : null;
  const token = tokenFile === null ? null : await tokenIn(tokenFile);
  if (isFailure(token)) return token;
  const door = await serveWorkspacesHttp(service, { address, token, say: context.terminal.note });
  if ("refused" in door) return { exit: EXIT.conflict, what: door.refused, next: "Choose another with --listen." };
  return { ...door, tokenFile };
}

async function tokenIn(path: string): Promise<string | Failure> {
  await createPrivateFile(path, `${randomBytes(32).toString("base64url")}\n`);
  const file = await readPrivateFile(path);
  if (!file.ok) return misuse(`The token cannot be used: ${file.detail}`, "Correct it, or name another --token-file.");
  const token = file.text.trim();
  if (/^[\x21-\x7e]{16,512}$/.test(token)) return token;
  return misuse(`${path} holds no token`, "Put 16 to 512 characters without spaces there, or remove it: one is made.");
}

async function openNats(
  { env, terminal }: Context,
  service: WorkspaceService,
  { subject }: ServeFlags,
): Promise<OpenDoor | Failure> {
  const door = await serveWorkspacesNats(service, {
    env,
    say: terminal.note,
    ...(subject === undefined ? {} : { subject }),
  });
  if ("refused" in door)
    return {
      exit: EXIT.unreachable,
      what: door.refused,
      next: "Look at NATS_URL and NATS_CREDS: docs/workspaces-server.md lists what is read.",
    };
  return { ...door, tokenFile: null };
}
