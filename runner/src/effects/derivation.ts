import { dirname } from "node:path";
import * as z from "zod";
import { CALL_WITH, jobArguments, type JobFacts, nixString } from "../nix/arguments.ts";
import { flakeCommand, type NixFailure, runEvaluation } from "../nix/evaluate.ts";
import { parseInstallable, type NixSource } from "../nix/installables.ts";
import type { NixOutput } from "../nix/parser.ts";
import { isDerivationPath } from "../nix/plan.ts";
import type { EvaluationTrust } from "../nix/settings.ts";
import { capture, captureOk, NEW_COMMANDS, type NixContext } from "../nix/run.ts";

/** An effect as its derivation says it: what is run, with what environment, and the derivations that have to be built before. */
export type EffectDerivation = {
  drv: string;
  builder: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  inputs: readonly string[];
};

/** An effect to run; or `not wanted`, when its own condition (`runIf`) says so; or why there is none. */
export type FoundEffect = { effect: EffectDerivation } | { notWanted: string } | { failure: NixFailure };

const selectedSchema = z.object({ drv: z.string().nullable(), isEffect: z.boolean(), names: z.array(z.string()) });

/**
 * Finds an effect by its attribute and instantiates it, without building it. `herculesCI.onPush.<job>.outputs.effects.<name>` is meant as for
 * Hercules CI: `herculesCI` may be a function of `primaryRepo`; so may `effects`, and any set or effect on the way.
 */
export async function findEffect(
  context: NixContext,
  request: EvaluationTrust & { readonly source: NixSource; readonly installable: string; readonly job: JobFacts },
  emit: (output: NixOutput) => void,
): Promise<FoundEffect> {
  const { source, installable, job } = request;
  const parsed = parseInstallable(installable, source);
  if ("refused" in parsed) return { failure: { code: "task-invalid", detail: parsed.refused } };
  if (parsed.kind !== "flake")
    return { failure: { code: "task-invalid", detail: `${installable}: not an attribute of a flake` } };
  const [first = "", ...rest] = parsed.attribute.split(".");
  const isWalked = first === "herculesCI" || first === "effects";
  const given = isWalked ? { ...parsed, attribute: first } : parsed;
  const argv = flakeCommand(request, given, selectExpression(isWalked ? rest : [], job));
  const evaluated = await runEvaluation(context, request, parsed.label, argv, emit);
  if ("failure" in evaluated) return evaluated;
  const { drv, isEffect, names } = selectedSchema.parse(JSON.parse(evaluated.stdout));
  const invalid = (detail: string): FoundEffect => ({
    failure: { code: "task-invalid", detail: `${installable}: ${detail}` },
  });
  if (drv === null && names.includes("dependencies"))
    return { notWanted: `${installable}: the effect's own condition says that it is not to be run` };
  if (drv === null)
    return invalid(`no effect, but a set of ${names.slice(0, 20).join(", ") || "nothing"}; name one effect`);
  if (!isDerivationPath(drv)) return invalid("its drvPath names no derivation");
  if (!isEffect)
    return invalid("the derivation is no effect (`isEffect = true`); give a `script` that applies what it builds");
  const effect = await readEffect(context, drv);
  if ("__json" in effect.env) return invalid("effects with __structuredAttrs are not supported");
  return { effect };
}

function selectExpression(path: readonly string[], job: JobFacts): string {
  return `given: let
  call = (${CALL_WITH}) ${jobArguments(job)};
  isDerivation = value: value.type or null == "derivation";
  step = value: name: let set = call value; in set.\${name} or (throw "there is no attribute \${name}");
  found = call (builtins.foldl' step given [ ${path.map(nixString).join(" ")} ]);
  chosen = if isDerivation found then found else call (found.run or found);
in {
  drv = if isDerivation chosen then chosen.drvPath else null;
  isEffect = chosen.isEffect or false;
  names = if isDerivation chosen || !builtins.isAttrs chosen then [ ] else builtins.attrNames chosen;
}`;
}

const environment = z.record(z.string(), z.string());
const shownSchema = z.object({ builder: z.string(), args: z.array(z.string()), env: environment });
/** `nix show-derivation` of 2.8, and `nix derivation show` of later versions with its two names for the inputs. */
const inputsSchema = z.union([
  z.object({ inputDrvs: z.record(z.string(), z.unknown()) }).transform(({ inputDrvs }) => Object.keys(inputDrvs)),
  z
    .object({ inputs: z.object({ drvs: z.record(z.string(), z.unknown()) }) })
    .transform(({ inputs }) => Object.keys(inputs.drvs)),
]);

/** Asks Nix what a derivation says. Throws when it answers in a form of a version that this runner does not know. */
async function readEffect(context: NixContext, drv: string): Promise<EffectDerivation> {
  const shown = await capture(context, ["nix", ...NEW_COMMANDS, "derivation", "show", drv]);
  // 2.8 has the command under its older name only.
  const { stdout } =
    shown.exitCode === 0 ? shown : await captureOk(context, ["nix", ...NEW_COMMANDS, "show-derivation", drv]);
  return parseEffect(drv, stdout);
}

/** Reads one derivation as Nix shows it. */
export function parseEffect(drv: string, json: string): EffectDerivation {
  const document = JSON.parse(json) as Record<string, unknown>;
  const derivations = (document["derivations"] ?? document) as Record<string, unknown>;
  const body = Object.values(derivations)[0];
  const { builder, args, env } = shownSchema.parse(body);
  const full = (path: string): string => (path.startsWith("/") ? path : `${dirname(drv)}/${path}`);
  return { drv, builder, args, env, inputs: inputsSchema.parse(body).map(full).toSorted() };
}
