import {
  call,
  decide,
  decideQuorum,
  getJob,
  getStatements,
  getTrust,
  isFinalJobState,
  type JobDetail,
  type JobId,
  type JobView,
  looksLikeSummary,
  type RunnerView,
  type SignedClaims,
  type TrustBasis,
  type VerdictView,
  verdictView,
  verifyStatement,
} from "@plumule/protocol";
import { fill, fillList, h } from "./dom.ts";
import type { Session } from "./session.ts";
import { pill, plain, shortRunner } from "./words.ts";

/** What is known of a job's votes. `own`: whether this browser comes to the same from the signed statements alone; null where it cannot tell. */
export type Votes = { verdict: VerdictView; own: "same" | "different" | null; checkedCount: number };

/** The votes of jobs that are shown, asked for when they have changed. */
export type VoteBook = { of(job: JobView): Votes | null };

/** Makes it. `changed` is called when something has become known. */
export function createVoteBook(session: Session, signal: AbortSignal, changed: () => void): VoteBook {
  const known = new Map<JobId, { key: string; votes: Votes | null }>();
  const learn = async (id: JobId, key: string, before: Votes | null): Promise<void> => {
    known.set(id, { key, votes: before });
    const answer = await call(session.client, getJob, { params: { ns: session.ns, job: id }, signal });
    if (!answer.ok || answer.answer.body.verdict == null) return;
    const { verdict } = answer.answer.body;
    known.set(id, { key, votes: { verdict, own: null, checkedCount: 0 } });
    changed();
    known.set(id, { key, votes: { verdict, ...(await countHere(session, answer.answer.body, verdict, signal)) } });
    changed();
  };
  return {
    of(job) {
      // Nothing is decided of a job without a quorum before it has ended.
      if (job.quorum === undefined && !isFinalJobState(job.state)) return null;
      const key = `${job.state} ${job.quorum?.voteCount ?? 0} ${job.quorum?.verdict ?? ""}`;
      const entry = known.get(job.id);
      if (entry?.key !== key) learn(job.id, key, entry?.votes ?? null).catch(() => known.delete(job.id));
      return known.get(job.id)?.votes ?? null;
    },
  };
}

/** Verifies the statements in this browser, and decides with the function that the broker used; a policy that has changed since decides nothing. */
async function countHere(
  session: Session,
  { job, spec }: JobDetail,
  told: VerdictView,
  signal: AbortSignal,
): Promise<Pick<Votes, "own" | "checkedCount">> {
  const { client, ns } = session;
  const [statements, trust] = await Promise.all([
    call(client, getStatements, { params: { ns, job: job.id }, signal }),
    call(client, getTrust, { params: { ns }, signal }),
  ]);
  if (!statements.ok || !trust.ok || statements.response === null || trust.answer.body === null)
    return { own: null, checkedCount: 0 };
  const votes = new Set([...told.votes, ...told.strangers].map(({ sha256 }) => sha256));
  const verified = await verifiedStatements(await statements.response.text());
  const counted = verified.filter(({ sha256 }) => votes.has(sha256));
  const policy = trust.answer.body;
  if (policy.version !== told.policyVersion || counted.length < votes.size)
    return { own: null, checkedCount: verified.length };
  const ref = job.source?.ref ?? "";
  const basis: TrustBasis = { at: new Date().toISOString(), policy, isDefault: policy.version === 1, revoked: [] };
  const own =
    spec.quorum === undefined
      ? verdictView(decide(policy, ref, counted, Date.now()))
      : decideQuorum(basis, ref, spec.quorum, counted, Date.now());
  return { own: own.verdict === told.verdict ? "same" : "different", checkedCount: verified.length };
}

async function verifiedStatements(bundle: string): Promise<SignedClaims[]> {
  const envelopes = bundle
    .split("\n")
    .filter((line) => line !== "")
    .map((line): unknown => JSON.parse(line))
    .filter((envelope) => !looksLikeSummary(envelope));
  const read = await Promise.all(
    envelopes.map(async (envelope) => {
      const signer = (envelope as { signatures?: { keyid?: string }[] }).signatures?.[0]?.keyid;
      return signer === undefined ? null : verifyStatement(envelope, { signers: [signer] });
    }),
  );
  return read.flatMap((one) => (one?.ok === true ? [one] : []));
}

