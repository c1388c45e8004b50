import { fieldErrors, submitBodySchema } from "@plumule/protocol";
import { describe, expect, it } from "vitest";

const wrong = (body: unknown): unknown => {
  const parsed = submitBodySchema.safeParse(body);
  return parsed.success ? [] : fieldErrors(parsed.error);
};

describe("the errors of a body", () => {
  it.each([
    [{}, { pointer: "/task", detail: "missing: expected object" }],
    [{ task: { kind: "shell" } }, { pointer: "/task/script", detail: "missing: expected string" }],
    [
      { task: { kind: "shell", script: "x" }, modus: "queue" },
      { pointer: "/modus", detail: "unknown field: modus" },
    ],
    [
      { task: { kind: "shell", script: "x" }, env: { "A/B": "" } },
      { pointer: "/env/A~1B", detail: "a name of letters, digits and underscores that starts with no digit" },
    ],
  ])("say of %j where and what", (body, error) => {
    expect(wrong(body)).toEqual([error]);
  });
});
