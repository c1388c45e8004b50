// What a command needs that speaks of a runner and is none: its configuration, its keys, and what it leaves with. The whole runner is three times as
// many modules, for which somebody would wait at a terminal.
export { type RunnerConfig, runnerConfigSchema, type RunnerOptions } from "./config.ts";
export { RUNNER_EXIT, type RunnerExit, type StartRefusal } from "./exit-codes.ts";
export { createKey, loadKey } from "./key.ts";
export { openAgentSigner } from "./register.ts";
export { agentSigner, listAgentKeys } from "./ssh-agent.ts";
