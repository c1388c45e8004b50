import { fieldErrors, isRefusal, parseJson, refuse } from "@plumule/protocol";
import type * as z from "zod";
import type { WorkspaceConfig } from "../workspace/config.ts";
import {
  isWorkspaceRefusal,
  type OpenWorkspace,
  WORKSPACE_ID,
  type WorkspaceProvider,
  type WorkspaceRefusal,
  type WorkspaceSummary,
} from "../workspace/provider.ts";
import { type DoorAnswer, type DoorRequest, refusalOf } from "./answers.ts";
import * as bodies from "./bodies.ts";
import { type AtWork, createAtWork, run, runWithOutput, stream } from "./commands.ts";

/** What can be asked of a server without a workspace, and of a workspace. Doors give these names to paths and subjects. */
export const SERVER_REQUESTS = ["health", "setup", "list"] as const;
export const WORKSPACE_REQUESTS = [
  "cmd",
  "cmd_with_output",
  "exec",
  "stop",
  "write_file",
  "read_file",
  "fetch",
  "reset",
  "changes",
  "teardown",
] as const;
export type ServerRequestName = (typeof SERVER_REQUESTS)[number];
export type WorkspaceRequestName = (typeof WORKSPACE_REQUESTS)[number];

/** Whether a workspace can be asked for it. */
export function isWorkspaceRequest(name: string): name is WorkspaceRequestName {
  return WORKSPACE_REQUESTS.some((known) => known === name);
}

/** What both doors stand before. */
export type WorkspaceService = {
  config: WorkspaceConfig;
  ask(name: ServerRequestName, request: DoorRequest): Promise<DoorAnswer>;
  askWorkspace(id: string, name: WorkspaceRequestName, request: DoorRequest): Promise<DoorAnswer>;
  /** Ids of the workspaces of this configuration. */
  ids(): Promise<string[]>;
  /** Ends what is at work, the second time without a grace. Workspaces stay. */
  stop: () => void;
};

/** Answers requests about the workspaces that a provider has set up by one configuration; those of others do not exist for it. */
export function createWorkspaceService(provider: WorkspaceProvider, config: WorkspaceConfig): WorkspaceService {
  const atWork = createAtWork();
  const mine = async (): Promise<WorkspaceSummary[]> =>
    (await provider.list()).filter(({ name }) => name === config.name);

  return {
    config,
    stop: atWork.stop,
    ids: async () => (await mine()).map(({ id }) => id),
    async ask(name, request) {
      switch (name) {
        case "health":
          return { value: { healthy: true } };
        case "list":
          return {
            value: { workspaces: (await mine()).map(({ createdAt, ...rest }) => ({ ...rest, created_at: createdAt })) },
          };
        case "setup":
          return withBody(bodies.setupBodySchema, request, (body) => setUp(provider, config, body, request, atWork));
      }
    },
    async askWorkspace(id, name, request) {
      const workspace = WORKSPACE_ID.test(id) ? await provider.open(id) : unknown(id);
      const found = isWorkspaceRefusal(workspace) || workspace.name === config.name ? workspace : unknown(id);
      if (!isWorkspaceRefusal(found)) return askOpen(found, name, request, { config, atWork });
      // What is gone is torn down: whoever was cut off may ask again.
      if (name === "teardown" && found.refused === "not-found") return { value: false };
      return refusalOf(found);
    },
  };
}

function unknown(id: string): WorkspaceRefusal {
  return {
    refused: "not-found",
    detail: `There is no workspace ${JSON.stringify(id.slice(0, 64))} of this configuration.`,
  };
}

async function setUp(
  provider: WorkspaceProvider,
  config: WorkspaceConfig,
  { id, env }: z.output<typeof bodies.setupBodySchema>,
  { cancel: gone }: DoorRequest,
  atWork: AtWork,
): Promise<DoorAnswer> {
  return atWork.during(null, gone, async ({ cancel }) => {
    const made = await provider.setup({
      config,
      cancel,
      ...(id === undefined ? {} : { id }),
      ...(env === undefined ? {} : { env }),
    });
    if (isWorkspaceRefusal(made)) return refusalOf(made);
    // Nobody would know of it.
    if (cancel.aborted) await made.teardown();
    return { value: describe(made), established: made.id };
  });
}

/** A workspace as `setup` answers it. */
export function describe(workspace: OpenWorkspace): Record<string, unknown> {
  const { id, name, provider, strategy, repositories, setupCached, createdAt } = workspace;
  return { id, name, provider, strategy, repositories, setup_cached: setupCached, created_at: createdAt };
}

async function askOpen(
  workspace: OpenWorkspace,
  name: WorkspaceRequestName,
  request: DoorRequest,
  { config, atWork }: { config: WorkspaceConfig; atWork: AtWork },
): Promise<DoorAnswer> {
  const { cancel: gone, emit, answerBytes } = request;
  const during = (act: Parameters<AtWork["during"]>[2]): Promise<DoorAnswer> => atWork.during(workspace.id, gone, act);
  switch (name) {
    case "cmd":
      return withBody(bodies.commandBodySchema, request, (body) => during((work) => run(workspace, body, work)));
    case "cmd_with_output":
      return withBody(bodies.commandBodySchema, request, (body) =>
        during((work) => runWithOutput(workspace, body, work, answerBytes)),
      );
    case "exec":
      return withBody(bodies.execBodySchema, request, (body) => during((work) => stream(workspace, body, work, emit)));
    case "stop":
      return withBody(bodies.stopBodySchema, request, async (body) => atWork.stopOne(workspace.id, body));
    case "write_file":
      return withBody(bodies.writeFileBodySchema, request, ({ path, working_dir: folder, content }) =>
        during(async () => {
          const written = await workspace.writeFile(inFolder(folder, path), Buffer.from(content, "base64"));
          return answerOf(written, { success: true });
        }),
      );
    case "read_file":
      return withBody(bodies.readFileBodySchema, request, ({ path, working_dir: folder }) =>
        during(async () => {
          const read = await workspace.readFile(inFolder(folder, path));
          return isWorkspaceRefusal(read) ? refusalOf(read) : { bytes: read };
        }),
      );
    case "fetch":
      return withBody(bodies.noBodySchema, request, () =>
        during(async (work) => answerOf(await workspace.fetch({ cancel: work.cancel, config }))),
      );
    case "reset":
      return withBody(bodies.noBodySchema, request, () =>
        during(async (work) => answerOf(await workspace.reset({ cancel: work.cancel }))),
      );
    case "changes":
      return withBody(bodies.noBodySchema, request, () => during(async () => answerOf(await workspace.changes())));
    case "teardown":
      return withBody(bodies.noBodySchema, request, async () => answerOf(await workspace.teardown(), true));
  }
}

/** A path as the provider takes it: from the root, unless a folder is named and the path is not absolute. */
function inFolder(folder: string | undefined, path: string): string {
  return folder === undefined || path.startsWith("/") ? path : `${folder}/${path}`;
}

function answerOf(answer: object, value: unknown = answer): DoorAnswer {
  return isWorkspaceRefusal(answer) ? refusalOf(answer) : { value };
}

async function withBody<T>(
  schema: z.ZodType<T>,
  { body }: DoorRequest,
  then: (body: T) => Promise<DoorAnswer>,
): Promise<DoorAnswer> {
  const json = body.length === 0 ? { value: {} } : parseJson(body);
  if (isRefusal(json)) return json;
  const parsed = schema.safeParse(json.value);
  if (parsed.success) return then(parsed.data);
  return refuse("invalid-body", "The body does not have the fields of this request.", {
    errors: fieldErrors(parsed.error),
  });
}
