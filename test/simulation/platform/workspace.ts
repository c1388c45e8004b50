// In place of `runner/src/workspace.ts`: folders without git.
export * from "../../../runner/src/workspace.ts";
import { join } from "node:path";
import type { WorkspaceFolders, WorkspaceResult } from "../../../runner/src/workspace.ts";
import { currentDisk } from "./computer.ts";

export async function createWorkspace(options: { workspaces: string; runId: string }): Promise<WorkspaceResult> {
  const disk = currentDisk();
  const folder = join(options.workspaces, options.runId);
  const workspace = {
    folder,
    checkout: join(folder, "checkout"),
    home: join(folder, "home"),
    temporary: join(folder, "tmp"),
  };
  for (const path of Object.values(workspace)) disk.makeFolder(path);
  await disk.busy();
  return { ok: true, workspace: { ...workspace, written: [folder], mirrors: [], changes: async () => null } };
}

export async function removeWorkspace({ workspaces }: WorkspaceFolders, runId: string): Promise<boolean> {
  currentDisk().remove(join(workspaces, runId));
  return true;
}

export async function collectWorkspaces(): Promise<void> {}

export async function listWorkspaces({ workspaces }: WorkspaceFolders): Promise<string[]> {
  const disk = currentDisk();
  return disk.isFolder(workspaces) ? disk.list(workspaces) : [];
}
