/** One JSON line per happening, for the platform's log store. Never a token, never a body. */
export function logLine(
  level: "info" | "warn" | "error",
  message: string,
  fields: Readonly<Record<string, unknown>> = {},
): void {
  console[level](JSON.stringify({ level, message, ...fields }));
}
