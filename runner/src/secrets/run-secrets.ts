import { randomBytes } from "node:crypto";
import type { Assignment } from "@plumule/protocol";
import { TASK_TOKEN } from "../effects/secrets.ts";
import type { FetchOptions } from "../mirror.ts";
import { createRedactor, type RedactedStream, type Redactor } from "../redact.ts";
import { gatherFacts } from "./facts.ts";
import { type OpenedSecrets, removeSecretFiles, type SecretPlaces, writeSecretFiles } from "./files.ts";
import { openIdentity } from "./identity.ts";
import { openSecrets, type OpenResult, SECRET_REFUSED } from "./open.ts";

/** Variables that point at the opened secrets, for the part of a task that applies; or the one sentence that the job is told. */
export type Opened =
  | { ok: true; env: Readonly<Record<string, string>> }
  | { ok: false; elsewhere: boolean; detail: string };

/** The secrets of one run: when they are there, where, and that nothing that the run says shows them. */
export type RunSecrets = {
  /**
   * Opens them as files; nothing for a job that has none. Call `close` when the part of the task is over that needs them. `arrange` makes the file
   * of an effect out of them and the run's own token, which effects have also without secrets; null when one is missing.
   */
  open(arrange?: (secrets: OpenedSecrets, token: string) => unknown): Promise<Opened>;
  /** Removes the files. What they held is masked until the end of the run. */
  close(): Promise<void>;
  /** Log bytes, masked, to `append`. */
  log(chunk: Uint8Array): void;
  /** The last bytes that still waited. The log is over then. */
  endLog(): void;
  /** A value that leaves the run otherwise, masked. */
  mask<T>(value: T): T;
  /** A whole text, masked, however much longer that makes it. */
  text(text: string): string;
  /** What shows that a request for state files comes from this run's effect. */
  token: string;
  /** Why nothing was opened, for the owner of the machine alone; undefined when there is nothing to say. */
  note(): string | undefined;
  /** How often each secret was masked; undefined for a run without secrets. */
  counts(): Record<string, number> | undefined;
};

/** How long log bytes are held back that may be the beginning of a secret, ms. */
const HOLD_MS = 1_000;

/** Prepares the secrets of a run. Nothing is opened yet. */
export function createRunSecrets({
  assignment,
  places,
  fetch,
  append,
}: {
  assignment: Omit<Assignment, "leaseToken">;
  places: SecretPlaces;
  fetch: FetchOptions;
  append: (bytes: Uint8Array) => void;
}): RunSecrets {
  const { folder } = places;
  const { deployment, spec, run } = assignment;
  const log = createMaskedLog(append);
  const token = randomBytes(24).toString("base64url");
  let redactor: Redactor | null = null;
  let opened: OpenedSecrets | null = null;
  let note: string | undefined;

  /** Opened once for all steps of a run: its repository need not be asked again. */
  const openOnce = async (): Promise<OpenResult> => {
    if (opened !== null) return { ok: true, secrets: opened };
    const result: OpenResult = spec.secrets === undefined ? { ok: true, secrets: {} } : await openBoxes();
    if (!result.ok) return result;
    opened = result.secrets;
    redactor = createRedactor({ ...opened, [TASK_TOKEN]: Buffer.from(token) });
    log.use(redactor.stream());
    for (const name of redactor.tooShort)
      log.write(Buffer.from(`[plumule] the secret ${name} is too short to be masked in this log\n`));
    return result;
  };
  const openBoxes = async (): Promise<OpenResult> => {
    const key = await openIdentity(places.identity);
    if ("refused" in key) return { ok: false, elsewhere: true, why: key.refused };
    const facts = (): ReturnType<typeof gatherFacts> => gatherFacts(deployment, spec.source, fetch);
    return openSecrets(assignment, { identity: key.identity, facts, nowMs: Date.now() });
  };
  return {
    token,
    async open(arrange) {
      if (spec.secrets === undefined && arrange === undefined) return { ok: true, env: {} };
      const result: OpenResult = folder === null ? { ok: false, elsewhere: true, why: NO_MEMORY } : await openOnce();
      if (!result.ok || folder === null) {
        note = result.ok ? undefined : result.why;
        return { ok: false, elsewhere: !result.ok && result.elsewhere, detail: SECRET_REFUSED };
      }
      const hercules = arrange?.(result.secrets, token);
      if (hercules === null) {
        note = "an effect asks for one that the job does not have";
        return { ok: false, elsewhere: false, detail: SECRET_REFUSED };
      }
      const paths = await writeSecretFiles(folder, run, result.secrets, hercules);
      return { ok: true, env: { PLUMULE_SECRETS: paths.folder, HERCULES_CI_SECRETS_JSON: paths.hercules } };
    },
    async close() {
      if (folder !== null && opened !== null) await removeSecretFiles(folder, run);
    },
    log: (chunk) => log.write(chunk),
    endLog: () => log.end(),
    note: () => (note === undefined ? undefined : `its secrets stay closed: ${note}`),
    mask: (value) => redactor?.json(value) ?? value,
    text: (text) => redactor?.text(text) ?? text,
    // Of the run's own token nobody needs to hear that it was not shown.
    counts: () =>
      redactor === null || spec.secrets === undefined
        ? undefined
        : Object.fromEntries([...redactor.counts].filter(([name]) => name !== TASK_TOKEN)),
  };
}

const NO_MEMORY = "this machine has no file system in memory, and secrets may not go to its disk";

/** A log that passes bytes on as they are until there are secrets to mask. Throws what `append` throws, if need be at the next call. */
function createMaskedLog(append: (bytes: Uint8Array) => void): {
  use(stream: RedactedStream): void;
  write(bytes: Uint8Array): void;
  end(): void;
} {
  let stream: RedactedStream | null = null;
  let timer: NodeJS.Timeout | undefined;
  let failure: { error: unknown } | null = null;
  const pass = (bytes: Uint8Array): void => {
    clearTimeout(timer);
    if (failure !== null) throw failure.error;
    if (bytes.length > 0) append(bytes);
  };
  const settle = (masked: RedactedStream): void => {
    try {
      pass(masked.settle());
    } catch (error) {
      failure = { error };
    }
  };
  return {
    use(next) {
      stream = next;
    },
    write(bytes) {
      if (stream === null) return pass(bytes);
      pass(stream.push(bytes));
      timer = setTimeout(settle, HOLD_MS, stream);
    },
    end() {
      if (stream !== null) pass(stream.flush());
    },
  };
}
