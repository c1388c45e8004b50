import { refuse } from "@plumule/protocol";
import type { App } from "../implement.ts";
import { problemResponse } from "../problem.ts";

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/**
 * Where the page learns how to read this broker. Only a broker on the developer's own machine hands out a token here: `PAGE_TOKEN` is set by
 * `plumule dev`, and the host must be a loopback name, so that a foreign name that resolves to this machine (DNS rebinding) gets nothing.
 */
export function pageRoutes(app: App): void {
  app.get("/.well-known/plumule-page.json", (c) => {
    const { PAGE_TOKEN: token, PAGE_NAMESPACE: namespace } = c.env;
    const site = c.req.header("sec-fetch-site") ?? "same-origin";
    if (
      token === undefined ||
      namespace === undefined ||
      !LOOPBACK.has(new URL(c.req.url).hostname) ||
      site !== "same-origin"
    )
      return problemResponse(
        refuse("not-found", "This broker gives the page no token of its own.", {
          next: "Open the page with a token: /#ns=<namespace>&token=plm_…",
        }),
        c.get("instance"),
      );
    return c.json({ namespace, token });
  });
}
