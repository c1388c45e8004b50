import { join } from "node:path";
import { openLocalProvider } from "./local.ts";
import { probeOverlay } from "./overlay.ts";
import {
  refuseWorkspace,
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
  /** Of containers: what they are made from. */
  image?: string;
}

/**
 * Opens a provider. `overlay` is the best that this machine has: where it can mount no overlay, checkouts are used again and put back. `unavailable`
 * when the machine lacks what the provider is made of.
 */
export async function openWorkspaceProvider(
  name: WorkspaceProviderName,
  { folder, path = process.env["PATH"] ?? "", allowLocal = true }: ProviderOptions,
): Promise<WorkspaceProvider | WorkspaceRefusal> {
  switch (name) {
    case "local":
      return openLocalProvider({ folder, name, overlay: null, path, allowLocal });
    case "overlay": {
      const probed = await probeOverlay(join(folder, "warm"));
      return openLocalProvider({ folder, name, overlay: typeof probed === "string" ? probed : null, path, allowLocal });
    }
    case "container":
      return refuseWorkspace("unavailable", "no container engine");
  }
}
