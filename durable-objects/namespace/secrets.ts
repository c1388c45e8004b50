import {
  formatTime,
  type JobSecret,
  LIMITS,
  refuse,
  type Refusal,
  type RunnerId,
  type SecretBody,
  type SecretView,
  verifyRecipient,
  type WireEnvelope,
} from "@plumule/protocol";
import type { NamespaceContext } from "./context.ts";
import {
  countSecrets,
  deleteSecret,
  findRecipient,
  findSecret,
  readSecrets,
  saveRecipient,
  saveSecret,
  type StoredSecret,
} from "./store/secrets.ts";
import { findRunner, isActive } from "./store/runners.ts";

/** Sealed secrets of a namespace, and where to seal to. Nothing here can open a box. */
export type Secrets = {
  putRecipient(call: {
    requestId?: string | undefined;
    runner: RunnerId;
    recipient: WireEnvelope;
  }): Promise<true | Refusal>;
  listSecrets(): SecretView[];
  putSecret(call: {
    requestId?: string | undefined;
    actor: string;
    name: string;
    body: SecretBody;
  }): SecretView | Refusal;
  removeSecret(call: { requestId?: string | undefined; actor: string; name: string }): true | Refusal;
  fill(secrets: readonly JobSecret[]): JobSecret[] | Refusal;
};

/** Makes the secrets of a namespace. */
export function createSecrets(context: NamespaceContext): Secrets {
  const { sql } = context;
  return {
    async putRecipient({ requestId, runner, recipient }) {
      const verified = await verifyRecipient(recipient, runner);
      if (!verified.ok) return refuse("bad-signature", `The recipient is refused: ${verified.detail}.`);
      if (!isActive(findRunner(sql, runner))) return refuse("forbidden", "This runner was revoked.");
      const known = findRecipient(sql, runner);
      if (JSON.stringify(known) !== JSON.stringify(recipient))
        context.commit(runner, Date.now(), (_, note) => {
          saveRecipient(sql, runner, recipient);
          const before = known === null ? {} : { before: known };
          note({ action: "recipient.stored", target: `runners/${runner}`, requestId, ...before, after: recipient });
        });
      return true;
    },

    listSecrets: () => readSecrets(sql).map(viewOf),

    putSecret({ requestId, actor, name, body }) {
      if (findSecret(sql, name) === null && countSecrets(sql) >= LIMITS.secretsStored)
        return refuse("quota-exceeded", `${LIMITS.secretsStored} secrets are stored, which is the limit.`);
      const now = Date.now();
      const secret: StoredSecret = { ...body, name, storedAt: now, storedBy: actor };
      const known = findSecret(sql, name);
      context.commit(actor, now, (emit, note) => {
        saveSecret(sql, secret);
        const before = known === null ? {} : { before: known };
        note({ action: "secret.stored", target: `secrets/${name}`, requestId, ...before, after: secret });
        emit({ type: "secret.stored", subject: `secrets/${name}`, data: { secret: viewOf(secret) } });
      });
      return viewOf(secret);
    },

    removeSecret({ requestId, actor, name }) {
      const known = findSecret(sql, name);
      if (known === null) return refuse("not-found", `There is no secret ${name}.`);
      context.commit(actor, Date.now(), (emit, note) => {
        deleteSecret(sql, name);
        note({ action: "secret.removed", target: `secrets/${name}`, requestId, before: known });
        emit({ type: "secret.removed", subject: `secrets/${name}`, data: { secret: { name } } });
      });
      return true;
    },

    fill: (secrets) => fillSecrets(sql, secrets),
  };
}

/** Fills the boxes of stored secrets into those that a job names, or says which is not there. */
export function fillSecrets(sql: SqlStorage, secrets: readonly JobSecret[]): JobSecret[] | Refusal {
  const filled = secrets.map((secret) => {
    const stored = secret.box === undefined ? findSecret(sql, secret.name) : null;
    return stored === null ? secret : { name: secret.name, box: stored.box, runners: stored.runners };
  });
  const errors = filled.flatMap(({ name, box }, at) =>
    box === undefined ? [{ pointer: `/secrets/${at}/name`, detail: `no secret ${name} is stored here` }] : [],
  );
  return errors.length === 0
    ? filled
    : refuse("invalid-body", "The job names a secret that is not there.", {
        errors,
        next: "See them: `plumule secret ls`; or seal one for this job: `plumule submit --secret NAME=@file`.",
      });
}

function viewOf({ box: _box, storedAt, ...secret }: StoredSecret): SecretView {
  return { ...secret, storedAt: formatTime(storedAt) };
}
