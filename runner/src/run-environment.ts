import type { Assignment } from "@plumule/protocol";
import { type ContainerPlace, NIX_MOUNT } from "./container.ts";
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

/** What of the machine is in the container of a run: its own folders, to read those that are named, such as the mirrors whose objects its checkout borrows, and Nix. */
export function containerOf(
  { container }: Pick<MachineFacts, "container">,
  { folder }: Pick<Workspace, "folder">,
  toRead: readonly string[],
): { container?: ContainerPlace } {
  if (container === undefined) return {};
  const read = toRead.map((path) => ({ path, writable: false }));
  return { container: { ...container, mounts: [...read, { path: folder, writable: true }, NIX_MOUNT] } };
}
