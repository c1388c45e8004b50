import type { Explained, Finding } from "@plumule/bridge";

/** What a dry run says of an event of the node, or of what moved in a repository: a line each, with what would be told, or why nothing. */
export function explanationLines(what: Explained): string[] {
  if (what.kind === "event") {
    const { news } = what;
    return [news.look === null ? `${news.event} → nothing: ${news.why}` : `${news.event} → a look at rad:${news.look}`];
  }
  const { id, look } = what;
  const lines = look.findings.map((finding) => `rad:${id} ${moveText(finding)} → ${endText(finding)}`);
  return look.why === null ? lines : [...lines, `rad:${id} → nothing: ${look.why}`];
}

/** The same as JSON documents. */
export function explanationData(what: Explained): object[] {
  if (what.kind === "event") return [what.news];
  const { id, look } = what;
  const found = look.findings.map(({ move, ...end }) => ({ repository: `rad:${id}`, ...move, ...end }));
  return look.why === null ? found : [...found, { repository: `rad:${id}`, push: null, why: look.why }];
}

function moveText({ move: { node, ref, before, after } }: Finding): string {
  const short = (oid: string | null): string => oid?.slice(0, 7) ?? "nothing";
  return `${ref} ${short(before)} to ${short(after)} ${node === null ? "of the repository itself" : `by ${node}`}`;
}

function endText(finding: Finding): string {
  if (finding.push === null) return `nothing: ${finding.why}`;
  const { type, ref, after } = finding.push;
  return `a webhook: ${type} of ${ref} ${/^0+$/.test(after) ? "deleted" : after.slice(0, 7)}`;
}
