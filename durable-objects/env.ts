import type { Deployment } from "./deployment/deployment.ts";
import type { Namespace } from "./namespace/namespace.ts";
import type { Pool } from "./pool/pool.ts";

/** What the Worker and its objects are given by `wrangler.toml` and by secrets. */
export type Env = {
  DEPLOYMENT: DurableObjectNamespace<Deployment>;
  POOL: DurableObjectNamespace<Pool>;
  NAMESPACE: DurableObjectNamespace<Namespace>;
  ASSETS: Fetcher;
  /** Counters of requests, see `src/rate.ts`; a broker that lacks them limits no rates. */
  RATE_READS?: RateLimit;
  RATE_WRITES?: RateLimit;
  RATE_STRANGERS?: RateLimit;
  /** Origin of the broker as its callers see it, e.g. `https://plumule.example`; needed only behind a proxy that changes it. */
  PUBLIC_URL?: string;
  /** The installation's admin token (secret). Without it nobody can create namespaces. */
  ADMIN_TOKEN?: string;
  /** For `plumule dev` alone: a read token that the page on the same machine may have, and its namespace. */
  PAGE_TOKEN?: string;
  PAGE_NAMESPACE?: string;
};
