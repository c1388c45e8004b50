import type { Env } from "../durable-objects/env.ts";

/** What a signature must be made for: this broker and this namespace. `PUBLIC_URL` names the broker where a proxy hides it. */
export function audienceOf(env: Env, request: Request, ns: string): string {
  return `${env.PUBLIC_URL ?? new URL(request.url).origin}/v1/${ns}`;
}
