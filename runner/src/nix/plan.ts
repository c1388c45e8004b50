import { decodeLine, stripColour } from "./lines.ts";

/** A derivation as `nix derivation show` describes it, reduced to what a graph needs. Paths are full store paths. */
export interface DerivationNode {
  readonly drv: string;
  readonly name: string;
  readonly system: string;
  /** Output name to store path; null where the path is known only after the build (content-addressed). */
  readonly outputs: Readonly<Record<string, string | null>>;
  /** The derivations that it uses as inputs, sorted. */
  readonly inputs: readonly string[];
}

/** What Nix would do, as `--dry-run` prints it. */
export interface DryRun {
  /** Derivations to build. */
  readonly willBuild: readonly string[];
  /** Store paths (outputs and sources) to substitute. */
  readonly willFetch: readonly string[];
  /** Paths that Nix can neither build nor fetch. */
  readonly unknown: readonly string[];
}

/** A node of the plan: `need` says what has to happen with it. */
export interface PlanNode extends DerivationNode {
  readonly need: "build" | "fetch" | "cached";
}

/**
 * The part of the derivation graph that matters for one build: everything to build, and the first layer that is there
 * already or gets fetched. What lies behind that layer is never touched.
 */
export interface Plan {
  readonly roots: readonly string[];
  readonly nodes: readonly PlanNode[];
  /** Pairs of a derivation and one that it needs; both are nodes. */
  readonly edges: readonly (readonly [user: string, dependency: string])[];
}

/** True for a full store path of a `.drv` file. */
export function isDerivationPath(text: string): boolean {
  return /^\/\S+\/[0-9a-z]{32}-[^\s/]+\.drv$/.test(text);
}

/** The name in a store path of a derivation: `/nix/store/<hash>-hello.drv` is `hello`. */
export function derivationName(drv: string): string {
  const base = drv.slice(drv.lastIndexOf("/") + 1).replace(/\.drv$/, "");
  return /^[0-9a-z]{32}-/.test(base) ? base.slice(33) : base;
}

/**
 * Reads the output of `nix show-derivation` (2.8: object keyed by full path, `inputDrvs`) or `nix derivation show`
 * (2.34: `{ derivations, version }`, base names, `inputs.drvs`). `storeDir` completes base names.
 * Throws when the text is no such JSON: that is a version of Nix that this runner does not know.
 */
export function parseDerivations(json: string, storeDir: string): DerivationNode[] {
  const document = record(JSON.parse(json), "document");
  const derivations = "derivations" in document ? record(document["derivations"], "derivations") : document;
  const full = (path: string): string => (path.startsWith("/") ? path : `${storeDir}/${path}`);
  return Object.entries(derivations).map(([key, value]) => {
    const drv = full(key);
    const body = record(value, key);
    const inputs = "inputs" in body ? record(body["inputs"], "inputs")["drvs"] : body["inputDrvs"];
    const outputs = Object.entries(record(body["outputs"], "outputs")).map(([name, output]) => {
      const { path } = record(output, name);
      return [name, typeof path === "string" ? full(path) : null] as const;
    });
    return {
      drv,
      name: derivationName(drv),
      system: typeof body["system"] === "string" ? body["system"] : "",
      outputs: Object.fromEntries(outputs),
      inputs: Object.keys(record(inputs, "inputs")).map(full).toSorted(),
    };
  });
}

/** What precedes the builder in a `.drv` file: outputs, input derivations, input sources, system. Names and paths of a store need no escapes. */
const DERIVATION_HEAD =
  /^Derive\(\[((?:\("[^"\\]*","[^"\\]*","[^"\\]*","[^"\\]*"\),?)+)\],\[((?:\("[^"\\]*",\[[^\]\\]*\]\),?)*)\],\[[^\]\\]*\],"([^"\\]*)",/;

/**
 * Reads a `.drv` file, an ATerm: `Derive([("out","<path>","",""),…],[("<drv>",["out"]),…],["<source>",…],"<system>",…`. Null for a text that is
 * none, such as the `DrvWithVersion(…` of dynamic derivations: Nix itself then has to say what is in it.
 */
export function parseDerivationFile(drv: string, text: string): DerivationNode | null {
  const [, outputs, inputs, system] = DERIVATION_HEAD.exec(text) ?? [];
  if (outputs === undefined || inputs === undefined || system === undefined) return null;
  const paths = [...outputs.matchAll(/\("([^"]*)","([^"]*)"/g)].map(([, name = "", path = ""]) => [name, path || null]);
  return {
    drv,
    name: derivationName(drv),
    system,
    outputs: Object.fromEntries(paths),
    inputs: [...inputs.matchAll(/\("([^"]*)"/g)].map(([, input = ""]) => input).toSorted(),
  };
}

/** Reads what a `--dry-run` prints on standard error, as plain text or as `internal-json`. */
export function parseDryRun(stderr: string): DryRun {
  const plan = { willBuild: [] as string[], willFetch: [] as string[], unknown: [] as string[] };
  let list: string[] | undefined;
  for (const line of stderr.split("\n")) {
    const event = decodeLine(line);
    if (event.action !== "plain" && event.action !== "message") continue;
    const text = stripColour(event.text);
    const path = /^ {2}(\/\S+)$/.exec(text)?.[1];
    if (path !== undefined) list?.push(path);
    else if (/^th(?:is|ese).* derivations? will be built:$/.test(text)) list = plan.willBuild;
    else if (/^th(?:is|ese).* paths? will be fetched .*:$/.test(text)) list = plan.willFetch;
    else if (text.startsWith("don't know how to build these paths")) list = plan.unknown;
    else list = undefined;
  }
  return plan;
}

/**
 * The plan for `roots`. `nodes` must hold at least the roots, all of `dryRun.willBuild` and the inputs of these; an input
 * without a node is left out.
 */
export function planBuild(roots: readonly string[], nodes: readonly DerivationNode[], dryRun: DryRun): Plan {
  const known = new Map(nodes.map((node) => [node.drv, node]));
  const toBuild = new Set(dryRun.willBuild);
  const toFetch = new Set(dryRun.willFetch);
  const reached = new Map<string, PlanNode>();
  const edges: [string, string][] = [];
  const todo = [...roots].toReversed();
  for (let drv = todo.pop(); drv !== undefined; drv = todo.pop()) {
    const node = known.get(drv);
    if (node === undefined || reached.has(drv)) continue;
    const need = needOf(node, toBuild, toFetch);
    reached.set(drv, { ...node, need });
    if (need !== "build") continue;
    const inputs = node.inputs.filter((input) => known.has(input));
    for (const to of inputs) edges.push([drv, to]);
    todo.push(...inputs);
  }
  return { roots: [...new Set(roots)], nodes: [...reached.values()], edges };
}

function needOf(node: DerivationNode, toBuild: ReadonlySet<string>, toFetch: ReadonlySet<string>): PlanNode["need"] {
  if (toBuild.has(node.drv)) return "build";
  return Object.values(node.outputs).some((path) => path !== null && toFetch.has(path)) ? "fetch" : "cached";
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`Nix described derivations in an unknown shape: ${what} is no object`);
  }
  return value as Record<string, unknown>;
}
