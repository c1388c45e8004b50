import { join } from "node:path";
import { openLocalHost } from "./command-host.ts";
import { DEFAULT_IMAGE, openContainerHost } from "./container.ts";
import { openLocalProvider } from "./local.ts";
import { probeOverlay } from "./overlay.ts";
import {
  isWorkspaceRefusal,
  type WorkspaceProvider,
  type WorkspaceProviderName,
  type WorkspaceRefusal,
} from "./provider.ts";

/** How a provider is opened. */
export interface ProviderOptions {
  /** Folder of everything that it keeps: mirrors, warm checkouts, workspaces. Absolute; it is made private. */
  folder: string;
  /** Where commands look for programs; this process's PATH unless given. */
  path?: string;
  /** Whether repositories may be folders of this machine; true unless given. */
  allowLocal?: boolean;
  /** Of containers: what they are made from; {@link DEFAULT_IMAGE} unless given. It is pulled when it is not there. */
  image?: string;
  /** Most bytes of mirrors, warm checkouts and setup layers together; 20 GiB unless given. What was used longest ago goes first. */
  quotaBytes?: number;
  /** Bytes that stay free on their disk; 1 GiB unless given. */
  floorBytes?: number;
}

const QUOTA_BYTES = 20 * 1024 ** 3;
const FLOOR_BYTES = 1024 ** 3;

/**
 * Opens a provider. `overlay` is the best that this machine has: where it can mount no overlay, checkouts are used again and put back. `unavailable`
 * when the machine lacks what the provider is made of.
 */
export async function openWorkspaceProvider(
  name: WorkspaceProviderName,
  {
    folder,
    path = process.env["PATH"] ?? "",
    allowLocal = true,
    image = DEFAULT_IMAGE,
    quotaBytes = QUOTA_BYTES,
    floorBytes = FLOOR_BYTES,
  }: ProviderOptions,
): Promise<WorkspaceProvider | WorkspaceRefusal> {
  const options = { folder, name, path, allowLocal, quota: { quotaBytes, floorBytes } };
  if (name === "local") return openLocalProvider({ ...options, host: await openLocalHost(), overlay: null });
  const probed = await probeOverlay(join(folder, "warm"));
  const overlay = typeof probed === "string" ? probed : null;
  if (name === "overlay") return openLocalProvider({ ...options, host: await openLocalHost(), overlay });
  const host = await openContainerHost(image);
  if (isWorkspaceRefusal(host)) return host;
  // An engine does not see what is mounted in a namespace of ours.
  return openLocalProvider({ ...options, host, overlay: overlay === "machine" ? overlay : null });
}
