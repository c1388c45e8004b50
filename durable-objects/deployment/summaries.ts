import {
  contradiction,
  decide,
  draftSummary,
  formatTime,
  isRefusal,
  LIMITS,
  STATEMENT_PAYLOAD_TYPE,
  verdictView,
  type DeploymentId,
  type EquivocationView,
  type JobId,
  type Millis,
  type NamespaceId,
  type SignedClaims,
  type TrustBasis,
  type WireEnvelope,
} from "@plumule/protocol";
import type { NamespaceCalls } from "../namespace/calls.ts";
import type { EventDraft } from "../shared/event-log.ts";
import { within } from "../shared/within.ts";
import type { Answers } from "./answers.ts";
import { type Ballots, readVote } from "./ballots.ts";
import type { Job } from "./core/model.ts";
import { refOf } from "./core/replicas.ts";
import { noteSigned } from "./core/summaries.ts";
import { BROKER, type Ledger } from "./ledger.ts";
import type { Store, StoredVerdict } from "./store.ts";

/** A signature that is not there within this is asked for again later, ms. */
const SIGN_MS = 10_000;

/** Signs what the broker decided, after it was decided: nobody waits for it, and it is tried until it is done. */
export type Summaries = {
  /** Signs everything that is new or due. */
  send(): void;
};

/** What signing needs of the object. `broker` is the object that holds the installation's key. */
export type SummaryDeps = {
  namespace: NamespaceId;
  deployment: DeploymentId;
  ledger: Ledger;
  answers: Answers;
  ballots: Ballots;
  store: Store;
  broker: Pick<NamespaceCalls, "brokerKey" | "signAsBroker">;
  now: () => Millis;
  waitUntil: (work: Promise<unknown>) => void;
};

/** A statement with its envelope. */
type Heard = { envelope: WireEnvelope; signed: SignedClaims };

/** Makes the summaries of a deployment. What is on its way is in memory only: after an eviction it is done again, which changes nothing. */
export function createSummaries(deps: SummaryDeps): Summaries {
  const underWay = new Set<JobId>();

  const signOne = async (id: JobId): Promise<void> => {
    const { ledger, now, store } = deps;
    let stored: StoredVerdict | null = null;
    let job: Job | null = null;
    let signed = true;
    try {
      const found = deps.answers.find(id);
      job = isRefusal(found) ? null : found;
      stored = job === null ? null : await within(SIGN_MS, summarise(deps, job));
    } catch {
      signed = false;
    }
    underWay.delete(id);
    const moment = ledger.moment(BROKER);
    const events = job === null || stored === null ? [] : tellEquivocations(job.id, stored.equivocations);
    const noted = noteSigned(ledger.state(), { job: id, signed }, now());
    const row = job !== null && stored !== null ? { job, stored } : null;
    ledger.commit(
      { ...noted, events },
      moment,
      row === null ? {} : { rows: () => store.putVerdict(row.job, row.stored) },
    );
  };

  return {
    send() {
      for (const { job, dueAt, tryCount } of deps.ledger.state().lane.unsigned) {
        if ((tryCount > 0 && dueAt > deps.now()) || underWay.has(job)) continue;
        underWay.add(job);
        deps.waitUntil(signOne(job));
      }
    },
  };
}

/** The verdict about a job, signed; null where there is nothing to say: nobody has voted, or no rule of a policy asks. */
async function summarise(deps: SummaryDeps, job: Job): Promise<StoredVerdict | null> {
  const { namespace, deployment, ballots, broker, now } = deps;
  const heard = await statementsOf(deps, job);
  const basis = job.quorum?.basis ?? (await ballots.basis(heard.map(({ signed }) => signed.signer)));
  if (isRefusal(basis)) throw new Error(basis.detail);
  if (heard.length === 0 || (job.quorum === undefined && basis.isDefault)) return null;
  const verdict =
    job.quorum?.verdict ??
    verdictView(
      decide(
        withRevoked(basis),
        refOf(job.brief),
        heard.map(({ signed }) => signed),
        now(),
      ),
    );
  const counted = new Set([...verdict.votes, ...verdict.strangers].map(({ sha256 }) => sha256));
  const drafted = await draftSummary({
    verifier: (await broker.brokerKey({ make: true })) ?? "",
    at: formatTime(now()),
    namespace,
    deployment,
    job: job.id,
    source: job.brief.source ?? null,
    taskSha256: job.taskSha256,
    policy: basis.policy,
    isDefault: basis.isDefault,
    verdict,
    votes: heard.filter(({ signed }) => counted.has(signed.sha256)),
  });
  if (!drafted.ok) throw new Error(drafted.detail);
  const summary = await broker.signAsBroker({ payloadType: STATEMENT_PAYLOAD_TYPE, payload: drafted.value.bytes });
  return { verdict, summary, equivocations: await findEquivocations(deps, job, heard) };
}

/** The policy without the keys whose registration was revoked. */
function withRevoked({ policy, revoked }: TrustBasis): TrustBasis["policy"] {
  const at = new Map(revoked.map((one) => [one.key, one.at]));
  const signers = policy.signers.map((signer) => ({
    ...signer,
    revokedAt: signer.revokedAt ?? at.get(signer.key) ?? null,
  }));
  return { ...policy, signers };
}

/** What the runners of a job signed as its results, in results that counted. */
function statementsOf({ store }: Pick<SummaryDeps, "store">, job: Job): Promise<Heard[]> {
  const said = job.runs.flatMap(({ epoch, runner, statementCount }) => {
    const envelope = statementCount > 0 ? store.result(epoch)?.statements[0] : undefined;
    return envelope === undefined ? [] : [{ envelope, runner }];
  });
  return Promise.all(
    said.map(async ({ envelope, runner }) => ({ envelope, signed: await readVote(envelope, runner) })),
  );
}

/** Statements of the deployment's earlier jobs that contradict one of this job's, by the same key: one proof for each key. */
async function findEquivocations(deps: SummaryDeps, job: Job, heard: readonly Heard[]): Promise<EquivocationView[]> {
  const proofs = new Map<string, EquivocationView>();
  const compare = (others: readonly Heard[]): void => {
    for (const { envelope, signed } of heard)
      for (const other of others) {
        const found = contradiction(other.signed, signed);
        if (found !== null && !proofs.has(found.signer))
          proofs.set(found.signer, { signer: found.signer, about: found.about, envelopes: [other.envelope, envelope] });
      }
  };
  compare(heard);
  const signers = new Set(heard.map(({ signed }) => signed.signer));
  for (const earlier of deps.store.finalJobs(LIMITS.equivocationJobs)) {
    if (earlier.id === job.id || !earlier.runs.some(({ runner }) => signers.has(runner))) continue;
    compare(await statementsOf(deps, earlier));
  }
  return [...proofs.values()];
}

function tellEquivocations(job: JobId, equivocations: readonly EquivocationView[]): EventDraft[] {
  return equivocations.map(({ signer, about }) => ({
    type: "trust.equivocation",
    subject: `jobs/${job}`,
    data: { equivocation: { signer, about } },
  }));
}
