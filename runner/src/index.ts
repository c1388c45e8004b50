export * from "./settings.ts";
export { examine } from "./doctor/examine.ts";
export type { Check } from "./doctor/judge.ts";
export { findExecutable } from "./executable.ts";
export { tellSystemd } from "./health/notify.ts";
export { privateStore, probeNix } from "./nix/probe.ts";
export { encodeNixPublicKey, nixKeyName } from "./nix/signature.ts";
export type { RunningRunner } from "./loop.ts";
export { type RunnerEnvironment, startRunner } from "./runner.ts";
export type { Desk } from "./standalone/desk.ts";
export type { LocalJob } from "./standalone/local-job.ts";
export { lockState, type StateLock } from "./state-lock.ts";
export { loadTaskFileReading } from "./task-file/load.ts";
export { type Step, TASK_FILES } from "./task-file/steps.ts";
export type { FileFault } from "./task-file/yaml.ts";
export { parseWorkspaceConfig, readWorkspaceConfig, type WorkspaceConfig } from "./workspace/config.ts";
export { openWorkspaceProvider, type ProviderOptions } from "./workspace/open.ts";
export {
  type Change,
  type ChangeSet,
  type ExecEnd,
  type ExecRequest,
  isWorkspaceRefusal,
  type OpenWorkspace,
  type RepositoryState,
  type SetupRequest,
  WORKSPACE_ID,
  WORKSPACE_PROVIDERS,
  type WorkspaceProvider,
  type WorkspaceProviderName,
  type WorkspaceRefusal,
  type WorkspaceSummary,
} from "./workspace/provider.ts";
export type { OutputStream } from "./process.ts";
export { localAddress } from "./local-address.ts";
export { createPrivateFile, readPrivateFile } from "./private-file.ts";
export { endOf as commandEnd } from "./workspace-server/answers.ts";
export { serveWorkspacesHttp, type WorkspaceDoor } from "./workspace-server/http.ts";
export { serveWorkspacesNats } from "./workspace-server/nats.ts";
export { createWorkspaceService, type WorkspaceService } from "./workspace-server/requests.ts";
