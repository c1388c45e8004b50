import {
  isRefusal,
  parseBase64,
  parseStrictJson,
  readStatement,
  refuse,
  sha256Hex,
  type JobId,
  type NamespaceId,
  type Refusal,
  type ResultBody,
  type RunId,
  type RunnerId,
  type SignedClaims,
  type TrustBasis,
  type WireEnvelope,
} from "@plumule/protocol";
import type { NamespaceCalls } from "../namespace/calls.ts";
import { within } from "../shared/within.ts";
import type { Answers } from "./answers.ts";
import { type Job, type Run } from "./core/model.ts";
import { renew, renewals } from "./core/quorum.ts";
import { isReplicated, votes } from "./core/replicas.ts";
import { type Ballot, voteOf } from "./core/result.ts";
import { BROKER, type Ledger } from "./ledger.ts";
import type { Store } from "./store.ts";

/** A namespace that does not answer within this is asked again by whoever waits, ms. */
const TRUST_MS = 5_000;

/** What ballots need of the object. */
export type BallotDeps = {
  namespace: NamespaceId;
  trustBasis: NamespaceCalls["trustBasis"];
  answers: Answers;
  store: Store;
  ledger: Ledger;
  waitUntil: (work: Promise<unknown>) => void;
};

/** The votes of jobs with a quorum. Nothing here is asked for the sake of any other job. */
export type Ballots = {
  /** Whom the namespace trusts now. Refuses `unavailable` when it cannot be asked: without its word no vote counts. */
  basis(runners: readonly RunnerId[]): Promise<TrustBasis | Refusal>;
  /** All votes of the run's job, the one that comes with this result among them; null where it is none. */
  draw(run: RunId, body: ResultBody): Promise<Ballot | Refusal | null>;
  /** Asks anew who may take replicas that are missing, where that is due. */
  renew(): void;
  /** Whether no other vote came while the ballot was drawn. */
  isWhole(run: RunId, ballot: Ballot | null): boolean;
};

/** Opens the ballots of a deployment. */
export function createBallots({ namespace, trustBasis, answers, store, ledger, waitUntil }: BallotDeps): Ballots {
  const basis: Ballots["basis"] = async (runners) => {
    try {
      return await within(TRUST_MS, trustBasis({ runners: [...runners] }));
    } catch {
      return refuse("unavailable", `The trust policy of ${namespace} could not be read, and votes count by it.`);
    }
  };
  const underWay = new Set<JobId>();
  const renewOne = async (job: Job): Promise<void> => {
    const trusted = await basis(job.runs.map(({ runner }) => runner));
    underWay.delete(job.id);
    const moment = ledger.moment(BROKER);
    const answer = { job: job.id, basis: isRefusal(trusted) ? null : trusted };
    ledger.commit(renew(ledger.state(), answer, moment), moment);
  };
  const others = (job: Job, run: Run): Run[] => votes(job).filter(({ id }) => id !== run.id);

  return {
    basis,
    async draw(id, body) {
      const found = answers.findRun(id);
      if (isRefusal(found)) return found;
      const { job, run } = found;
      if (!isReplicated(job) || run.finishedAt !== null || voteOf(job, body).vote === undefined) return null;
      const heard = others(job, run);
      const trusted = await basis([...heard, run].map(({ runner }) => runner));
      if (isRefusal(trusted)) return trusted;
      const statements = heard.map(({ epoch, runner }) => readVote(store.result(epoch)?.statements[0], runner));
      return {
        basis: trusted,
        statements: await Promise.all([...statements, readVote(body.statements[0], run.runner)]),
      };
    },
    renew() {
      const { now } = ledger.moment(BROKER);
      for (const { job, dueAt } of renewals(ledger.state())) {
        if (dueAt > now || underWay.has(job.id)) continue;
        underWay.add(job.id);
        waitUntil(renewOne(job));
      }
    },
    isWhole(id, ballot) {
      const found = answers.findRun(id);
      return (
        ballot === null || isRefusal(found) || others(found.job, found.run).length + 1 === ballot.statements.length
      );
    },
  };
}

/** What a statement claims that was verified when its result came. */
export async function readVote(envelope: WireEnvelope | undefined, signer: RunnerId): Promise<SignedClaims> {
  const payload = envelope === undefined ? null : parseBase64(envelope.payload);
  const json = payload === null ? null : parseStrictJson(payload);
  const read = json?.ok === true ? readStatement(json.value) : null;
  if (payload === null || read?.ok !== true)
    throw new Error(`the statement that ${signer} signed cannot be read again`);
  return { signer, sha256: await sha256Hex(payload), claims: read.value.claims };
}
