import {
  type AuthenticateReply,
  authenticateReplySchema,
  type AuthorizerBody,
  type AuthorizerQuestion,
  type AuthorizerView,
  authorizeReplySchema,
  type DeploymentId,
  formatTime,
  LIMITS,
  type Millis,
  parseWebhookSecret,
  refuse,
  type Refusal,
  sha256Hex,
  signWebhook,
  utf8,
} from "@plumule/protocol";
import { checkOutgoingUrl, type Outgoing } from "../shared/outgoing.ts";
import type { NamespaceContext } from "./context.ts";
import { checkIfMatch } from "./core/settings.ts";
import { readAuthorizer, saveAuthorizer } from "./store/authorizer.ts";

/** The panel that a namespace asks about credentials that it did not make itself. Whatever goes wrong with asking means no. */
export type Authorizer = {
  getAuthorizer(): AuthorizerView;
  putAuthorizer(call: {
    actor: string;
    body: AuthorizerBody;
    ifMatch: string | null;
  }): Promise<AuthorizerView | Refusal>;
  /** Who a credential belongs to, and until when that may be believed (ms epoch); null for nobody. */
  identify(credential: string): Promise<Identified | null>;
  /** Whether somebody that the panel named may do this. */
  mayAct(call: { actor: string; action: string; deployment: DeploymentId | null }): Promise<boolean>;
};

/** Somebody that the panel knows. */
export type Identified = Extract<AuthenticateReply, { allow: true }> & { until: Millis };

/** What reads a reply: a schema of the protocol. */
type Reader<T> = { parse(value: unknown): T };

/** How long an answer without a time of its own is believed, ms: a burst of one page costs one question. */
const CACHE_MS = LIMITS.credentialCacheMs;
/** Answers remembered; more are asked for again. */
const ANSWERS_MAX = 5_000;

/** Makes the authorizer of a namespace. Answers are remembered in memory only. */
export function createAuthorizer(context: NamespaceContext, outgoing: Outgoing): Authorizer {
  const { sql, namespace, env } = context;
  const questions = createQuestions(context, outgoing);
  const view = (): AuthorizerView => {
    const { version, authorizer } = readAuthorizer(sql);
    return { version, authorizer: authorizer === null ? null : { url: authorizer.url } };
  };

  return {
    getAuthorizer: view,

    async putAuthorizer({ actor, body: { authorizer }, ifMatch }) {
      const current = readAuthorizer(sql);
      const conflict = checkIfMatch(ifMatch, current.version);
      if (conflict !== null) return conflict;
      const secret = authorizer?.secret ?? current.authorizer?.secret;
      const refused = authorizer === null ? null : refuseAuthorizer(authorizer.url, secret, env.PUBLIC_URL ?? null);
      if (refused !== null) return refused;
      questions.forget();
      context.commit(actor, Date.now(), (emit) => {
        const next = authorizer === null || secret === undefined ? null : { url: authorizer.url, secret };
        saveAuthorizer(sql, { version: current.version + 1, authorizer: next });
        emit({ type: "authorizer.changed", subject: "authorizer", data: { authorizer: view() } });
      });
      return view();
    },

    async identify(credential) {
      if (readAuthorizer(sql).authorizer === null) return null;
      const key = `who ${await sha256Hex(utf8(credential))}`;
      const question = { type: "authenticate", namespace, credential, askedAt: formatTime(Date.now()) } as const;
      const { reply, until } = await questions.ask(key, authenticateReplySchema, question);
      return reply?.allow === true ? { ...reply, until } : null;
    },

    async mayAct(act) {
      const question = { type: "authorize", namespace, ...act, askedAt: formatTime(Date.now()) } as const;
      const { reply } = await questions.ask(JSON.stringify(act), authorizeReplySchema, question);
      return reply?.allow === true;
    },
  };
}

/** Questions to the panel, and the answers that may still be believed. */
type Questions = {
  /** The answer under a key, asked for when none is remembered; null when there was none, or none that can be read. */
  ask<T extends { cacheMs?: number | undefined }>(
    key: string,
    reader: Reader<T>,
    question: AuthorizerQuestion,
  ): Promise<{ reply: T | null; until: Millis }>;
  forget(): void;
};

function createQuestions({ sql, env }: NamespaceContext, outgoing: Outgoing): Questions {
  const answers = new Map<string, { reply: unknown; until: Millis }>();

  const post = async (question: AuthorizerQuestion): Promise<string | null> => {
    const { authorizer } = readAuthorizer(sql);
    if (authorizer === null) return null;
    // Checked again before each call: a stored address is as good as the rules of the day.
    const url = checkOutgoingUrl(authorizer.url, { own: env.PUBLIC_URL ?? null });
    const secret = parseWebhookSecret(authorizer.secret);
    if (!url.ok || !secret.ok) return null;
    const body = JSON.stringify(question);
    const signed = await signWebhook({
      id: `auth_${crypto.randomUUID()}`,
      timestampSeconds: Math.floor(Date.now() / 1000),
      body: utf8(body),
      secret: secret.value,
    });
    const headers = { ...signed, "content-type": "application/json" };
    const { authorizerMs: withinMs, controlBytes: maxBytes } = LIMITS;
    const answer = await outgoing.ask(url.value, { body, headers, withinMs, maxBytes });
    return answer.ok && answer.status === 200 ? answer.text : null;
  };

  return {
    async ask<T extends { cacheMs?: number | undefined }>(
      key: string,
      reader: Reader<T>,
      question: AuthorizerQuestion,
    ) {
      const now = Date.now();
      const known = answers.get(key);
      if (known !== undefined && known.until > now) return known as { reply: T | null; until: Millis };
      const reply = parse(reader, await post(question));
      // A failure is remembered too, as a no: a panel that is down is not stormed.
      const fresh = { reply, until: now + (reply?.cacheMs ?? CACHE_MS) };
      if (answers.size >= ANSWERS_MAX) answers.clear();
      answers.set(key, fresh);
      return fresh;
    },
    forget: () => answers.clear(),
  };
}

/** A reply that fits its schema, or null. A page of a proxy and a broken answer are no answer. */
function parse<T>(reader: Reader<T>, text: string | null): T | null {
  try {
    return text === null ? null : reader.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

function refuseAuthorizer(address: string, secret: string | undefined, own: string | null): Refusal | null {
  const url = checkOutgoingUrl(address, { own });
  const wrong = (pointer: string, detail: string): Refusal =>
    refuse("invalid-body", "This authorizer cannot be asked.", { errors: [{ pointer, detail }] });
  if (!url.ok) return wrong("/authorizer/url", url.detail);
  if (secret === undefined) return wrong("/authorizer/secret", "is needed: questions are signed with it");
  const parsed = parseWebhookSecret(secret);
  return parsed.ok ? null : wrong("/authorizer/secret", parsed.detail);
}
