import type { WatchPhase } from "@plumule/protocol";
import { h } from "./dom.ts";
import { clock } from "./words.ts";

/** Says whether what is shown is live. A page that is cut off says so, and since when. */
export type ConnectionChip = {
  element: HTMLElement;
  show: (phase: WatchPhase, received: number) => void;
  fail: (text: string) => void;
};

export function connectionChip(): ConnectionChip {
  const element = h("p", { class: "chip", role: "status" }, "connecting …");
  let lostAt: string | null = null;
  let receivedBefore = 0;
  const say = (tone: string, ...text: (string | Node)[]): void => {
    element.className = `chip ${tone}`;
    element.replaceChildren(...text);
  };
  return {
    element,
    show(phase, received) {
      if (phase === "offline") {
        lostAt ??= new Date().toISOString();
        return say("bad", "○ offline since ", clock(lostAt), ", showing the last known");
      }
      // Reconnecting: `offline` stands until the broker has answered for everything since.
      if (phase !== "live") return lostAt === null ? say("busy", "◔ catching up") : undefined;
      if (lostAt !== null) say("good", `● live, resumed +${received - receivedBefore}`);
      else if (received > receivedBefore || !element.classList.contains("good")) say("good", "● live");
      lostAt = null;
      receivedBefore = received;
      return undefined;
    },
    fail: (text) => say("bad", text),
  };
}
