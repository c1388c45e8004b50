import { LIMITS } from "./limits.ts";
import type { Millis } from "./ids.ts";
import { accepted, refused, type Result } from "./result.ts";

/** When a schedule fires, in UTC: `times` are minutes of a day, in order. */
export type Cron = {
  times: readonly number[];
  days: ReadonlySet<number>;
  months: ReadonlySet<number>;
  weekdays: ReadonlySet<number>;
  /** Day of month and day of week are both restricted: one of them is enough then. */
  isEitherDay: boolean;
};

const DAY_MS = 24 * 3600_000;
const MINUTE_MS = 60_000;
const DAY_MINUTES = 24 * 60;
/** Longest wait that is looked through, days: a 29 February on one weekday comes every 28 years, and every 40 around a century without. */
const HORIZON_DAYS = 41 * 366;

type Field = { name: string; least: number; most: number; words: readonly string[] };

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MINUTE: Field = { name: "minute", least: 0, most: 59, words: [] };
const HOUR: Field = { name: "hour", least: 0, most: 23, words: [] };
const DAY: Field = { name: "day of month", least: 1, most: 31, words: [] };
const MONTH: Field = { name: "month", least: 1, most: 12, words: MONTHS };
/** Sunday is 0 and 7. */
const WEEKDAY: Field = { name: "day of week", least: 0, most: 7, words: WEEKDAYS };

/**
 * Reads the five fields of a cron expression (POSIX crontab, with names, ranges and steps as in crontab(5) of Vixie cron): minute, hour, day of
 * month, month, day of week, in UTC. When both kinds of day are restricted, that is written without `*`, either is enough. Refused is also
 * what never comes, and what comes more often than `LIMITS.scheduleIntervalMs`.
 */
export function readCron(text: string): Result<Cron, "cron"> {
  const [minute, hour, day, month, weekday, ...more] = text.trim().split(/\s+/);
  if (
    minute === undefined ||
    hour === undefined ||
    day === undefined ||
    month === undefined ||
    weekday === undefined ||
    more.length > 0
  )
    return fault("five fields are needed: minute, hour, day of month, month, day of week");
  const minutes = readField(MINUTE, minute);
  if (!minutes.ok) return minutes;
  const hours = readField(HOUR, hour);
  if (!hours.ok) return hours;
  const days = readField(DAY, day);
  if (!days.ok) return days;
  const months = readField(MONTH, month);
  if (!months.ok) return months;
  const weekdays = readField(WEEKDAY, weekday);
  if (!weekdays.ok) return weekdays;
  const cron: Cron = {
    times: inOrder(hours.value).flatMap((at) => inOrder(minutes.value).map((within) => at * 60 + within)),
    days: days.value,
    months: months.value,
    weekdays: new Set([...weekdays.value].map((one) => one % 7)),
    isEitherDay: !day.includes("*") && !weekday.includes("*"),
  };
  if (nextDay(cron, 0) === null) return fault("no day of any year is meant by it");
  const leastMinutes = LIMITS.scheduleIntervalMs / MINUTE_MS;
  const gap = shortestGap(cron);
  return gap < leastMinutes
    ? fault(`it comes again after ${gap} min; at least ${leastMinutes} have to lie between`)
    : accepted(cron);
}

/** The first time after `after` at which a schedule fires. */
export function nextFiring(cron: Cron, after: Millis): Millis {
  const today = Math.floor(after / DAY_MS);
  const first = nextDay(cron, today);
  const later = first === null ? null : timeOn(cron, first, after);
  const day = later === null && first !== null ? nextDay(cron, first + 1) : first;
  const found = later ?? (day === null ? null : timeOn(cron, day, after));
  if (found === null) throw new Error("a cron expression was accepted that never comes");
  return found;
}

function timeOn({ times }: Cron, day: number, after: Millis): Millis | null {
  return times.map((minutes) => day * DAY_MS + minutes * MINUTE_MS).find((at) => at > after) ?? null;
}

/** The first day that is meant, from a day on, counted from 1970; null when none comes. */
function nextDay(cron: Cron, from: number): number | null {
  for (let day = from; day < from + HORIZON_DAYS; day += 1) if (isMeant(cron, day)) return day;
  return null;
}

function isMeant({ days, months, weekdays, isEitherDay }: Cron, day: number): boolean {
  const date = new Date(day * DAY_MS);
  const ofMonth = days.has(date.getUTCDate());
  const ofWeek = weekdays.has(date.getUTCDay());
  return months.has(date.getUTCMonth() + 1) && (isEitherDay ? ofMonth || ofWeek : ofMonth && ofWeek);
}

/** The shortest time between two firings, minutes: within a day, and over midnight where two days that are meant follow each other. */
function shortestGap(cron: Cron): number {
  const { times } = cron;
  const [first = 0] = times;
  const within = times.slice(1).map((time, index) => time - (times[index] ?? 0));
  const overnight = first + DAY_MINUTES - (times.at(-1) ?? 0);
  const shortest = Math.min(DAY_MINUTES, ...within);
  return overnight < shortest && hasTwoDays(cron) ? overnight : shortest;
}

function hasTwoDays(cron: Cron): boolean {
  for (let day = 0; day < HORIZON_DAYS; day += 1) if (isMeant(cron, day) && isMeant(cron, day + 1)) return true;
  return false;
}

/** One field: a list of `*`, a value or a range, the first and last with a step if there is `/n`. */
function readField(field: Field, text: string): Result<ReadonlySet<number>, "cron"> {
  const values = new Set<number>();
  for (const part of text.split(",")) {
    const [, whole = "", step] = /^([^/]*)(?:\/(\d{1,2}))?$/.exec(part) ?? [];
    const range = readRange(field, whole);
    if (range === null || (step !== undefined && (Number(step) === 0 || !/[*-]/.test(whole))))
      return fault(`\`${part}\` is no ${field.name}: ${meant(field)}`);
    for (let value = range.from; value <= range.to; value += Number(step ?? 1)) values.add(value);
  }
  return accepted(values);
}

function readRange(field: Field, text: string): { from: number; to: number } | null {
  if (text === "*") return { from: field.least, to: field === WEEKDAY ? 6 : field.most };
  const [first = "", last, ...more] = text.split("-");
  const from = readValue(field, first);
  const end = last === undefined ? from : readValue(field, last);
  // A week may end with its Sunday: `sat-sun`.
  const to = field === WEEKDAY && end === 0 && from !== null && from > 0 ? 7 : end;
  return from === null || to === null || from > to || more.length > 0 ? null : { from, to };
}

function readValue({ least, most, words }: Field, text: string): number | null {
  const word = words.indexOf(text.toLowerCase());
  if (word >= 0) return least + word;
  const value = /^\d{1,2}$/.test(text) ? Number(text) : -1;
  return value >= least && value <= most ? value : null;
}

function meant({ least, most, words }: Field): string {
  const names = words.length === 0 ? "" : ` or ${words[0] ?? ""} to ${words.at(-1) ?? ""}`;
  return `${least} to ${most}${names}, a range a-b, or *, the last two also with a step /n, and lists of these`;
}

function inOrder(values: ReadonlySet<number>): number[] {
  return [...values].toSorted((one, other) => one - other);
}

function fault(detail: string): Result<never, "cron"> {
  return refused("cron", detail);
}
