import type { Task } from "@plumule/protocol";
import { NEW_COMMANDS } from "../nix/run.ts";
import { flakeReference, parseInstallable, type NixSource } from "../nix/installables.ts";
import { untrustedSettings } from "../nix/settings.ts";
import type { ProcessResult } from "../process.ts";
import { ended, orderOf, runTaskProcess, stopEnd, type TaskContext, type TaskEnd } from "./task.ts";

type ShellTask = Extract<Task, { kind: "shell" }>;

/**
 * Runs a script with `bash -euo pipefail`, inside `nix develop` or `nix shell` when the task says so. Standard output and error share one pipe,
 * so that the log has them in the order in which they were written.
 */
export async function runShell(context: TaskContext, task: ShellTask): Promise<TaskEnd> {
  const command = shellCommand(context, task);
  if ("refused" in command) return ended("failed", null, { code: "task-invalid", detail: command.refused });
  const opened = await context.secrets.open();
  if (!opened.ok) {
    if (context.stop.aborted) return stopEnd(orderOf(context.stop), null);
    context.log(`[plumule] ${opened.detail}\n`);
    return ended(opened.elsewhere ? "refused" : "failed", null, { code: "refused", detail: opened.detail });
  }
  context.reporter.phase("building");
  const env = { ...context.env, ...opened.env };
  const onOutput = (chunk: Uint8Array): void => context.log(chunk);
  const result = await runTaskProcess(context, command.argv, { env, merged: true, lend: true, onOutput });
  await context.secrets.close();
  return endOf(context, result);
}

function shellCommand(context: TaskContext, task: ShellTask): { argv: string[] } | { refused: string } {
  const script = ["bash", "-euo", "pipefail", "-c", task.script];
  if (task.develop === undefined && task.packages === undefined) return { argv: script };
  if (context.machine.nix === null) return { refused: "The task needs Nix, and this runner has none." };
  const source: NixSource = {
    directory: context.workspace.checkout,
    kind: context.commit === null ? "files" : "git",
    ...(context.commit === null ? {} : { commit: context.commit }),
  };
  const references: string[] = [];
  for (const installable of task.packages ?? [task.develop ?? "."]) {
    const parsed = parseInstallable(installable, source);
    if ("refused" in parsed) return { refused: parsed.refused };
    if (parsed.kind !== "flake") return { refused: `${installable}: only flake references can be used here` };
    references.push(parsed.attribute === "" ? parsed.reference : `${parsed.reference}#${parsed.attribute}`);
  }
  const allowImportFromDerivation = context.machine.nix.importFromDerivation === true && !context.untrusted;
  const nix = ["nix", ...NEW_COMMANDS, ...untrustedSettings({ allowImportFromDerivation })];
  if (task.packages !== undefined) return { argv: [...nix, "shell", ...references, "-c", ...script] };
  return { argv: [...nix, "develop", references[0] ?? flakeReference(source), "-c", ...script] };
}

function endOf(context: TaskContext, result: ProcessResult): TaskEnd {
  if (context.stop.aborted && result.reason !== "exit") return stopEnd(orderOf(context.stop), result.exitCode);
  switch (result.reason) {
    case "exit":
      if (result.exitCode === 0) return ended("succeeded", 0, null);
      return ended("failed", result.exitCode, {
        code: "exit-code",
        detail: `The script ended with ${result.signal ?? `exit code ${result.exitCode}`}.`,
      });
    case "not-started":
      return ended("refused", null, {
        code: "setup-failed",
        detail: result.detail ?? "The process could not be started.",
      });
    case "lost":
      return ended("refused", null, {
        code: "runner-lost",
        detail: result.detail ?? "The end of the process could not be observed.",
      });
    case "cancelled":
    case "timeout":
    case "silence":
      return stopEnd(orderOf(context.stop), result.exitCode);
  }
}
