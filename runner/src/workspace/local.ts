import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { dropCheckout, provideCheckout, reserveCheckout } from "./checkout.ts";
import type { CommandHost } from "./command-host.ts";
import { fetchOptionsOf, type LocalPlace, prepareGround, seatOf } from "./ground.ts";
import { openHold } from "./hold.ts";
import { openLocalWorkspace, signalOf } from "./local-workspace.ts";
import type { OverlayMode } from "./overlay.ts";
import {
  isWorkspaceRefusal,
  type OpenWorkspace,
  refuseWorkspace,
  type SetupRequest,
  WORKSPACE_ID,
  type WorkspaceProvider,
  type WorkspaceProviderName,
  type WorkspaceRefusal,
} from "./provider.ts";
import { collectSometimes, type WarmQuota } from "./quota.ts";
import { refusalOf, resolveReferences } from "./references.ts";
import { openStanding, type Standing } from "./standing.ts";

/** How a provider of this machine is opened. */
export interface LocalProviderOptions {
  /** Folder of everything that it keeps; it is made private. */
  folder: string;
  name: WorkspaceProviderName;
  /** What runs the commands. */
  host: CommandHost;
  /** How overlays are mounted; null for none: checkouts are used again and put back. */
  overlay: OverlayMode | null;
  /** Where commands look for programs. */
  path: string;
  allowLocal: boolean;
  /** What may be kept warm, and what stays free on the disk. */
  quota: Pick<WarmQuota, "quotaBytes" | "floorBytes">;
}

/** Opens the provider of workspaces on this machine. */
export async function openLocalProvider(options: LocalProviderOptions): Promise<WorkspaceProvider> {
  const { folder, name, host, overlay, path, allowLocal, quota } = options;
  const at = (name: string): string => join(folder, name);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const place: LocalPlace = {
    mirrors: at("mirrors"),
    warm: at("warm"),
    workspaces: at("workspaces"),
    overlay,
    host,
    path,
    allowLocal,
  };
  const store = openStanding(at("standing"), name);
  const holdOf = (id: string): ReturnType<typeof openHold> => openHold(join(at("locks"), id));
  return {
    name,
    async setup(request) {
      const { id = `ws-${randomUUID().slice(0, 13)}` } = request;
      if (!WORKSPACE_ID.test(id))
        return refuseWorkspace("invalid", `${id} is no id: small letters, digits and hyphens, 63 at most`);
      const hold = holdOf(id);
      const made = await hold.alone("setting up", async () => {
        if ((await store.get(id)) !== null) return refuseWorkspace("busy", `there is a workspace ${id} already`);
        const standing = await setUp(place, name, id, request);
        if (!isWorkspaceRefusal(standing)) await store.put(standing);
        return standing;
      });
      await collectSometimes({ mirrors: place.mirrors, warm: place.warm, ...quota });
      if (isWorkspaceRefusal(made)) return made;
      return openLocalWorkspace({ place, store, hold, standing: made, config: request.config });
    },
    async open(id): Promise<OpenWorkspace | WorkspaceRefusal> {
      const standing = await store.get(id);
      if (standing === null) return refuseWorkspace("not-found", `there is no workspace ${id}`);
      return openLocalWorkspace({ place, store, hold: holdOf(id), standing, config: null });
    },
    async list() {
      const all = await store.list();
      return all.map(({ id, name: of, provider, createdAt }) => ({ id, name: of, provider, createdAt }));
    },
  };
}

async function setUp(
  place: LocalPlace,
  provider: Standing["provider"],
  id: string,
  { config, env = {}, onOutput, ...bounds }: SetupRequest,
): Promise<Standing | WorkspaceRefusal> {
  const { warm, overlay } = place;
  const cancel = signalOf(bounds);
  const fetch = fetchOptionsOf(place, cancel);
  const sources = await resolveReferences(config, fetch);
  if (isWorkspaceRefusal(sources)) return sources;
  const folder = join(place.workspaces, id);
  const request = { warm, id, folder, sources, domain: config.name, overlay, fetch };
  await reserveCheckout(request);
  const script = config.setupScript;
  const ground = await prepareGround(place, sources, { script, env, domain: config.name, onOutput, cancel });
  if (ground !== null && isWorkspaceRefusal(ground)) {
    await dropCheckout(warm, id);
    return ground;
  }
  const made = await provideCheckout({ ...request, setup: ground?.folder ?? null });
  if (!made.ok) return refusalOf(made);
  await seatOf(place, made.record, { id, env });
  const commitOf = (index: number): string => sources[index]?.source.commit ?? "";
  return {
    version: 1,
    id,
    name: config.name,
    provider,
    strategy: made.strategy,
    createdAt: new Date().toISOString(),
    env,
    setupScript: script,
    setupCached: ground?.cached ?? null,
    repositories: config.repositories.map(({ url, path, reference }, index) => ({
      url,
      path,
      reference,
      commit: commitOf(index),
    })),
  };
}
