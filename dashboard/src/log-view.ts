import { call, getLog, type Follower, type RunId } from "@plumule/protocol";
import { h } from "./dom.ts";
import { logLines } from "./log-lines.ts";
import type { Session } from "./session.ts";

/** Bytes before the end that a log begins with; "Save" has all of it. */
const TAIL_BYTES = 512 * 1024;

/** The log of one run, live. */
export type LogView = { element: HTMLElement; toggleFollow: () => void; stop: () => void };

/** Shows a run's log from the follower's socket. */
export function showLog(session: Session, follower: Follower, run: RunId): LogView {
  const follow = h("button", { type: "button", "aria-pressed": "true" }, "Follow");
  const save = h("button", { type: "button" }, "Save");
  const note = h("p", { class: "note", role: "status" }, "Waiting for the log …");
  const lines = logLines((isFollowing, unseenCount) => {
    follow.setAttribute("aria-pressed", String(isFollowing));
    follow.textContent = unseenCount === 0 ? "Follow" : `Follow (${unseenCount} new)`;
  });
  const decoder = new TextDecoder();
  let hasBegun = false;
  const tell = (text: string): void => {
    note.textContent = text;
  };
  const toggleFollow = (): void => lines.setFollow(!lines.isFollowing());
  follow.addEventListener("click", toggleFollow);
  save.addEventListener("click", () => {
    saveLog(session, run).catch((error: unknown) => tell(`The log could not be read: ${String(error)}.`));
  });

  const stop = follower.log(
    run,
    {
      onBytes(offset, bytes) {
        if (!hasBegun) tell(offset > 0 ? `The first ${size(offset)} are left out here; Save has all of it.` : "");
        hasBegun = true;
        lines.add(decoder.decode(bytes, { stream: true }));
      },
      onSkip: (from, to) => lines.add(`\n\x1b[0;7m ${size(to - from)} left out, since this page was slow \x1b[0m\n`),
      onEnd({ bytes, state }) {
        lines.finish();
        const isWell = state === "complete";
        tell(isWell ? `Complete, ${size(bytes)}, as signed.` : `${size(bytes)}; this log is ${state}.`);
        note.classList.toggle("bad", !isWell);
      },
      onRefused: (problem) => tell(`${problem.detail} ${problem.next}`),
    },
    { tail: TAIL_BYTES },
  );
  const element = h("div", { class: "log" }, h("div", { class: "bar" }, note, follow, save), lines.element);
  return { element, toggleFollow, stop };
}

/** Reads the whole log over HTTP, piece by piece, and hands it to the browser as a file. */
async function saveLog({ ns, client }: Session, run: RunId): Promise<void> {
  const parts: ArrayBuffer[] = [];
  for (let offset = 0, isMore = true; isMore;) {
    const answer = await call(client, getLog, { params: { ns, run }, query: { offset } });
    if (!answer.ok) throw new Error(answer.problem.detail);
    const part = await answer.response.arrayBuffer();
    parts.push(part);
    offset += part.byteLength;
    isMore = part.byteLength > 0 && offset < Number(answer.headers.get("plumule-log-size"));
  }
  const url = URL.createObjectURL(new Blob(parts, { type: "text/plain" }));
  h("a", { href: url, download: `${run}.log` }).click();
  // The browser has taken it by the next task.
  setTimeout(() => URL.revokeObjectURL(url));
}

function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