/** The matrix of votes on a job's page. */
export type Matrix = {
  element: HTMLElement;
  show(votes: Votes | null, runners: ReadonlyMap<string, RunnerView>): void;
};

/** Makes it; one serves whichever job is shown. */
export function voteMatrix(): Matrix {
  const line = h("p", { class: "verdict" });
  const head = h(
    "thead",
    {},
    h("tr", {}, ...["says", "runner", "operator", "counts"].map((name) => h("th", { scope: "col" }, name))),
  );
  const rows = h("tbody");
  const differing = h("dl", { class: "differing" });
  const own = h("p", { class: "quiet" });
  const table = h("div", { class: "scroll" }, h("table", { "aria-label": "Votes" }, head, rows));
  const element = h("section", { hidden: "" }, h("h2", {}, "Votes"), line, table, differing, own);
  return {
    element,
    show(votes, runners) {
      element.hidden = votes === null;
      if (votes === null) return;
      const { verdict } = votes;
      fill(line, pill(verdict.verdict), ` ${plain(verdict.detail)}`);
      fillList(
        rows,
        "tr",
        rowsOf(verdict),
        ({ sha256 }) => sha256,
        (row, one) => drawVote(row, one, verdict, runners),
      );
      table.hidden = rows.children.length === 0;
      differing.hidden = verdict.differing.length === 0;
      fill(differing, ...verdict.differing.flatMap((output) => drawOutput(output, verdict)));
      fill(own, ownSentence(votes));
    },
  };
}

type Row = { sha256: string; signer: string; operator: string; worth: string; group: number | null };

function rowsOf({ votes, strangers }: VerdictView): Row[] {
  return [
    ...votes.map(({ sha256, signer, operator, standing, result, group }) => ({
      sha256,
      signer,
      operator: operator === signer ? "" : operator,
      worth: standing === "counted" ? "yes" : standing === "not-succeeded" ? `no, it ${result}` : `no, ${standing}`,
      group,
    })),
    ...strangers.map(({ sha256, signer }) => ({ sha256, signer, operator: "", worth: "no, not trusted", group: null })),
  ];
}

/** Groups are letters, the one with most votes first: nobody has to tell colours apart. */
const groupName = (group: number | null): string => (group === null ? "–" : String.fromCharCode(65 + group));

function groupMark(group: number | null, { diverging }: VerdictView): HTMLElement {
  const tone = group === null ? "quiet" : group === 0 ? "good" : diverging ? "bad" : "good";
  return h("span", { class: `pill ${tone}` }, groupName(group));
}

function drawVote(
  row: HTMLElement,
  { signer, operator, worth, group }: Row,
  verdict: VerdictView,
  runners: ReadonlyMap<string, RunnerView>,
): void {
  fill(
    row,
    h("td", {}, groupMark(group, verdict)),
    h("td", { title: signer }, plain(runners.get(signer)?.name ?? shortRunner(signer))),
    h("td", {}, plain(operator)),
    h("td", {}, worth),
  );
}

function drawOutput({ name, versions }: VerdictView["differing"][number], verdict: VerdictView): HTMLElement[] {
  return [
    h("dt", {}, `${plain(name)} differs`),
    ...versions.map((version, group) =>
      h(
        "dd",
        {},
        groupMark(group, verdict),
        " ",
        version === null ? "no such output" : h("code", { title: plain(version.path) }, `sha256:${version.narHash}`),
      ),
    ),
  ];
}

function ownSentence({ own, checkedCount }: Votes): string {
  switch (own) {
    case "same":
      return `This browser verified ${checkedCount} signed statements and came to the same verdict.`;
    case "different":
      return "The signed statements come to another verdict than the broker says. Do not rely on it.";
    case null:
      return checkedCount === 0
        ? ""
        : `This browser verified ${checkedCount} signed statements; the trust policy has changed since.`;
  }
}
