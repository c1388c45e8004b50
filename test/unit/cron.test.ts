import { expect, it } from "vitest";
import { nextFiring, readCron } from "../../protocol/src/index.ts";

/** The next firings after a time, `2026-01-01 00:00`, all in UTC. */
function firings(text: string, after: string, count = 3): string[] {
  const cron = readCron(text);
  if (!cron.ok) throw new Error(cron.detail);
  const times: number[] = [];
  while (times.length < count) times.push(nextFiring(cron.value, times.at(-1) ?? Date.parse(`${after}Z`)));
  return times.map((at) => new Date(at).toISOString().slice(0, 16).replace("T", " "));
}

const fault = (text: string): string | null => {
  const cron = readCron(text);
  return cron.ok ? null : cron.detail;
};

it.each([
  ["every night", "0 3 * * *", ["2026-02-28 03:00", "2026-03-01 03:00", "2026-03-02 03:00"]],
  ["a step of minutes", "*/20 * * * *", ["2026-02-27 13:00", "2026-02-27 13:20", "2026-02-27 13:40"]],
  [
    "a list of hours and a range with a step",
    "30 1,22 1-31/15 * *",
    ["2026-03-01 01:30", "2026-03-01 22:30", "2026-03-16 01:30"],
  ],
  ["names of days, to Sunday", "0 0 * * SAT-sun", ["2026-02-28 00:00", "2026-03-01 00:00", "2026-03-07 00:00"]],
  ["Sunday as 7", "0 0 * * 7", ["2026-03-01 00:00", "2026-03-08 00:00", "2026-03-15 00:00"]],
  ["names of months", "0 0 1 jan,dec *", ["2026-12-01 00:00", "2027-01-01 00:00", "2027-12-01 00:00"]],
  [
    "either kind of day where both are restricted",
    "0 0 13 * fri",
    ["2026-03-06 00:00", "2026-03-13 00:00", "2026-03-20 00:00"],
  ],
  ["both where one is written with *", "0 0 */2 * mon", ["2026-03-09 00:00", "2026-03-23 00:00", "2026-04-13 00:00"]],
  ["29 February", "0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]],
  ["a day that not every month has", "0 0 31 * *", ["2026-03-31 00:00", "2026-05-31 00:00", "2026-07-31 00:00"]],
])("fires on %s", (_, text, expected) => {
  expect(firings(text, "2026-02-27 12:59")).toEqual(expected);
});

it("fires after a time and never at it, to the millisecond, over the end of a year and a century without leap day", () => {
  expect(firings("0 3 * * *", "2026-12-31 03:00", 1)).toEqual(["2027-01-01 03:00"]);
  expect(firings("0 3 * * *", "2026-12-31 02:59:59.999", 1)).toEqual(["2026-12-31 03:00"]);
  expect(firings("0 0 29 2 *", "2096-03-01 00:00", 1)).toEqual(["2104-02-29 00:00"]);
});

it.each([
  ["0 3 * *", "five fields"],
  ["0 3 * * * *", "five fields"],
  ["@daily", "five fields"],
  ["60 3 * * *", "`60` is no minute: 0 to 59"],
  ["0 24 * * *", "`24` is no hour"],
  ["0 3 0 * *", "`0` is no day of month"],
  ["0 3 * foo *", "`foo` is no month: 1 to 12 or jan to dec"],
  ["0 3 * * mon-fri-sun", "is no day of week"],
  ["0 3 * * fri-mon", "`fri-mon` is no day of week"],
  ["0 3 * * 1,", "`` is no day of week"],
  ["*/0 3 * * *", "`*/0` is no minute"],
  ["5/15 3 * * *", "`5/15` is no minute"],
  ["-1 3 * * *", "`-1` is no minute"],
  ["0 0 30 2 *", "no day of any year"],
  ["0 0 31 4,6,9,11 *", "no day of any year"],
  ["* * * * *", "it comes again after 1 min; at least 15"],
  ["0,10 3 * * *", "it comes again after 10 min"],
  ["55 23,0 * * *", null],
  ["0,50 0,23 * * *", "it comes again after 10 min"],
  ["0,50 0,23 1 * *", null],
  ["0 0 30 2 mon", null],
])("reads %s or says what is wrong with it", (text, detail) => {
  if (detail === null) expect(fault(text)).toBeNull();
  else expect(fault(text)).toContain(detail);
});
