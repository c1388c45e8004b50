/** A time from `90d` or RFC 3339; null when it is neither. */
export function timeOf(text: string, now: number): string | null {
  const days = /^(\d{1,5})d$/.exec(text)?.[1];
  const at = days === undefined ? Date.parse(text) : now + Number(days) * 86_400_000;
  return Number.isNaN(at) || (days === undefined && !/^\d{4}-\d\d-\d\d/.test(text)) ? null : new Date(at).toISOString();
}
