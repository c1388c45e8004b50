import type { Deployment } from "./deployment/deployment.ts";
import type { Namespace } from "./namespace/namespace.ts";
import type { Pool } from "./pool/pool.ts";

/** What the Worker and its objects are given by `wrangler.toml` and by secrets. */
export type Env = {
  DEPLOYMENT: DurableObjectNamespace<Deployment>;
  POOL: DurableObjectNamespace<Pool>;
  NAMESPACE: DurableObjectNamespace<Namespace>;
  ASSETS: Fetcher;
  /** The installation's admin token (secret). Without it nobody can create namespaces. */
  ADMIN_TOKEN?: string;
};
