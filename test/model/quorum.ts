import {
  type Claims,
  defaultPolicy,
  JOB_RESULT_PREDICATE_TYPE,
  type SignedClaims,
  type TrustBasis,
} from "@plumule/protocol";
import { isReplicated } from "#durable-objects/deployment/core/replicas.ts";
import { type Ballot, voteOf } from "#durable-objects/deployment/core/result.ts";
import { NOW, type Result, type Said, type World } from "./world.ts";

const AT = new Date(NOW).toISOString();

/** Nobody has put a policy: every runner stands for itself. */
export function basisOf({ runners }: Pick<World, "runners">): TrustBasis {
  return { at: AT, policy: defaultPolicy(runners.map(({ id }) => id)), isDefault: true, revoked: [] };
}

/** The votes about a job with the one that comes, as its deployment reads them in the moment of its decision; null where there is none to draw. */
export function ballotOf(world: World, result: Result): Ballot | null {
  const { job: id, run } = result.lease;
  const job = world.state.jobs.find((one) => one.id === id);
  const isLive = job?.runs.some((one) => one.id === run && one.finishedAt === null) === true;
  if (job === undefined || !isLive || !isReplicated(job) || voteOf(job, result).vote === undefined) return null;
  return {
    basis: basisOf(world),
    statements: saidWith(world, result)
      .filter((one) => one.job === id)
      .map(signed),
  };
}

/** What is stored with an accepted result: the votes, its own among them when it is one. */
export function saidWith({ state, said }: World, { lease, outcome, content }: Result): readonly Said[] {
  const job = state.jobs.find(({ id }) => id === lease.job);
  if (job?.quorum === undefined || voteOf(job, { outcome }).vote === undefined) return said;
  return [...said, { job: lease.job, lease, outcome, content }];
}

/** How many runners said the same of what they built, the most first. */
export function groupsOf(said: readonly Said[]): number[] {
  const succeeded = said.filter(({ outcome }) => outcome === "succeeded");
  const groups = Map.groupBy(succeeded, ({ content }) => content);
  return [...groups.values()].map((one) => new Set(one.map(({ lease }) => lease.runner)).size).sort((a, b) => b - a);
}

function signed({ lease, outcome, content }: Said): SignedClaims {
  const claims: Claims = {
    predicateType: JOB_RESULT_PREDICATE_TYPE,
    namespace: "garden",
    deployment: "web",
    job: lease.job,
    run: lease.run,
    epoch: lease.epoch,
    repository: null,
    commit: null,
    taskSha256: "",
    configurationSha256: null,
    flakeLockSha256: null,
    result: outcome,
    system: "x86_64-linux",
    runner: lease.runner,
    builderId: null,
    untrusted: false,
    log: { sha256: "", bytes: 0 },
    outputs: outcome === "succeeded" ? [{ name: "out", path: "/nix/store/out", narHash: content, narSize: 1 }] : [],
    startedAt: AT,
    finishedAt: AT,
  };
  return { signer: lease.runner, sha256: `${lease.run} ${content}`, claims };
}
