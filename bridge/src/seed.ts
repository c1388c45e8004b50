import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gitArguments, gitVariables } from "./git-objects.ts";

const run = promisify(execFile);

/** A first fetch brings the whole repository. */
const FETCH_MS = 10 * 60_000;
/** Settings of the machine's network that git needs. */
const NETWORK = [
  "GIT_SSL_CAINFO",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "https_proxy",
  "HTTPS_PROXY",
  "all_proxy",
  "ALL_PROXY",
  "no_proxy",
  "NO_PROXY",
];

/**
 * Brings a repository (`z…`) from a seed's HTTP interface (radicle-httpd, `<seed>/<id>.git`) into `<mirrors>/<id>`, which then is what a node's
 * storage is: with the refs of every node, signed, so that the seed has to be believed in nothing. Rejects when the seed does not have it, or it is private.
 */
export async function fetchSeed(mirrors: string, id: string, seed: string, signal: AbortSignal): Promise<void> {
  const folder = join(mirrors, id);
  if (!existsSync(folder)) {
    // A mirror that is half made would look like one without refs.
    const unfinished = `${folder}.unfinished`;
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished, { recursive: true, mode: 0o700 });
    await run("git", ["init", "--quiet", "--bare", "--template=", unfinished], { env: gitVariables() });
    await rename(unfinished, folder);
  }
  const network = Object.fromEntries(
    NETWORK.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
  const flags = ["--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--end-of-options"];
  await run(
    "git",
    [
      ...gitArguments(folder),
      "-c",
      "http.followRedirects=false",
      "fetch",
      ...flags,
      `${seed}/${id}.git`,
      "+refs/*:refs/*",
    ],
    {
      env: { ...network, ...gitVariables(), GIT_ALLOW_PROTOCOL: "https:http" },
      timeout: FETCH_MS,
      signal,
    },
  );
}
