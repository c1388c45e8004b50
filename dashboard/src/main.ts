import { h } from "./dom.ts";
import { showDeployment, showJob } from "./deployment-page.ts";
import { showOverview } from "./overview.ts";
import { openSession, type Session } from "./session.ts";

const ROUTE = /^\/(d|j)\/([^/]+)$/;
let leave = new AbortController();

/** Shows what the address names. The page that was shown before stops following. */
async function show(session: Session): Promise<void> {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  document.title = `plumule · ${session.ns}`;
  const page = await pageOf(session, signal).catch((error: unknown) =>
    h("main", {}, h("h1", {}, "The broker cannot be reached"), h("p", {}, String(error))),
  );
  if (!signal.aborted) document.body.replaceChildren(page);
}

async function pageOf(session: Session, signal: AbortSignal): Promise<HTMLElement> {
  const [, kind, name] = ROUTE.exec(location.pathname) ?? [];
  if (name === undefined) return showOverview(session, signal);
  const id = decodeURIComponent(name);
  return kind === "d" ? showDeployment(session, id, null, signal) : showJob(session, id, signal);
}

/** Links of the page itself change the view without loading it anew; everything else is left to the browser. */
function onClick(event: MouseEvent, session: Session): void {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (link === null || !isPlain || link.origin !== location.origin || link.hasAttribute("download")) return;
  event.preventDefault();
  history.pushState(null, "", link.pathname);
  void show(session);
}

function howToOpen(): HTMLElement {
  return h(
    "main",
    {},
    h("h1", {}, "plumule"),
    h(
      "p",
      {},
      "This page shows the deployments and runners of one namespace. It opens with who you are on the command line:",
    ),
    h("p", {}, h("code", {}, `plumule login --url ${location.origin} --namespace <namespace>`)),
    h("p", {}, h("code", {}, "plumule open")),
    h(
      "p",
      {},
      "With a token instead: ",
      h("code", {}, `${location.origin}/#ns=<namespace>&token=<token>`),
      ". On your own machine, ",
      h("code", {}, "npm start"),
      " needs neither.",
    ),
    h("p", { class: "quiet" }, "The credential stays in this tab and is removed from the address."),
  );
}

const session = await openSession().catch(() => null);
if (session === null) document.body.replaceChildren(howToOpen());
else {
  document.addEventListener("click", (event) => onClick(event, session));
  window.addEventListener("popstate", () => void show(session));
  await show(session);
}
