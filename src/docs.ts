import { type Endpoint, ENDPOINTS, ERRORS } from "@plumule/protocol";
import { FIRST_CALLS, WATCH_SCRIPT } from "./docs-examples.ts";
import { refusalsOf } from "./openapi.ts";

/** The human documentation of the API, from the same data as the routes. Plain HTML without a script. */
export function docsPage(): string {
  const inOrder = Object.values(ENDPOINTS).toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const rows = inOrder.map(endpointSection).join("\n");
  const errors = Object.entries(ERRORS)
    .map(
      ([code, entry]) =>
        `<tr id="error-${code}"><td><code>${code}</code></td><td>${entry.status}</td><td>${escapeHtml(entry.title)}</td><td>${escapeHtml(entry.next)}</td></tr>`,
    )
    .join("\n");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>plumule: API</title><link rel="stylesheet" href="/style.css"></head>
<body><main class="docs"><h1>plumule: API</h1>
<p>All bodies are JSON. Errors are <a href="https://www.rfc-editor.org/rfc/rfc9457">RFC 9457</a> problem documents with <code>code</code>, <code>errors[{pointer, detail}]</code> and <code>next</code>. The machine-readable form is <a href="/openapi.json">/openapi.json</a>; that of the task file of a repository is <a href="/plumule.schema.json">/plumule.schema.json</a>.</p>
<section><h2>First calls</h2><pre>${escapeHtml(FIRST_CALLS)}</pre>
<p>The same events over a WebSocket, with Node:</p><pre>${escapeHtml(WATCH_SCRIPT)}</pre></section>
${rows}
<h2>Errors</h2><table><thead><tr><th>code</th><th>status</th><th>meaning</th><th>next</th></tr></thead><tbody>${errors}</tbody></table>
</main></body></html>`;
}

function endpointSection(endpoint: Endpoint): string {
  const answers = Object.keys(endpoint.answers).join(", ");
  const refusals = refusalsOf(endpoint)
    .map((code) => `<a href="#error-${code}">${code}</a>`)
    .join(", ");
  return `<section id="${endpoint.name}"><h2><code>${endpoint.method.toUpperCase()} ${escapeHtml(endpoint.path)}</code></h2>
<p>${escapeHtml(endpoint.summary)}.</p>
<dl><dt>access</dt><dd>${endpoint.access}</dd><dt>answers</dt><dd>${answers}</dd>${endpoint.idempotent ? "<dt>idempotency</dt><dd>takes <code>Idempotency-Key</code></dd>" : ""}<dt>refusals</dt><dd>${refusals}</dd></dl></section>`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
