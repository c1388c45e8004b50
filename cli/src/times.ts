/** Milliseconds from `90s`, `30m`, `2h` or `3d`; null when it is none of them. */
export function durationOf(text: string): number | null {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "s" | "m" | "h" | "d"];
  return unit === undefined ? null : Number(count) * unitMs;
}

/** A time from `90d` or RFC 3339; null when it is neither. */
export function timeOf(text: string, now: number): string | null {
  const days = /^(\d{1,5})d$/.exec(text)?.[1];
  const at = days === undefined ? Date.parse(text) : now + Number(days) * 86_400_000;
  return Number.isNaN(at) || (days === undefined && !/^\d{4}-\d\d-\d\d/.test(text)) ? null : new Date(at).toISOString();
}
