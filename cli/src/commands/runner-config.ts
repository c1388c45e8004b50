import { runnerConfigSchema } from "@plumule/runner/settings";
import { Command } from "commander";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure, misuse } from "../failure.ts";
import { paint, tableLines } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { type RunnerFlags, settingsOfFlags, withRunnerFlags } from "./runner-flags.ts";

/** Settings that are never shown. */
const SECRET: readonly string[] = ["registration"];

/** `plumule runner config`. */
export function configCommand(): Command {
  return withRunnerFlags(
    new Command("config")
      .summary("show every setting of this machine's runner, and where it comes from")
      .description(
        "Shows what `plumule runner start` with the same flags would use: the file, above it the environment, above that the flags. Ends with 2 when the runner would not start with it.",
      ),
  ).action(act(show));
}

async function show(context: Context, flags: RunnerFlags): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const found = await settingsOfFlags(context, flags);
  if (isFailure(found)) return found;
  const parsed = runnerConfigSchema.safeParse(found.settings);
  if (!parsed.success)
    return misuse(
      "The runner would not start with these settings",
      "`plumule runner start --help` lists what can be set.",
      parsed.error.issues.map(({ path, message }) => ({
        pointer: `/${path.join("/")}`,
        detail: `${message} (from ${found.origins[String(path[0])] ?? "default"})`,
      })),
    );
  const effective: Readonly<Record<string, unknown>> = parsed.data;
  const shown = Object.keys(runnerConfigSchema.shape).map((name) => ({
    name,
    value: SECRET.includes(name) ? (effective[name] === undefined ? null : "set") : (effective[name] ?? null),
    origin: found.origins[name] ?? "default",
  }));
  if (terminal.json) {
    terminal.data(Object.fromEntries(shown.map(({ name, value, origin }) => [name, { value, origin }])));
    return EXIT.ok;
  }
  const rows = shown.map(({ name, value, origin }) => [
    paint.strong(name),
    value === null ? paint.quiet("not set") : inLine(typeof value === "string" ? value : JSON.stringify(value)),
    origin === "default" ? paint.quiet(origin) : inLine(origin),
  ]);
  for (const line of tableLines(["SETTING", "VALUE", "FROM"], rows)) terminal.out(line);
  return EXIT.ok;
}
