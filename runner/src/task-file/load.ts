import type * as reading from "./read.ts";

/** What reads task files. Loaded when somebody has one: YAML takes 13 MB, and what it takes to load is seen in the start of a command. */
export function loadTaskFileReading(): Promise<typeof reading> {
  return import("./read.ts");
}
