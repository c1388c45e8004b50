import { offerSchema } from "@plumule/protocol";
import { expect, it } from "vitest";
import { runnerConfigSchema, type RunnerOptions } from "../../runner/src/config.ts";
import { GIVEN_FEATURES, GIVEN_SYSTEMS, offeredFeatures } from "../../runner/src/features.ts";

const ALL = { nix: true, effects: true, untrusted: true, exec: true, memoryLimit: true, taskLimit: true };
const words = (count: number): string[] => Array.from({ length: count }, (_, at) => `word-${at}`);
const parse = (options: Partial<RunnerOptions>): ReturnType<typeof runnerConfigSchema.safeParse> =>
  runnerConfigSchema.safeParse({ url: "https://broker.example", namespace: "me", state: "/state", ...options });

it("has room in its offer for all that it finds and all that it may be given, and says when it is given more", () => {
  const [features, systems] = [words(GIVEN_FEATURES), words(GIVEN_SYSTEMS)];
  const { data: config } = parse({ features, systems });
  const offer = {
    name: "king",
    systems: ["x86_64-linux", ...(config?.systems ?? [])],
    features: offeredFeatures(ALL, config?.features ?? []),
    labels: words(32),
    isolation: "bwrap",
    version: "1",
    capacity: 1,
  };
  expect(offerSchema.parse(offer).features).toEqual([
    ..."nix effects untrusted exec memory-limit task-limit expansion".split(" "),
    ...features,
  ]);
  expect(parse({ features: words(GIVEN_FEATURES + 1) }).error?.issues).toEqual([
    expect.objectContaining({ path: ["features"], message: expect.stringContaining(`at most ${GIVEN_FEATURES}`) }),
  ]);
  expect(parse({ systems: words(GIVEN_SYSTEMS + 1) }).success).toBe(false);
});

it("does not promise by name what it cannot do", () => {
  const none = { nix: false, effects: false, untrusted: false, exec: false, memoryLimit: false, taskLimit: false };
  expect(offeredFeatures(none, ["gpu", "effects", "memory-limit", "gpu"])).toEqual(["expansion", "gpu"]);
});
