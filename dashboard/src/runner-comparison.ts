import { call, type JobView, lacksOf, type MatchCheck, matchJob, type RunnerMatch } from "@plumule/protocol";
import { fill, fillList, h } from "./dom.ts";
import type { Session } from "./session.ts";
import { plain } from "./words.ts";

/** Says of a job that waits which runner could take it, and of each what keeps them apart, label by label. */
export type RunnerComparison = { element: HTMLElement; show: (job: JobView) => void };

/** Makes it. Nothing is asked for before a reader opens it; while it is open, it is asked again whenever the reason to wait changes. */
export function runnerComparison(session: Session, signal: AbortSignal): RunnerComparison {
  const list = h("ul", { class: "matches" });
  const note = h("p", { class: "quiet" });
  const element = h(
    "details",
    { class: "comparison", hidden: "" },
    h("summary", {}, "Which runner could take it?"),
    note,
    list,
  );
  let shown: JobView | null = null;
  let asked = "";

  const ask = async (): Promise<void> => {
    const job = shown;
    const question = job === null ? "" : JSON.stringify([job.id, job.waiting]);
    if (job === null || !element.open || question === asked) return;
    asked = question;
    const answer = await call(session.client, matchJob, { params: { ns: session.ns, job: job.id }, signal });
    if (asked !== question) return;
    const runners = answer.ok ? answer.answer.body.runners : [];
    fill(note, answer.ok ? (runners.length === 0 ? "No runner is registered." : "") : plain(answer.problem.detail));
    fillList(list, "li", runners, ({ runner }) => runner, drawRunner);
  };
  const update = (): void => {
    ask().catch(() => {
      asked = "";
    });
  };
  element.addEventListener("toggle", update, { signal });
  return {
    element,
    show(job) {
      shown = job;
      element.hidden = job.waiting === null;
      update();
    },
  };
}

function drawRunner(row: HTMLElement, match: RunnerMatch): void {
  const lacks = match.ok ? "can take it" : `lacks ${plain(lacksOf(match).join(", "))}`;
  const head = h("tr", {}, ...["", "what", "needed", "has"].map((name) => h("th", { scope: "col" }, name)));
  const isOpen = row.querySelector("details")?.open === true;
  fill(
    row,
    h(
      "details",
      isOpen ? { open: "" } : {},
      h("summary", {}, h("strong", {}, plain(match.name)), ` ${lacks}`),
      h(
        "div",
        { class: "scroll" },
        h("table", {}, h("thead", {}, head), h("tbody", {}, ...match.checks.map(checkRow))),
      ),
    ),
  );
}

/** A sign and a word for whoever cannot see it, as everywhere. */
function checkRow({ name, needed, has, ok, next }: MatchCheck): HTMLElement {
  const sign = h("td", { class: ok ? "good" : "bad", "aria-label": ok ? "enough" : "missing" }, ok ? "✓" : "✗");
  const cells = [name, needed, next === undefined ? has : `${has}. ${next}`].map((text) => h("td", {}, plain(text)));
  return h("tr", {}, sign, ...cells);
}
