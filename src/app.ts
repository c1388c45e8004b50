import { Hono } from "hono";
import { ENDPOINTS, refuse, type Refusal, taskFileJsonSchema } from "@plumule/protocol";
import { docsPage } from "./docs.ts";
import { harden } from "./headers.ts";
import type { App } from "./implement.ts";
import { openApiDocument } from "./openapi.ts";
import { faultResponse, problemResponse } from "./problem.ts";
import { jobRoutes } from "./routes/jobs.ts";
import { pageRoutes } from "./routes/page.ts";
import { runRoutes, standaloneRoutes } from "./routes/runs.ts";
import { settingsRoutes } from "./routes/settings.ts";
import { streamRoutes } from "./routes/streams.ts";

const EXPOSED =
  "ETag, Location, Link, Retry-After, RateLimit, RateLimit-Policy, Date, Plumule-Request-Id, Plumule-Log-Size, Plumule-Log-Complete, Plumule-Log-Sha256, Content-Range";

/**
 * The edge: authenticate, validate, route. It decides nothing about jobs.
 * CORS is open and without credentials: every right is a bearer that the calling page must hold itself, and no cookie exists.
 */
export function createApp(): App {
  const app: App = new Hono();
  app.use(async (c, next) => {
    const instance = crypto.randomUUID();
    c.set("instance", instance);
    if (c.req.method === "OPTIONS") c.res = preflight();
    else await next();
    if (c.res.status === 101) return;
    const { headers } = c.res;
    headers.set("plumule-request-id", instance);
    headers.set("access-control-allow-origin", "*");
    headers.set("access-control-expose-headers", EXPOSED);
    harden(headers);
    if (!headers.has("date")) headers.set("date", new Date().toUTCString());
  });
  app.onError((error, c) => faultResponse(error, c.get("instance"), c.req.path));
  app.notFound((c) => problemResponse(nothingAt(c.req.method, c.req.path), c.get("instance")));
  settingsRoutes(app);
  jobRoutes(app);
  runRoutes(app);
  standaloneRoutes(app);
  streamRoutes(app);
  pageRoutes(app);
  app.get("/openapi.json", (c) => c.json(openApiDocument(), 200, { "cache-control": "public, max-age=300" }));
  app.get("/plumule.schema.json", (c) =>
    c.body(JSON.stringify(taskFileJsonSchema()), 200, {
      "content-type": "application/schema+json",
      "cache-control": "public, max-age=300",
    }),
  );
  app.get("/docs", (c) =>
    c.html(docsPage(), 200, {
      "cache-control": "public, max-age=300",
      "content-security-policy":
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    }),
  );
  return app;
}

/** A path that has other methods is told from one that has none: 405 with `Allow`, or 404. */
function nothingAt(method: string, path: string): Refusal {
  const allowed = PATHS.filter(({ pattern }) => pattern.test(path)).map((one) => one.method);
  const detail = `There is nothing at ${method} ${path.slice(0, 200)}.`;
  return allowed.length === 0
    ? refuse("not-found", detail, { next: "See /openapi.json for what there is." })
    : refuse("method-not-allowed", detail, { headers: { allow: allowed.join(", ") } });
}

const PATHS = Object.values(ENDPOINTS).map(({ method, path }) => ({
  method: method.toUpperCase(),
  pattern: new RegExp(`^${path.replaceAll(/:[a-z]+/g, "[^/]+")}$`),
}));

function preflight(): Response {
  return new Response(null, {
    status: 204,
    headers: {
      "access-control-allow-origin": "*",
      "access-control-allow-methods": "GET, POST, PUT, DELETE",
      "access-control-allow-headers":
        "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, range",
      "access-control-max-age": "86400",
    },
  });
}
