// In place of `runner/src/machine.ts`: a machine that needs no probing.
export * from "../../../runner/src/machine.ts";
import type { Machine } from "../../../runner/src/machine.ts";
import type { RunnerConfig } from "../../../runner/src/config.ts";

export const RUNNER_VERSION = "simulated";

export async function probeMachine(
  config: RunnerConfig,
  signer: Machine["signer"],
  runner: string,
): Promise<{ machine: Machine; findings: string[] }> {
  const isolation = "process-group";
  const { name, labels, features, capacity } = config;
  const offer = {
    name,
    systems: ["x86_64-linux"],
    features,
    labels,
    isolation,
    version: RUNNER_VERSION,
    capacity,
  } as const;
  return {
    machine: {
      signer,
      runner,
      version: RUNNER_VERSION,
      isolation,
      overlay: false,
      limits: { memory: { by: "none", why: "simulated" }, tasks: { by: "none", why: "simulated" } },
      nix: null,
      variables: {},
      path: "/bin",
      offer: { ...offer, systems: [...offer.systems] },
    },
    findings: [],
  };
}
