export { type RunnerConfig, runnerConfigSchema, type RunnerOptions } from "./config.ts";
export { createKey, loadKey } from "./key.ts";
export { privateStore, probeNix } from "./nix/probe.ts";
export { encodeNixPublicKey, nixKeyName } from "./nix/signature.ts";
export { EXIT_REFUSED, EXIT_TOO_OLD, type RunnerEnvironment, type RunningRunner, startRunner } from "./runner.ts";
export { agentSigner, listAgentKeys } from "./ssh-agent.ts";
export { lockState, type StateLock } from "./state-lock.ts";
