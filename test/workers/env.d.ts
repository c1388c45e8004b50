import type { Env as Bindings } from "../../durable-objects/env.ts";

declare global {
  interface ImportMeta {
    /** Files by their path, read when the test is bundled. */
    glob<T>(pattern: string, options: { query?: string; import: "default"; eager: true }): Record<string, T>;
  }
  namespace Cloudflare {
    /** What tests in workerd find in `env`: the bindings of the Worker. */
    interface Env extends Bindings {
      /** How many cases the fuzz tests try, and where fast-check begins. */
      FUZZ_CASES?: string;
      FUZZ_SEED?: string;
    }
  }
}
