import * as fleet from "./fleet.ts";
import * as jobs from "./jobs.ts";
import * as settings from "./settings.ts";
import type { Endpoint } from "./endpoint.ts";

const isEndpoint = (value: unknown): value is Endpoint =>
  typeof value === "object" && value !== null && "method" in value && "access" in value;

/** Every endpoint of the broker, by name. OpenAPI, the routes' test and `/docs` read this list. */
export const ENDPOINTS: Readonly<Record<string, Endpoint>> = Object.fromEntries(
  [...Object.values<unknown>(settings), ...Object.values<unknown>(jobs), ...Object.values<unknown>(fleet)]
    .filter(isEndpoint)
    .map((one) => [one.name, one]),
);
