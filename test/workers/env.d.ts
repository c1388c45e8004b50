import type { Env as Bindings } from "../../durable-objects/env.ts";

declare global {
  namespace Cloudflare {
    /** What tests in workerd find in `env`: the bindings of the Worker. */
    interface Env extends Bindings {}
  }
}
