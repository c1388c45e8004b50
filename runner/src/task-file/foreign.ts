import { type Expansion, LIMITS } from "@plumule/protocol";
import * as z from "zod";
import type { Place } from "./yaml.ts";
import type { Step } from "./steps.ts";

/** What another tool's file asks for, or why it cannot be done here. */
export type ForeignSteps = { steps: Step[]; expansion?: Expansion } | { faults: (Place & { detail: string })[] };

const script = z.string().min(1).max(LIMITS.scriptCharacters);

/** `.radicle/native.yaml` of radicle-native-ci: one key `shell` with a Bash snippet. */
const nativeSchema = z.strictObject({ shell: script });

/** The step of a file of radicle-native-ci. */
export function nativeSteps(content: unknown): ForeignSteps {
  const parsed = nativeSchema.safeParse(content);
  if (!parsed.success) return { faults: parsed.error.issues.map((issue) => faultOf(issue, NATIVE_ONLY)) };
  const task: Step["task"] = { kind: "shell", script: parsed.data.shell };
  return { steps: [{ name: "native", task }] };
}

const NATIVE_ONLY = "a native.yaml has one key, `shell`, with a script; more can be said in .radicle/plumule.yaml";
const AMBIENT_ONLY =
  "of an ambient.yaml only `pre_plan`, `plan` and `post_plan` are honoured, as lists of `action: shell` with `shell`, and of what Ambient does with cargo";

/** Actions that are one command, as ambient-ci 0.14 has them in `action_impl/cargo.rs`. */
const CARGO_ACTIONS: ReadonlyMap<string, string> = new Map([
  ["cargo_fetch", "if [ -e Cargo.lock ]; then cargo fetch --locked; else cargo fetch; fi"],
  ["cargo_fmt", "cargo fmt --check"],
  ["cargo_clippy", "cargo clippy --offline --locked --workspace --all-targets --no-deps -- --deny warnings"],
  ["cargo_build", "cargo build --offline --locked --workspace --all-targets"],
  ["cargo_test", "cargo test --offline --locked --workspace"],
  ["cargo_doc", "RUSTDOCFLAGS='-D warnings' cargo doc --workspace"],
]);

const actionsSchema = z
  .array(z.looseObject({ action: z.string() }))
  .nullable()
  .optional();
const PLANS = ["pre_plan", "plan", "post_plan"] as const;
/** `.radicle/ambient.yaml` of Ambient CI. */
const ambientSchema = z.strictObject({ pre_plan: actionsSchema, plan: actionsSchema, post_plan: actionsSchema });
const shellActionSchema = z.strictObject({ action: z.literal("shell"), shell: script });

/**
 * The steps of an Ambient file that has nothing but scripts and cargo's commands: those of its three plans one after the other, each only after the one before it
 * has succeeded.
 */
export function ambientSteps(content: unknown): ForeignSteps {
  const parsed = ambientSchema.safeParse(content);
  if (!parsed.success) return { faults: parsed.error.issues.map((issue) => faultOf(issue, AMBIENT_ONLY)) };
  const steps: Step[] = [];
  const faults: (Place & { detail: string })[] = [];
  for (const plan of PLANS)
    for (const [index, action] of (parsed.data[plan] ?? []).entries()) {
      const command = CARGO_ACTIONS.get(action.action);
      const shell = shellActionSchema.safeParse(
        command === undefined ? action : { ...action, action: "shell", shell: command },
      );
      if (shell.success) {
        const before = steps.at(-1);
        steps.push({
          name: `${plan}-${index + 1}`,
          task: { kind: "shell", script: shell.data.shell },
          ...(before === undefined ? {} : { needs: [before.name] }),
        });
      } else if (action.action === "shell" || command !== undefined)
        faults.push(
          ...shell.error.issues.map((issue) => faultOf({ ...issue, path: [plan, index, ...issue.path] }, AMBIENT_ONLY)),
        );
      else faults.push({ path: [plan, index, "action"], at: "value", detail: foreignAction(action.action) });
    }
  if (faults.length > 0) return { faults };
  return steps.length === 0 ? { faults: [{ path: [], at: "value", detail: "no plan has an action" }] } : { steps };
}

function foreignAction(action: string): string {
  return `\`${action.slice(0, LIMITS.nameCharacters)}\` is done by Ambient itself and not here: write it as \`action: shell\` with the command in \`shell\``;
}

function faultOf(issue: z.core.$ZodIssue, only: string): Place & { detail: string } {
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  const [key] = issue.code === "unrecognized_keys" ? issue.keys : [];
  return key === undefined
    ? { path, at: "value", detail: `${issue.message.replace("Invalid input: ", "")}; ${only}` }
    : { path: [...path, key], at: "name", detail: `\`${key}\` is not done here: ${only}` };
}
