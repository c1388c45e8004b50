import { randomBytes } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  call,
  createNamespace,
  createRegistration,
  createToken,
  getTrust,
  type Problem,
  type Scope,
} from "@plumule/protocol";
import * as z from "zod";

/** The namespace of a broker that runs on one's own machine. */
export const LOCAL_NAMESPACE = "local";

/** Secrets of a local broker, kept beside its state. `token` may do everything in the namespace, `pageToken` only read. */
const credentialsSchema = z.object({
  adminToken: z.string(),
  token: z.string().optional(),
  pageToken: z.string().optional(),
});
export type Credentials = z.output<typeof credentialsSchema>;
/** Credentials that a broker has confirmed. */
export type ConfirmedCredentials = { adminToken: string; token: string; pageToken: string };

/** Reads the secrets of a state folder; without any, a new admin token is made and kept. */
export async function loadCredentials(stateDir: string): Promise<Credentials> {
  const text = await readFile(credentialsPath(stateDir), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (text !== null) return credentialsSchema.parse(JSON.parse(text));
  const made = { adminToken: randomBytes(32).toString("base64url") };
  await saveCredentials(stateDir, made);
  return made;
}

/** Writes a file that only its user may read, whole or not at all. */
export async function writePrivately(path: string, value: unknown): Promise<void> {
  await writeFile(`${path}.unfinished`, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 });
  await rename(`${path}.unfinished`, path);
}

async function saveCredentials(stateDir: string, credentials: Credentials): Promise<void> {
  await writePrivately(credentialsPath(stateDir), credentials);
}

function credentialsPath(stateDir: string): string {
  return join(stateDir, "credentials.json");
}

/**
 * Makes sure that the broker knows the namespace and the tokens: at the first start they are made and kept, later only asked
 * about. Throws when the broker refuses, which its own admin token does not let it do.
 */
export async function openLocalNamespace(
  url: string,
  stateDir: string,
  credentials: Credentials,
): Promise<ConfirmedCredentials> {
  const { adminToken, token, pageToken } = credentials;
  if (token !== undefined && pageToken !== undefined && (await isKnown(url, token)) && (await isKnown(url, pageToken)))
    return { adminToken, token, pageToken };
  const admin = { fetch, baseUrl: url, bearer: adminToken };
  const opened = await call(admin, createNamespace, { params: {}, body: { id: LOCAL_NAMESPACE } });
  if (!opened.ok) throw unexpected(opened.problem);
  const mint = async (name: string, scope: Scope): Promise<string> => {
    const made = await call(admin, createToken, { params: { ns: LOCAL_NAMESPACE }, body: { name, scopes: [scope] } });
    if (!made.ok) throw unexpected(made.problem);
    return made.answer.body.token;
  };
  const confirmed = { adminToken, token: await mint("dev", "admin"), pageToken: await mint("page", "read") };
  await saveCredentials(stateDir, confirmed);
  return confirmed;
}

/** A one-time token with which a runner registers. A runner that is registered already may do it again. */
export async function mintRegistration(url: string, token: string): Promise<string> {
  const client = { fetch, baseUrl: url, bearer: token };
  const made = await call(client, createRegistration, { params: { ns: LOCAL_NAMESPACE }, body: {} });
  if (!made.ok) throw unexpected(made.problem);
  return made.answer.body.token;
}

async function isKnown(url: string, token: string): Promise<boolean> {
  return (await call({ fetch, baseUrl: url, bearer: token }, getTrust, { params: { ns: LOCAL_NAMESPACE } })).ok;
}

function unexpected({ title, detail }: Problem): Error {
  return new Error(`${title}: ${detail}`);
}
