import { PHASES } from "@plumule/protocol";
import * as z from "zod";

/** What a simulated job does, written into its script: steps with pauses, output and phases, then an outcome. */
export const planSchema = z.strictObject({
  steps: z.array(z.strictObject({ ms: z.number(), characters: z.int(), phase: z.enum(PHASES).optional() })),
  outcome: z.enum(["succeeded", "failed"]),
  /** How long it takes to stop when it is told to, ms. */
  stopMs: z.number(),
  /** Whether several runners do it at the same time. */
  replicated: z.boolean().optional(),
});
export type Plan = z.output<typeof planSchema>;
