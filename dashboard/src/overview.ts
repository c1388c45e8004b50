import {
  call,
  type DeploymentView,
  type Event,
  followStream,
  listRunners,
  type NamespaceSnapshot,
  parseCursor,
  type RunnerView,
  type ServerFrame,
  streamOpener,
  waitMs,
  type WatchPhase,
} from "@plumule/protocol";
import { connectionChip } from "./connection.ts";
import { eachFrame, fill, fillList, h } from "./dom.ts";
import type { Session } from "./session.ts";
import { clock, deploymentPath, jobPath, pill, plain, shortRunner } from "./words.ts";

/** What the overview knows of its namespace. `received` counts events, so that the reader learns what a resume brought. */
type Overview = {
  phase: WatchPhase;
  cursor: string | null;
  received: number;
  deployments: ReadonlyMap<string, DeploymentView>;
};

const EMPTY: Overview = { phase: "connecting", cursor: null, received: 0, deployments: new Map() };
/** What the runners do is no event of its own: they are asked about after events and this often, ms. */
const RUNNERS_EVERY_MS = 5_000;

/** The first page: every deployment and every runner, live. */
export function showOverview(session: Session, signal: AbortSignal): HTMLElement {
  const chip = connectionChip();
  const deployments = h("ul", { class: "rows", "aria-label": "Deployments" });
  const runners = h("ul", { class: "rows", "aria-label": "Runners" });
  const noDeployment = h(
    "p",
    { class: "empty" },
    "No deployment yet. Submit a first job: ",
    h("code", {}, "plumule submit hello --shell 'echo hello'"),
  );
  const noRunner = h("p", { class: "empty" }, "No runner yet. Start one: ", h("code", {}, "plumule runner start"));
  let state = EMPTY;

  const draw = eachFrame(() => {
    const items = [...state.deployments.values()].toSorted((a, b) => (a.updatedAt < b.updatedAt ? 1 : -1));
    fillList(deployments, "li", items, ({ id }) => id, drawDeployment);
    noDeployment.hidden = items.length > 0 || state.phase === "connecting";
  });
  const refreshRunners = async (): Promise<void> => {
    const answer = await call(session.client, listRunners, { params: { ns: session.ns } });
    if (!answer.ok) return;
    const { items } = answer.answer.body;
    fillList(runners, "li", items, ({ id }) => id, drawRunner);
    noRunner.hidden = items.length > 0;
  };

  const follower = followStream(
    { open: streamOpener(session.client, WebSocket, { ns: session.ns }), random: Math.random, wait: waitMs },
    {
      initial: EMPTY,
      reduce,
      lose: (last) => ({ ...last, phase: "offline" as const }),
      cursorOf: ({ cursor }) => cursor,
    },
    {
      signal,
      onState(next, events) {
        state = next;
        chip.show(state.phase, state.received);
        draw();
        if (events.length > 0) wake();
      },
    },
  );
  void follower.done.then((end) => end.ended === "refused" && chip.fail(`${end.detail} ${end.next}`));
  let wake = (): void => {};
  const keepRunners = async (): Promise<void> => {
    while (!signal.aborted) {
      // A broker that is away is shown by the chip; the list keeps the last known.
      await refreshRunners().catch(() => undefined);
      const early = new AbortController();
      wake = () => early.abort();
      await waitMs(RUNNERS_EVERY_MS, AbortSignal.any([signal, early.signal]));
    }
  };
  void keepRunners();

  return h(
    "main",
    {},
    h("header", { class: "top" }, h("h1", {}, session.ns), chip.element),
    h("section", {}, h("h2", {}, "Deployments"), noDeployment, deployments),
    h("section", {}, h("h2", {}, "Runners"), noRunner, runners),
  );
}

function reduce(state: Overview, frame: ServerFrame): Overview {
  switch (frame.op) {
    case "snapshot": {
      const { deployments } = frame.state as NamespaceSnapshot;
      return {
        ...state,
        phase: "replaying",
        cursor: frame.cursor,
        deployments: new Map(deployments.map((one) => [one.id, one])),
      };
    }
    case "events": {
      const deployments = new Map(state.deployments);
      const known = parseCursor(state.cursor ?? "")?.sequence ?? 0;
      const fresh = frame.events.filter(({ sequence }) => Number(sequence) > known);
      for (const event of fresh) applyEvent(deployments, event);
      const phase = state.phase === "live" ? "live" : "replaying";
      return { phase, cursor: frame.cursor, received: state.received + fresh.length, deployments };
    }
    case "live":
      return { ...state, phase: "live", cursor: frame.cursor };
    case "reset":
      return { ...EMPTY, phase: "resetting", received: state.received };
    default:
      return state;
  }
}

function applyEvent(deployments: Map<string, DeploymentView>, { type, data }: Event): void {
  const { deployment } = data;
  if (deployment === undefined) return;
  if (type === "deployment.deleted") deployments.delete(deployment.id);
  else deployments.set(deployment.id, deployment);
}

function drawDeployment(row: HTMLElement, { id, state, activeJob, pendingCount, lastResult }: DeploymentView): void {
  const waiting = pendingCount === 0 ? "nothing waits" : `${pendingCount} waiting`;
  fill(
    row,
    h("a", { class: "name", href: deploymentPath(id) }, id),
    pill(state),
    h(
      "span",
      { class: "quiet" },
      activeJob !== null && h("a", { href: jobPath(activeJob) }, "running now"),
      activeJob !== null && ", ",
      waiting,
    ),
    lastResult === null
      ? h("span", { class: "last quiet" }, "no result yet")
      : h(
          "span",
          { class: "last" },
          pill(lastResult.state),
          " ",
          h("a", { href: jobPath(lastResult.job) }, clock(lastResult.at)),
        ),
  );
}

function drawRunner(row: HTMLElement, { id, name, offer, state, busy, drained, revoked }: RunnerView): void {
  const slots = offer === null ? `${busy} busy` : `${busy} of ${offer.capacity} busy`;
  const apart = revoked ? ", ✗ revoked" : drained ? ", ⏸ drained" : "";
  fill(
    row,
    h("span", { class: "name", title: id }, plain(name), " ", h("small", { class: "quiet" }, shortRunner(id))),
    pill(state),
    h("span", {}, plain(offer?.systems.join(", ") ?? "")),
    h("span", { class: "last quiet" }, slots + apart),
  );
}
