import type { ScheduleView } from "@plumule/protocol";
import { fillList, fill, h } from "./dom.ts";
import { clock, jobPath, plain } from "./words.ts";

/** What the clock asks of a deployment; hidden where that is nothing. */
export function scheduleSection(): { element: HTMLElement; show: (schedules: readonly ScheduleView[]) => void } {
  const list = h("ul", { class: "rows", "aria-label": "Schedules" });
  const element = h("section", { hidden: "" }, h("h2", {}, "Schedules"), list);
  return {
    element,
    show(schedules) {
      element.hidden = schedules.length === 0;
      fillList(list, "li", schedules, ({ name, ref }) => `${name} ${ref}`, drawSchedule);
    },
  };
}

function drawSchedule(row: HTMLElement, { name, cron, ref, nextAt, last }: ScheduleView): void {
  const title = plain(`${name} on ${ref.replace(/^refs\/heads\//, "")}`);
  fill(
    row,
    last?.job == null ? h("span", { class: "name" }, title) : h("a", { class: "name", href: jobPath(last.job) }, title),
    h("code", {}, plain(cron)),
    h("span", {}, ...(nextAt === null ? ["paused"] : ["next ", clock(nextAt)])),
    h("span", { class: "last quiet" }, ...(last === null ? [] : [plain(last.detail ?? "last"), " ", clock(last.at)])),
  );
}
