import { createHmac } from "node:crypto";

/** The secret that this Garden shares with the hooks of `test/workers/namespace-statuses`. */
const GARDEN_SECRET = "a secret that Garden and the hook share";

/** One call of `commit-status`, as it was answered. */
type Told = { at: string; status: number; body: Record<string, unknown> };

const FIELDS = ["node_id", "repo_id", "sha", "context", "state"];
const STATES = ["pending", "running", "success", "failure"];

/**
 * What stands outside of the Workers under test: Radicle Garden's `commit-status` as its source has it
 * (radicle-garden/always-on-node, src/routes/api/commit-status/+server.ts), at `https://*.garden.test`. `/seen?context=` lists what was
 * told; `/fail?context=&times=` lets the next calls fail with 503; the host `moved.garden.test` answers with a redirect.
 */
export function startGarden(): (request: {
  url: string;
  method: string;
  headers: Headers;
  text(): Promise<string>;
}) => Promise<Response> {
  const told: Told[] = [];
  const failing = new Map<string, number>();
  return async (request) => {
    const url = new URL(request.url);
    const context = url.searchParams.get("context") ?? "";
    if (!url.hostname.endsWith(".garden.test")) return new Response("no such host", { status: 502 });
    if (url.pathname === "/seen") return Response.json(told.filter(({ body }) => body["context"] === context));
    if (url.pathname === "/fail") {
      failing.set(context, Number(url.searchParams.get("times")));
      return Response.json({});
    }
    const text = await request.text();
    const body = JSON.parse(text) as Record<string, unknown>;
    const answer = (status: number): Response => {
      told.push({ at: url.href, status, body });
      const location: Record<string, string> = status === 302 ? { location: "https://eu.garden.test/elsewhere" } : {};
      return new Response(JSON.stringify({ updated: status === 200 }), { status, headers: location });
    };
    if (url.hostname === "moved.garden.test") return answer(302);
    const name = String(body["context"]);
    const left = failing.get(name) ?? 0;
    if (left > 0) {
      failing.set(name, left - 1);
      return answer(503);
    }
    const signature = createHmac("sha256", GARDEN_SECRET).update(text).digest("hex");
    if (request.headers.get("x-garden-signature-256") !== `sha256=${signature}`) return answer(401);
    if (!FIELDS.every((field) => typeof body[field] === "string") || !STATES.includes(String(body["state"])))
      return answer(400);
    return answer(200);
  };
}
