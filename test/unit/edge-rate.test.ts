import { readFileSync } from "node:fs";
import { LIMITS } from "@plumule/protocol";
import { expect, it } from "vitest";

const config = readFileSync(new URL("../../wrangler.toml", import.meta.url), "utf8");

it.each<[string, number]>([
  ["RATE_READS", LIMITS.readsPerMinute],
  ["RATE_WRITES", LIMITS.writesPerMinute],
  ["RATE_STRANGERS", LIMITS.strangersPerMinute],
])("the counter %s of the deployed broker has the limit that the protocol tells", (name, limit) => {
  const block = config.split("[[ratelimits]]").find((one) => one.includes(`"${name}"`));
  expect(block).toContain(`limit = ${limit}, period = 60`);
});
