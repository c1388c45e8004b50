import {
  type Endpoint,
  ENDPOINTS,
  ERRORS,
  type ErrorCode,
  type JsonSchema,
  jsonSchemaOf,
  problemSchema,
  PROTOCOL_VERSION,
} from "@plumule/protocol";

type Json = Record<string, unknown>;
type Named = Record<string, JsonSchema>;
type Schema = Endpoint["params"] | NonNullable<Endpoint["body"]>;

/** OpenAPI 3.1 of the broker, generated from the endpoint data; a test compares it with the routes. */
export function openApiDocument(): Json {
  const paths: Record<string, Json> = {};
  const named: Named = {};
  schemaOf(problemSchema, "sent", named);
  for (const endpoint of Object.values(ENDPOINTS)) {
    const path = endpoint.path.replace(/:([a-z]+)/g, "{$1}");
    paths[path] = { ...paths[path], [endpoint.method]: operation(endpoint, named) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "plumule",
      version: String(PROTOCOL_VERSION),
      summary: "A serverless, event-driven job broker for Radicle and Nix",
      license: { name: "MIT OR Apache-2.0", identifier: "MIT OR Apache-2.0" },
    },
    paths,
    components: {
      schemas: named,
      securitySchemes: {
        token: {
          type: "http",
          scheme: "bearer",
          bearerFormat: "plm_<id>_<secret>",
          description: "A token of the namespace, with scopes",
        },
        installation: { type: "http", scheme: "bearer", description: "The installation's admin token" },
        session: { type: "http", scheme: "bearer", bearerFormat: "pls_…", description: "A runner's 15-minute session" },
        lease: { type: "http", scheme: "bearer", description: "The lease token of the run in the path" },
      },
    },
  };
}

function operation(endpoint: Endpoint, named: Named): Json {
  const security = securityOf(endpoint);
  return {
    operationId: endpoint.name,
    summary: endpoint.summary,
    parameters: [
      ...parameters(endpoint.params, "path", named),
      ...(endpoint.query === null ? [] : parameters(endpoint.query, "query", named)),
      ...headerParameters(endpoint),
    ],
    ...requestBody(endpoint, named),
    responses: { ...answers(endpoint, named), ...refusals(endpoint) },
    security,
  };
}

function securityOf(endpoint: Endpoint): Json[] {
  switch (endpoint.access) {
    case "none":
    case "signed":
      return [];
    case "installation":
      return [{ installation: [] }];
    case "runner":
      return [{ session: [] }];
    case "lease":
      return [{ lease: [] }];
    case "read":
    case "submit":
    case "operate":
    case "admin":
      return [{ token: [endpoint.access] }];
  }
}

function parameters(schema: Endpoint["params"], place: "path" | "query", named: Named): Json[] {
  return Object.entries(schema.shape).map(([name, field]) => ({
    name,
    in: place,
    required: place === "path",
    schema: schemaOf(field as Schema, "read", named),
  }));
}

function headerParameters(endpoint: Endpoint): Json[] {
  const header = (name: string, description: string): Json => ({
    name,
    in: "header",
    required: false,
    description,
    schema: { type: "string" },
  });
  return [
    ...(endpoint.idempotent
      ? [
          header(
            "Idempotency-Key",
            "The same key and body get the same answer for 24 h; another body is refused with 422.",
          ),
        ]
      : []),
    ...(endpoint.bodyEncoding === null
      ? []
      : [
          header(
            "Content-Encoding",
            `\`${endpoint.bodyEncoding}\` for a body that is packed so; without it the body is as it is.`,
          ),
        ]),
    ...(endpoint.refusals.includes("revision-conflict")
      ? [header("If-Match", "The ETag that the change was decided on.")]
      : []),
  ];
}

function requestBody(endpoint: Endpoint, named: Named): Json {
  if (endpoint.bodyMedium === "octets")
    return {
      requestBody: {
        required: true,
        content: {
          "application/octet-stream": {
            schema: { type: "string", format: "binary", maxLength: endpoint.bodyLimitBytes },
          },
        },
      },
    };
  return endpoint.body === null
    ? {}
    : {
        requestBody: {
          required: true,
          content: { "application/json": { schema: schemaOf(endpoint.body, "sent", named) } },
        },
      };
}

const MEDIA = {
  octets: "text/plain",
  jsonl: "application/vnd.in-toto.bundle",
  stream: "application/json",
  json: "application/json",
  none: "application/json",
} as const;

function answers(endpoint: Endpoint, named: Named): Json {
  return Object.fromEntries(
    Object.entries(endpoint.answers).map(([status, schema]) => {
      if (schema !== null)
        return [
          status,
          {
            description: endpoint.summary,
            content: { "application/json": { schema: schemaOf(schema, "sent", named) } },
          },
        ];
      const hasBody = endpoint.answerMedium === "octets" || endpoint.answerMedium === "jsonl";
      return [
        status,
        {
          description: endpoint.summary,
          ...(hasBody ? { content: { [MEDIA[endpoint.answerMedium]]: { schema: { type: "string" } } } } : {}),
        },
      ];
    }),
  );
}

/** What every endpoint may refuse, given its access and body, and what is particular to it. */
export function refusalsOf(endpoint: Endpoint): ErrorCode[] {
  const codes = new Set<ErrorCode>(["invalid-parameter", "internal", "unavailable", ...endpoint.refusals]);
  if (endpoint.access !== "none" && endpoint.access !== "signed") codes.add("unauthenticated").add("forbidden");
  if (endpoint.access !== "none" && endpoint.access !== "lease" && endpoint.access !== "runner")
    codes.add("rate-limited");
  if (endpoint.body !== null) codes.add("invalid-body").add("invalid-json");
  if (endpoint.body !== null || endpoint.bodyMedium === "octets")
    codes.add("payload-too-large").add("unsupported-media-type");
  if (endpoint.path.includes("/:ns")) codes.add("not-found");
  return [...codes];
}

function refusals(endpoint: Endpoint): Json {
  const byStatus = Map.groupBy(refusalsOf(endpoint), (code) => ERRORS[code].status);
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => [
      String(status),
      {
        description: codes.map((code) => `\`${code}\`: ${ERRORS[code].title}`).join("; "),
        content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
      },
    ]),
  );
}

function schemaOf(schema: Schema, side: "sent" | "read", named: Named): JsonSchema {
  return jsonSchemaOf(schema, side, "#/components/schemas/", named);
}
