import { resolve } from "node:path";
import type * as nats from "@nats-io/transport-node";
import { readPrivateFile } from "../private-file.ts";

type Env = Readonly<Record<string, string | undefined>>;
type Library = typeof nats;

/** How base64 begins that holds the text of a file of credentials, `-----BEGIN NATS USER JWT-----`. */
const ENCODED_CREDENTIALS = "LS0tLS1CRUdJTiBOQVRTIFVTRVIgSldU";

/**
 * Where NATS is and who connects, from the variables of the `nats` command: `NATS_URL`, `NATS_CREDS`, `NATS_NKEY`, `NATS_USER`, `NATS_PASSWORD`,
 * `NATS_TOKEN`, `NATS_CA`, `NATS_CERT`, `NATS_KEY`. From Derrick: `NATS_ENDPOINT` for the first, and the content of a file in base64 for the second.
 */
export async function natsSettings(
  env: Env,
  library: Library,
): Promise<nats.NodeConnectionOptions | { refused: string }> {
  const variable = (name: string): string | undefined => (env[name] === "" ? undefined : env[name]);
  const servers: string[] = [];
  let login = { user: variable("NATS_USER"), pass: variable("NATS_PASSWORD") };
  let isTls = ["NATS_CA", "NATS_CERT", "NATS_KEY"].some((name) => variable(name) !== undefined);
  for (const text of (variable("NATS_URL") ?? variable("NATS_ENDPOINT") ?? "nats://127.0.0.1:4222").split(",")) {
    const trimmed = text.trim();
    const url = URL.parse(trimmed.includes("://") ? trimmed : `nats://${trimmed}`);
    if (url === null || url.hostname === "" || !/^(nats|tls):$/.test(url.protocol))
      return { refused: "NATS_URL is not like nats://host:4222 or tls://host:4222." };
    if (url.username !== "") login = { user: decodeURIComponent(url.username), pass: decodeURIComponent(url.password) };
    isTls ||= url.protocol === "tls:";
    servers.push(`${url.hostname}:${url.port === "" ? "4222" : url.port}`);
  }
  const authenticator = await authenticatorOf(variable, library);
  if (authenticator !== undefined && "refused" in authenticator) return authenticator;
  const token = variable("NATS_TOKEN");
  const files = { caFile: variable("NATS_CA"), certFile: variable("NATS_CERT"), keyFile: variable("NATS_KEY") };
  return {
    servers,
    ...(login.user === undefined ? {} : { user: login.user, pass: login.pass ?? "" }),
    ...(token === undefined ? {} : { token }),
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(isTls ? { tls: Object.fromEntries(Object.entries(files).filter(([, path]) => path !== undefined)) } : {}),
  };
}

async function authenticatorOf(
  variable: (name: string) => string | undefined,
  { credsAuthenticator, nkeyAuthenticator }: Library,
): Promise<ReturnType<typeof credsAuthenticator> | { refused: string } | undefined> {
  const [creds, nkey] = [variable("NATS_CREDS"), variable("NATS_NKEY")];
  if (creds?.startsWith(ENCODED_CREDENTIALS) === true) return credsAuthenticator(Buffer.from(creds, "base64"));
  const path = creds ?? nkey;
  if (path === undefined) return undefined;
  const file = await readPrivateFile(resolve(path));
  if (!file.ok) return { refused: `${creds === undefined ? "NATS_NKEY" : "NATS_CREDS"}: ${file.detail}.` };
  const bytes = Buffer.from(file.text.trim());
  return creds === undefined ? nkeyAuthenticator(bytes) : credsAuthenticator(bytes);
}
