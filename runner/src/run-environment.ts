import type { Assignment } from "@plumule/protocol";
import { type ContainerPlace, NIX_MOUNT } from "./container.ts";
import type { Shade } from "./shade.ts";
import { jobEnvironment } from "./environment.ts";
import type { MachineFacts } from "./machine.ts";
import type { Workspace } from "./workspace.ts";

/** The environment of a run's processes, its secrets apart. `configuration` is the file of the job's configuration. */
export function runEnvironment(
  { spec, ...ids }: Omit<Assignment, "leaseToken">,
  machine: Pick<MachineFacts, "path" | "variables">,
  workspace: Pick<Workspace, "home" | "temporary">,
  configuration: string | undefined,
): ReturnType<typeof jobEnvironment> {
  return jobEnvironment({
    path: machine.path,
    home: workspace.home,
    temporary: workspace.temporary,
    machine: machine.variables,
    facts: {
      NAMESPACE: ids.namespace,
      DEPLOYMENT: ids.deployment,
      JOB: ids.job,
      RUN: ids.run,
      ATTEMPT: String(ids.attempt),
      REPOSITORY: spec.source?.repository,
      COMMIT: spec.source?.commit,
      REF: spec.source?.ref,
      TYPE: spec.type,
      CONFIGURATION: configuration,
      TEARDOWN: ids.teardown ? "1" : undefined,
    },
    ...(spec.env === undefined ? {} : { job: spec.env }),
  });
}

/**
 * What of the machine a run has around it: its own folders, and to read those that are named, such as the mirrors whose objects its checkout borrows.
 * A container has nothing else but Nix; at the other levels nothing else is there of what the runner keeps to itself.
 */
export function surroundings(
  { container, privacy }: Pick<MachineFacts, "container" | "privacy">,
  { folder }: Pick<Workspace, "folder">,
  { read, write = [] }: { read: readonly string[]; write?: readonly string[] },
): { container?: ContainerPlace; shade?: Shade } {
  const toRead = read.map((path) => ({ path, writable: false }));
  const own = { path: folder, writable: true };
  if (container !== undefined) return { container: { ...container, mounts: [...toRead, own, NIX_MOUNT] } };
  if (privacy === undefined) return {};
  const toWrite = [...write, ...privacy.shared].map((path) => ({ path, writable: true }));
  return { shade: { hidden: privacy.folders, shown: [own, ...toRead, ...toWrite] } };
}
