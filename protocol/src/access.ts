import * as z from "zod";
import { runnerIdSchema, timeSchema } from "./ids.ts";
import { LIMITS } from "./limits.ts";

export const SCOPES = ["read", "submit", "operate", "admin"] as const;
/** What a caller may do. `admin` includes `operate` includes `submit` includes `read`. */
export const scopeSchema = z.enum(SCOPES);
export type Scope = z.output<typeof scopeSchema>;

/** True when a holder of `held` may do what needs `needed`. */
export function allowsScope(held: readonly Scope[], needed: Scope): boolean {
  return held.some((scope) => SCOPES.indexOf(scope) >= SCOPES.indexOf(needed));
}

/**
 * People by what they do, and the scope that this needs. A developer submits and follows; an operator keeps deployments and machines running;
 * a maintainer besides approves the work of strangers and decides what nobody saw end; a provider owns the namespace: tokens, members, trust.
 */
export const ROLES = {
  developer: "submit",
  operator: "operate",
  maintainer: "operate",
  provider: "admin",
} as const satisfies Readonly<Record<string, Scope>>;
export const roleSchema = z.enum(["developer", "operator", "maintainer", "provider"]);
export type Role = z.output<typeof roleSchema>;

/** A deployment, or every one whose id begins like this: `shop-*`. */
export const deploymentPatternSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\*?$/, "the id of a deployment; `*` only at the end, for any rest");
/** The deployments that a caller is confined to; without it, all of them. */
export const confinementSchema = z.array(deploymentPatternSchema).min(1).max(LIMITS.confinement);

/** Whether a caller that is confined to `patterns` may see and touch a deployment. */
export function coversDeployment(patterns: readonly string[] | undefined, deployment: string): boolean {
  return (
    patterns === undefined ||
    patterns.some((pattern) =>
      pattern.endsWith("*") ? deployment.startsWith(pattern.slice(0, -1)) : deployment === pattern,
    )
  );
}

/** Somebody who may log in with a Radicle key. */
export const memberSchema = z.strictObject({
  key: runnerIdSchema,
  name: z.string().min(1).max(LIMITS.nameCharacters),
  role: roleSchema,
  deployments: confinementSchema.optional(),
});
export type Member = z.output<typeof memberSchema>;
export const membersBodySchema = z
  .strictObject({ members: z.array(memberSchema).max(LIMITS.members) })
  .meta({ id: "MembersBody" });
export type MembersBody = z.output<typeof membersBodySchema>;
export const membersViewSchema = z.object({ version: z.int(), members: z.array(memberSchema) }).meta({ id: "Members" });
export type MembersView = z.output<typeof membersViewSchema>;

/** The bearer of somebody who logged in, and what it may do. */
export const loginSchema = z
  .object({
    token: z.string(),
    role: roleSchema,
    scopes: z.array(scopeSchema),
    deployments: confinementSchema.optional(),
    expiresAt: timeSchema,
  })
  .meta({ id: "Login" });
export type Login = z.output<typeof loginSchema>;

/**
 * What the edge has found out about a caller; objects receive it and trust it. `deployments` confines it to some.
 */
export type Principal =
  | { kind: "admin"; actor: "admin"; namespace: null; scopes: readonly Scope[]; deployments?: undefined }
  | {
      kind: "token";
      actor: string;
      namespace: string;
      scopes: readonly Scope[];
      deployments?: readonly string[];
      /** Somebody whom the panel named, and who is asked about there for each thing that they do. */
      ask?: boolean;
    }
  | {
      kind: "runner";
      actor: string;
      runner: string;
      pool: string;
      namespace: string;
      scopes: readonly [];
      deployments?: undefined;
    };
