import { derivationName, type Plan, type PlanNode } from "./plan.ts";

/**
 * What is known of one derivation. `built`, `cached` and `substituted` mean that its outputs are valid; `lost` that Nix
 * ended without saying what became of it; `cancelled` that it was stopped on request.
 */
export type DerivationState =
  | "planned"
  | "waiting"
  | "substituting"
  | "building"
  | "built"
  | "cached"
  | "substituted"
  | "failed"
  | "dependency-failed"
  | "timeout"
  | "log-limit"
  | "hash-mismatch"
  | "not-deterministic"
  | "cancelled"
  | "lost";

/** Everything known of one derivation at a moment; a later one for the same `drv` replaces it. */
export interface Derivation {
  /** Full store path of the `.drv` file. */
  readonly drv: string;
  readonly name: string;
  readonly state: DerivationState;
  /** What the plan says has to happen with it. */
  readonly need?: PlanNode["need"];
  /** As the builder named it, for instance `buildPhase`. */
  readonly phase?: string;
  /** Of the builder, when it failed with one. */
  readonly exitCode?: number;
  /** One line: why it waits or what went wrong. */
  readonly reason?: string;
  /** Milliseconds since the epoch, by the runner's clock. */
  readonly startedAt?: number;
  /** Set when the builder ended. While `state` is still `building`, Nix has not said how. */
  readonly endedAt?: number;
}

/** Counters of one build. `done` includes `cached`; `total` is all states together, of the plan and of what joined later. */
export interface NixProgress {
  readonly total: number;
  /** Outputs are valid: built, substituted or cached. */
  readonly done: number;
  readonly running: number;
  /** Ended without outputs for any reason but a cancel. */
  readonly failed: number;
  readonly cached: number;
  readonly queued: number;
  readonly bytes: number;
  readonly expectedBytes: number;
}

type Counter = "done" | "running" | "failed" | "queued" | "cancelled";

const COUNTER: Record<DerivationState, Counter> = {
  planned: "queued",
  waiting: "queued",
  substituting: "running",
  building: "running",
  built: "done",
  cached: "done",
  substituted: "done",
  failed: "failed",
  "dependency-failed": "failed",
  timeout: "failed",
  "log-limit": "failed",
  "hash-mismatch": "failed",
  "not-deterministic": "failed",
  lost: "failed",
  cancelled: "cancelled",
};

/** True for the states that make dependents impossible to build. */
export function isFailure(state: DerivationState): boolean {
  return COUNTER[state] === "failed";
}

/** The states of a build's derivations, with counters that follow in constant time. */
export class DerivationBook {
  readonly #derivations = new Map<string, Derivation>();
  readonly #counts = { done: 0, running: 0, failed: 0, queued: 0, cancelled: 0, cached: 0 };
  readonly #labels = new Map<string, string>();
  readonly #names = new Set<string>();
  readonly #drvOfOutput = new Map<string, string>();

  /** Starts with the nodes of the plan, or empty. */
  constructor(plan?: Plan) {
    for (const node of plan?.nodes ?? []) {
      this.update(node.drv, { state: node.need === "cached" ? "cached" : "planned", need: node.need });
      for (const path of Object.values(node.outputs)) if (path !== null) this.#drvOfOutput.set(path, node.drv);
    }
  }

  /** All derivations, in the order in which they became known. */
  all(): Derivation[] {
    return [...this.#derivations.values()];
  }

  /** How many derivations are known. */
  get count(): number {
    return this.#derivations.size;
  }

  /** Undefined for a derivation that is not known. */
  get(drv: string): Derivation | undefined {
    return this.#derivations.get(drv);
  }

  /** The derivation that a store path belongs to: itself, or the one with that output. */
  owner(path: string): string | undefined {
    return this.#derivations.has(path) ? path : this.#drvOfOutput.get(path);
  }

  /** Joins what is new to what is known of `drv`, which may be new too. */
  update(drv: string, change: Partial<Derivation>): Derivation {
    const before = this.#derivations.get(drv);
    if (before !== undefined) this.#count(before.state, -1);
    // A reason belongs to a state: what a derivation waited for is no reason once it builds.
    const { reason, ...rest } = before ?? { drv, name: derivationName(drv), state: "planned" };
    const kept = reason !== undefined && (change.state ?? rest.state) === rest.state ? { reason } : {};
    const after: Derivation = { ...rest, ...kept, ...change };
    this.#count(after.state, 1);
    this.#derivations.set(drv, after);
    return after;
  }

  /** A short name for log lines: the derivation's own, longer only where two derivations share it. */
  label(drv: string): string {
    const known = this.#labels.get(drv);
    if (known !== undefined) return known;
    const name = derivationName(drv);
    const hash = drv.slice(drv.lastIndexOf("/") + 1).slice(0, 8);
    const label = this.#names.has(name) ? `${name}-${hash}` : name;
    this.#names.add(name);
    this.#labels.set(drv, label);
    return label;
  }

  /** The counters, with the bytes that the caller counted. */
  progress(bytes: number, expectedBytes: number): NixProgress {
    const { done, running, failed, queued, cached } = this.#counts;
    return { total: this.#derivations.size, done, running, failed, cached, queued, bytes, expectedBytes };
  }

  #count(state: DerivationState, step: 1 | -1): void {
    this.#counts[COUNTER[state]] += step;
    if (state === "cached") this.#counts.cached += step;
  }
}
