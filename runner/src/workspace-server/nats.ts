import type { NatsConnection, Subscription } from "@nats-io/transport-node";
import { isRefusal, refuse } from "@plumule/protocol";
import type { DoorAnswer, DoorRequest } from "./answers.ts";
import type { WorkspaceDoor } from "./http.ts";
import { answerMessage, type NatsLibrary } from "./nats-messages.ts";
import { natsSettings } from "./nats-settings.ts";
import { isWorkspaceRequest, SERVER_REQUESTS, type WorkspaceService } from "./requests.ts";

/** What the door over NATS is made of. */
export type NatsDoorOptions = {
  env: Readonly<Record<string, string | undefined>>;
  /** Subject that all others begin with; `workspace.` and the name of the configuration unless given. */
  subject?: string;
  say: (line: string) => void;
};

/**
 * Serves workspaces over NATS. `<subject>.health`, `.setup` and `.list` are for everybody; each workspace has a subject of its own,
 * `<subject>.<id>`, which is announced on `<subject>.announce` when it is established, and to which `.cmd`, `.exec` and the others are added.
 * The client of NATS is loaded here and nowhere else.
 */
export async function serveWorkspacesNats(
  service: WorkspaceService,
  { env, subject, say }: NatsDoorOptions,
): Promise<WorkspaceDoor | { refused: string }> {
  const topic = subject ?? `workspace.${service.config.name.replace(/[^A-Za-z0-9_-]+/g, "-")}`;
  if (!/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(topic))
    return { refused: `${topic} is no subject: words of letters, digits, - and _ with dots between them are.` };
  const library = await import("@nats-io/transport-node");
  const settings = await natsSettings(env, library);
  if ("refused" in settings) return settings;
  const connection = await library
    .connect({ ...settings, name: `plumule ${topic}`, maxReconnectAttempts: -1 })
    .catch((error: Error) => error);
  if (connection instanceof Error) return { refused: `NATS cannot be used: ${connection.message}` };
  const door = openDoor({ service, connection, library, topic, say });
  await door.establishAll();
  await connection.flush();
  void tellStatus(connection, say);
  let isClosing = false;
  return {
    address: `${topic} at ${connection.getServer()}`,
    async close() {
      if (isClosing) return connection.close();
      isClosing = true;
      await door.answered();
      if (!connection.isClosed()) await connection.drain();
    },
  };
}

type Door = {
  service: WorkspaceService;
  connection: NatsConnection;
  library: NatsLibrary;
  topic: string;
  say: (line: string) => void;
};

/** Subscribes to what everybody may ask, and gives subjects to workspaces as they come and go. */
function openDoor({ service, connection, library, topic, say }: Door): {
  establishAll(): Promise<void>;
  answered(): Promise<void>;
} {
  const established = new Map<string, Subscription>();
  const answering = new Set<Promise<void>>();

  type Ask = (name: string, request: DoorRequest) => Promise<DoorAnswer>;
  const listen = (subject: string, ask: Ask, options: { queue?: string } = {}): Subscription =>
    connection.subscribe(subject, {
      ...options,
      callback: (error, message) => {
        if (error !== null) return say(`NATS refuses ${subject}: ${error.message}`);
        const name = message.subject.slice(message.subject.lastIndexOf(".") + 1);
        const answered = answerMessage({ connection, library, say }, message, (request) => ask(name, request));
        answering.add(answered);
        void answered.finally(() => answering.delete(answered));
      },
    });

  const establish = (id: string): string => {
    const own = `${topic}.${id}`;
    if (established.has(id)) return own;
    established.set(
      id,
      listen(`${own}.*`, (name, request) => askWorkspace(id, name, request)),
    );
    const said = { channel_topic: topic, channel_instance_subject: own, initial_message: { id } };
    connection.publish(`${topic}.announce`, JSON.stringify(said));
    return own;
  };
  const askWorkspace = async (id: string, name: string, request: DoorRequest): Promise<DoorAnswer> => {
    if (!isWorkspaceRequest(name)) return refuse("not-found", "There is no such request.", { next: HELP });
    const answered = await service.askWorkspace(id, name, request);
    if (name !== "teardown" || isRefusal(answered)) return answered;
    established.get(id)?.unsubscribe();
    established.delete(id);
    return answered;
  };
  const establishAll = async (): Promise<void> => {
    for (const id of await service.ids()) establish(id);
  };
  for (const server of SERVER_REQUESTS) {
    const ask = async (_: string, request: DoorRequest): Promise<DoorAnswer> => {
      // Others may have set some up, with the command line or over HTTP.
      if (server === "list") await establishAll();
      const answered = await service.ask(server, request);
      if (isRefusal(answered) || !("established" in answered)) return answered;
      return { value: { ...answered.value, subject: establish(answered.established) } };
    };
    // Of several servers with one subject each lists its own, and one sets up.
    listen(`${topic}.${server}`, ask, server === "list" ? {} : { queue: "plumule" });
  }
  return {
    establishAll,
    async answered() {
      await Promise.all(answering);
    },
  };
}

const HELP = "See docs/workspaces-server.md.";

/** Says when the connection is lost and when it is back; the client connects again by itself, for as long as it takes. */
async function tellStatus(connection: NatsConnection, say: (line: string) => void): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === "disconnect") say(`NATS is away (${status.server}).`);
    if (status.type === "reconnect") say(`NATS is back (${status.server}).`);
    if (status.type === "error") say(`NATS refuses something: ${status.error.message}`);
  }
}
