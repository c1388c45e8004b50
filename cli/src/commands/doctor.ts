import type { Check } from "@plumule/runner";
import { runnerConfigSchema } from "@plumule/runner/settings";
import { Command } from "commander";
import type { Connection } from "../connection.ts";
import { act, type Context } from "../context.ts";
import { EXIT, type ExitCode } from "../exit-codes.ts";
import { type Failure, isFailure } from "../failure.ts";
import { paint } from "../print.ts";
import { inLine } from "../terminal-text.ts";
import { type RunnerFlags, settingsOfFlags, withRunnerFlags } from "./runner-flags.ts";

/** `plumule doctor`, which is `plumule runner doctor` too. */
export function doctorCommand(): Command {
  return withRunnerFlags(
    new Command("doctor")
      .summary("check broker, token and this machine, each with what to do")
      .description(
        "Checks what a runner with the same flags would need, and what your token may do. Changes nothing. Ends with 1 when something keeps a runner from working.",
      ),
  ).action(act(doctor));
}

async function doctor(context: Context, flags: RunnerFlags): Promise<ExitCode | Failure> {
  const { terminal } = context;
  const found = await settingsOfFlags(context, flags);
  if (isFailure(found)) return found;
  const parsed = runnerConfigSchema.safeParse(found.settings);
  const { examine } = await import("@plumule/runner");
  const checks = parsed.success
    ? await examine(parsed.data, fetch)
    : parsed.error.issues.map(({ path, message }): Check => ({
        name: `setting ${path.join(".")}`,
        standing: "bad",
        found: message,
        fix: "Correct it: `plumule runner config` shows where it comes from.",
      }));
  const connection = await context.connect();
  if (!isFailure(connection)) checks.push(await examineToken(connection));
  if (terminal.json) for (const check of checks) terminal.data(check);
  else for (const line of checkLines(checks)) terminal.out(line);
  return checks.some(({ standing }) => standing === "bad") ? EXIT.failed : EXIT.ok;
}

/** Checks as lines: a mark, what was found, and below it what to do. */
export function checkLines(checks: readonly Check[]): string[] {
  const longest = Math.max(...checks.map(({ name }) => name.length));
  return checks.flatMap(({ name, standing, found, fix }) => {
    const mark = { good: paint.good("✓"), care: paint.care("!"), bad: paint.bad("✗") }[standing];
    const line = `${mark} ${name.padEnd(longest)}  ${inLine(found)}`;
    return fix === null ? [line] : [line, `  ${" ".repeat(longest)}  ${paint.quiet("→")} ${fix}`];
  });
}

/** What each scope alone may begin. The broker looks at the caller before it reads a body, and none of these bodies is good for anything. */
const PROBES = [
  { scope: "admin", path: "/tokens" },
  { scope: "operate", path: "/runner-registrations" },
  { scope: "submit", path: "/deployments/doctor/jobs" },
] as const;

async function examineToken({ place, ns }: Connection): Promise<Check> {
  const { token, url } = place;
  const name = "token";
  const make = "Make one: `plumule token create NAME --scope submit`, with a token that may.";
  if (token === undefined)
    return { name, standing: "care", found: "none is known; a runner needs none, people do", fix: make };
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  try {
    for (const { scope, path } of PROBES) {
      const request = { method: "POST", headers, body: '"doctor"', signal: AbortSignal.timeout(10_000) };
      const { status } = await fetch(`${url}/v1/${ns}${path}`, request);
      if (status === 401) return { name, standing: "bad", found: "the broker does not know it", fix: make };
      if (status === 400 || status === 422) return { name, standing: "good", found: `may ${scope}`, fix: null };
    }
    return { name, standing: "good", found: "may read", fix: null };
  } catch {
    return { name, standing: "care", found: "cannot be looked at while the broker does not answer", fix: "Try again." };
  }
}
