import { realpathSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { EffectDerivation } from "../effects/derivation.ts";
import { effectEnvironment, type EffectSetting, INSIDE, scriptEnvironment } from "../effects/environment.ts";
import { type Sandbox, sandboxCommand } from "../effects/sandbox.ts";
import { secretsForEffect, type SecretsMap } from "../effects/secrets.ts";
import { serveState, stateFolder, type StateServer } from "../effects/state.ts";
import { findExecutable } from "../executable.ts";
import { nameOf } from "../nix/arguments.ts";
import { type BuiltTarget, ended, orderOf, stopEnd, type TaskContext, type TaskEnd } from "./task.ts";

/** An effect whose build is done: what is left to do for it. */
export type Prepared = { effect: EffectDerivation | null; outputs: readonly string[]; targets: BuiltTarget[] };

/** The sandbox of a run and what belongs to it, open from its plan on until it has applied. */
export type Stage = {
  setting: EffectSetting;
  sandbox: Omit<Sandbox, "env" | "cwd" | "files" | "uid" | "gid">;
  state: StateServer;
};

/** Opens the secrets and starts the server of state files. */
export async function openStage(context: TaskContext, map: SecretsMap): Promise<Stage | { end: TaskEnd }> {
  const { assignment, workspace, machine, secrets, stop, log } = context;
  const opened = await secrets.open((all, token) => secretsForEffect(all, map, token));
  if (!opened.ok) {
    if (stop.aborted) return { end: stopEnd(orderOf(stop), null) };
    log(`[plumule] ${opened.detail}\n`);
    return { end: ended(opened.elsewhere ? "refused" : "failed", null, { code: "refused", detail: opened.detail }) };
  }
  const etc = join(workspace.folder, "etc");
  await mkdir(etc, { recursive: true, mode: 0o700 });
  await writeFile(join(etc, "passwd"), `root:x:0:0:root:${INSIDE.build}:/noshell\n`);
  await writeFile(join(etc, "group"), "root:x:0:\n");
  const state = await serveState({
    folder: stateFolder(context.effectStates, assignment),
    token: secrets.token,
    announce: () => context.tell({ type: "state" }),
  });
  const { owner, name } = nameOf(assignment.spec.source?.repository ?? assignment.deployment);
  const { PLUMULE_SECRETS: folder, HERCULES_CI_SECRETS_JSON: hercules } = opened.env;
  return {
    state,
    setting: {
      store: machine.variables["NIX_STORE_DIR"] ?? "/nix/store",
      apiBaseUrl: state.url,
      projectId: assignment.deployment,
      projectPath: `plumule/${owner ?? assignment.namespace}/${name}`,
      facts: factsOf(context),
    },
    sandbox: {
      store: machine.variables["NIX_STORE_DIR"] ?? "/nix/store",
      etc,
      secrets: folder === undefined || hercules === undefined ? null : { folder, hercules },
      configuration: context.job.configuration?.path ?? null,
      checkout:
        context.commit === null ? null : { path: workspace.checkout, borrows: await borrowsOf(workspace.checkout) },
    },
  };
}

/** The `PLUMULE_…` variables as they are inside. */
function factsOf({ env }: TaskContext): Record<string, string> {
  const facts = Object.entries(env).filter(([name]) => name.startsWith("PLUMULE_"));
  return {
    ...Object.fromEntries(facts),
    ...(env["PLUMULE_CONFIGURATION"] === undefined ? {} : { PLUMULE_CONFIGURATION: INSIDE.configuration }),
    PLUMULE_SECRETS: INSIDE.secrets,
  };
}

/** Folders that the repository of a checkout borrows objects from. */
async function borrowsOf(checkout: string): Promise<string[]> {
  const text = await readFile(join(checkout, ".git/objects/info/alternates"), "utf8").catch(() => "");
  return text.split("\n").filter((line) => line.startsWith("/"));
}

/** The builder of an effect in its sandbox. */
export async function effectCommand(
  context: TaskContext,
  effect: EffectDerivation,
  { setting, sandbox }: Stage,
): Promise<string[]> {
  const { env, files: contents } = effectEnvironment(setting, effect.env);
  const files: Record<string, string> = {};
  for (const [at, [inside, text]] of Object.entries(contents).entries()) {
    files[inside] = join(context.workspace.folder, `attr-${at}`);
    await writeFile(files[inside], text, { mode: 0o600 });
  }
  const id = (name: string): number => (/^\d{1,9}$/.test(effect.env[name] ?? "") ? Number(effect.env[name]) : 0);
  const uid = id("__hci_effect_virtual_uid");
  const gid = id("__hci_effect_virtual_gid");
  const own = { ...sandbox, checkout: null, env, files, uid, gid, cwd: INSIDE.build };
  return sandboxCommand(own, [effect.builder, ...effect.args]);
}

/** A script of the job in the sandbox, beside what was built and in the checkout. */
export function scriptCommand(
  context: TaskContext,
  script: string,
  { effect, outputs }: Prepared,
  { setting, sandbox }: Stage,
): string[] {
  const inside = { ...context.env, ...setting.facts };
  const env = scriptEnvironment(inside, setting, { outputs, drv: effect?.drv ?? null });
  const found = findExecutable("bash", context.machine.path, "/");
  const cwd = sandbox.checkout === null ? INSIDE.build : INSIDE.checkout;
  const bash = found === null ? "bash" : realpathSync(found);
  return sandboxCommand({ ...sandbox, env, files: {}, uid: 0, gid: 0, cwd }, [bash, "-euo", "pipefail", "-c", script]);
}
