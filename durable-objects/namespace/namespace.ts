import { DurableObject } from "cloudflare:workers";
import {
  formatTime,
  isRefusal,
  type JobId,
  type NamespaceView,
  problemOf,
  refuse,
  type Refusal,
} from "@plumule/protocol";
import type { Env } from "../env.ts";
import { isStorageAhead } from "../shared/ahead.ts";
import { hasTables, migrate } from "../shared/migrate.ts";
import { namespaceObject } from "../shared/names.ts";
import { transact } from "../shared/transact.ts";
import { unauthenticated } from "./access.ts";
import { noteExec } from "./audit.ts";
import { type BrokerKey, createBrokerKey } from "./broker-key.ts";
import type { NamespaceCalls } from "./calls.ts";
import { addNamespace, listNamespaces } from "./directory.ts";
import { badSignature } from "./hook-verify.ts";
import { MIGRATIONS } from "./migrations.ts";
import { assemble, type Parts } from "./parts.ts";
import { findNamespace, insertNamespace } from "./store/namespace.ts";

type Call<Name extends keyof NamespaceCalls> = Parameters<NamespaceCalls[Name]>[0];
type Answer<Name extends keyof NamespaceCalls> = ReturnType<NamespaceCalls[Name]>;

/**
 * A namespace: what is configured and what can be listed. One more object of this class, `@directory`, lists the namespaces of the
 * installation.
 *
 * Until it is opened an object has no tables and stores nothing, so that guessing names costs nothing. Whoever may not know
 * better is told then what a wrong credential is told.
 */
export class Namespace extends DurableObject<Env> implements NamespaceCalls {
  #parts: Parts | null = null;
  /** Of the directory alone. */
  #brokerKey: BrokerKey | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    if (!hasTables(ctx.storage.sql) || isStorageAhead(ctx, MIGRATIONS)) return;
    migrate(ctx.storage, MIGRATIONS);
    const namespace = findNamespace(ctx.storage.sql);
    if (namespace !== null) this.#parts = assemble(ctx, env, namespace.id);
  }

  // The directory

  async createNamespace({ id }: Call<"createNamespace">): Answer<"createNamespace"> {
    // Opened before it is listed: a crash in between leaves nothing that is listed and does not work.
    const namespace = await namespaceObject(this.env, id).open({ id });
    migrate(this.ctx.storage, MIGRATIONS);
    return { created: addNamespace(this.ctx.storage.sql, namespace), namespace };
  }

  async listNamespaces(call: Call<"listNamespaces">): Answer<"listNamespaces"> {
    const { sql } = this.ctx.storage;
    return hasTables(sql) ? listNamespaces(sql, call) : { items: [], nextCursor: null };
  }

  async brokerKey({ make }: Call<"brokerKey">): Answer<"brokerKey"> {
    if (make) migrate(this.ctx.storage, MIGRATIONS);
    if (!hasTables(this.ctx.storage.sql)) return null;
    const key = (this.#brokerKey ??= createBrokerKey(this.ctx.storage));
    return make ? key.make() : key.read();
  }

  async signAsBroker({ payloadType, payload }: Call<"signAsBroker">): Answer<"signAsBroker"> {
    migrate(this.ctx.storage, MIGRATIONS);
    return (this.#brokerKey ??= createBrokerKey(this.ctx.storage)).sign(payloadType, payload);
  }

  async open({ id }: Call<"open">): Answer<"open"> {
    if (this.ctx.id.name !== id)
      throw new Error(`the namespace ${id} was opened on the object ${this.ctx.id.name ?? "without a name"}`);
    const { storage } = this.ctx;
    migrate(storage, MIGRATIONS);
    const known = findNamespace(storage.sql);
    if (known !== null) return viewOf(known);
    const namespace = { id, createdAt: Date.now() };
    transact(storage, () => insertNamespace(storage.sql, namespace));
    this.#parts = assemble(this.ctx, this.env, id);
    return viewOf(namespace);
  }

  async isOpen(): Promise<boolean> {
    return this.#parts !== null;
  }

  // Who is calling

  async authenticate(call: Call<"authenticate">): Answer<"authenticate"> {
    return this.#parts?.access.authenticate(call) ?? unauthenticated();
  }

  async admit(call: Call<"admit">): Answer<"admit"> {
    return this.#parts?.access.admit(call) ?? unauthenticated();
  }

  async redeemTicket(show: Call<"redeemTicket">): Answer<"redeemTicket"> {
    const admitted = await this.admit({ show, deployment: null });
    return isRefusal(admitted) ? admitted : admitted.principal;
  }

  async createTicket(call: Call<"createTicket">): Answer<"createTicket"> {
    return this.#parts?.access.createTicket(call) ?? notOpen();
  }

  async createToken(call: Call<"createToken">): Answer<"createToken"> {
    return this.#parts?.access.createToken(call) ?? notOpen();
  }

  async listTokens(): Answer<"listTokens"> {
    return this.#parts?.access.listTokens() ?? notOpen();
  }

  async revokeToken(call: Call<"revokeToken">): Answer<"revokeToken"> {
    const answer = this.#parts?.access.revokeToken(call) ?? notOpen();
    // Whoever is answered may count on it that the token's sockets are closed, unless their object is away.
    await this.#parts?.outbox.flush();
    return answer;
  }

  async getMembers(): Answer<"getMembers"> {
    return this.#parts?.logins.getMembers() ?? notOpen();
  }

  async putMembers(call: Call<"putMembers">): Answer<"putMembers"> {
    const answer = this.#parts?.logins.putMembers(call) ?? notOpen();
    await this.#parts?.outbox.flush();
    return answer;
  }

  async createLoginChallenge(call: Call<"createLoginChallenge">): Answer<"createLoginChallenge"> {
    return this.#parts?.logins.createLoginChallenge(call) ?? unauthenticated();
  }

  async createLogin(call: Call<"createLogin">): Answer<"createLogin"> {
    return this.#parts?.logins.createLogin(call) ?? unauthenticated();
  }

  async endLogin(call: Call<"endLogin">): Answer<"endLogin"> {
    const answer = (await this.#parts?.logins.endLogin(call)) ?? unauthenticated();
    await this.#parts?.outbox.flush();
    return answer;
  }

  async getAuthorizer(): Answer<"getAuthorizer"> {
    return this.#parts?.authorizer.getAuthorizer() ?? notOpen();
  }

  async putAuthorizer(call: Call<"putAuthorizer">): Answer<"putAuthorizer"> {
    return this.#parts?.authorizer.putAuthorizer(call) ?? notOpen();
  }

  async mayAct({ actor, action, about }: Call<"mayAct">): Answer<"mayAct"> {
    if (this.#parts === null) return false;
    const { authorizer, listing } = this.#parts;
    const deployment = about === null ? null : "job" in about ? await listing.locate(about.job) : about.deployment;
    return authorizer.mayAct({ actor: actor.replace(/^panel:/, ""), action, deployment });
  }

  // Runners

  async createRegistration(call: Call<"createRegistration">): Answer<"createRegistration"> {
    return this.#parts?.fleet.createRegistration(call) ?? notOpen();
  }

  async registerRunner(call: Call<"registerRunner">): Answer<"registerRunner"> {
    const answer = await (this.#parts?.fleet.registerRunner(call) ?? unauthenticated());
    this.#flushLater();
    return answer;
  }

  async createChallenge(call: Call<"createChallenge">): Answer<"createChallenge"> {
    return this.#parts?.sessions.createChallenge(call) ?? unauthenticated();
  }

  async createSession(call: Call<"createSession">): Answer<"createSession"> {
    return this.#parts?.sessions.createSession(call) ?? unauthenticated();
  }

  async listRunners(call: Call<"listRunners">): Answer<"listRunners"> {
    return this.#parts?.fleet.listRunners(call) ?? notOpen();
  }

  async noteExec(call: Call<"noteExec">): Promise<void> {
    if (this.#parts === null) throw new Error("the namespace was not opened");
    noteExec(this.#parts.context, call);
  }

  async drainRunner(call: Call<"drainRunner">): Answer<"drainRunner"> {
    const answer = this.#parts?.fleet.drainRunner(call) ?? notOpen();
    // Whoever is answered may count on it that the pool knows, unless the pool is away.
    await this.#parts?.outbox.flush();
    return answer;
  }

  async revokeRunner(call: Call<"revokeRunner">): Answer<"revokeRunner"> {
    const answer = this.#parts?.fleet.revokeRunner(call) ?? notOpen();
    await this.#parts?.outbox.flush();
    return answer;
  }

  async putRecipient(call: Call<"putRecipient">): Answer<"putRecipient"> {
    return this.#parts?.secrets.putRecipient(call) ?? notOpen();
  }

  // Secrets

  async listSecrets(): Answer<"listSecrets"> {
    return this.#parts?.secrets.listSecrets() ?? notOpen();
  }

  async putSecret(call: Call<"putSecret">): Answer<"putSecret"> {
    return this.#parts?.secrets.putSecret(call) ?? notOpen();
  }

  async removeSecret(call: Call<"removeSecret">): Answer<"removeSecret"> {
    return this.#parts?.secrets.removeSecret(call) ?? notOpen();
  }

  async fillSecrets({ secrets }: Call<"fillSecrets">): Answer<"fillSecrets"> {
    return this.#parts?.secrets.fill(secrets) ?? notOpen();
  }

  // Settings

  async getTrust(): Answer<"getTrust"> {
    return this.#parts?.settings.getTrust() ?? notOpen();
  }

  async putTrust(call: Call<"putTrust">): Answer<"putTrust"> {
    return this.#parts?.settings.putTrust(call) ?? notOpen();
  }

  async trustBasis(call: Call<"trustBasis">): Answer<"trustBasis"> {
    if (this.#parts === null) throw new Error("a deployment asked a namespace that is not open");
    return this.#parts.settings.trustBasis(call);
  }

  async getTriggers(): Answer<"getTriggers"> {
    return this.#parts?.settings.getTriggers() ?? notOpen();
  }

  async putTriggers(call: Call<"putTriggers">): Answer<"putTriggers"> {
    return this.#parts?.settings.putTriggers(call) ?? notOpen();
  }

  async listAudit(call: Call<"listAudit">): Answer<"listAudit"> {
    return this.#parts?.audit.list(call) ?? notOpen();
  }

  // Locks

  async settleLocks(call: Call<"settleLocks">): Answer<"settleLocks"> {
    if (this.#parts === null) throw new Error("a deployment asked a namespace that is not open");
    const answer = this.#parts.locks.settle(call);
    this.#flushLater();
    return answer;
  }

  async listLocks(call: Call<"listLocks">): Answer<"listLocks"> {
    return this.#parts?.locks.list(call) ?? notOpen();
  }

  // Webhooks

  async testTriggers(call: Call<"testTriggers">): Answer<"testTriggers"> {
    return this.#parts?.hooks.test(call) ?? notOpen();
  }

  async receiveHook(call: Call<"receiveHook">): Answer<"receiveHook"> {
    const answer = await (this.#parts?.hooks.receive(call) ?? badSignature());
    this.#flushLater();
    return answer;
  }

  async listDeliveries(call: Call<"listDeliveries">): Answer<"listDeliveries"> {
    return this.#parts?.hooks.listDeliveries(call) ?? notOpen();
  }

  async redeliver(call: Call<"redeliver">): Answer<"redeliver"> {
    const answer = this.#parts?.hooks.redeliver(call) ?? notOpen();
    this.#flushLater();
    return answer;
  }

  // Index and feed

  async publish(call: Call<"publish">): Answer<"publish"> {
    if (this.#parts === null) throw new Error("a deployment published to a namespace that is not open");
    const answer = this.#parts.listing.publish(call);
    // Whoever waits for an answer about a commit is told.
    this.#flushLater();
    return answer;
  }

  async locate(job: JobId): Answer<"locate"> {
    return this.#parts?.listing.locate(job) ?? null;
  }

  async listDeployments(call: Call<"listDeployments">): Answer<"listDeployments"> {
    return this.#parts?.listing.listDeployments(call) ?? notOpen();
  }

  async listJobs(call: Call<"listJobs">): Answer<"listJobs"> {
    return this.#parts?.listing.listJobs(call) ?? notOpen();
  }

  async history(call: Call<"history">): Answer<"history"> {
    return this.#parts?.history.read(call) ?? notOpen();
  }

  override async fetch(request: Request): Promise<Response> {
    return (
      this.#parts?.watchers.accept(request) ??
      Response.json(problemOf(notOpen()), { status: 404, headers: { "content-type": "application/problem+json" } })
    );
  }

  override webSocketMessage(ws: WebSocket, message: string | ArrayBuffer): void {
    this.#parts?.watchers.message(ws, message);
  }

  override webSocketClose(ws: WebSocket, code: number): void {
    this.#parts?.watchers.closed(ws, code);
  }

  override webSocketError(): void {
    this.#parts?.watchers.broken();
  }

  /** What is due: the signature of the audit log, retention and hand-overs. None throws, because the platform gives up on an alarm that does; what failed is due later. */
  override async alarm(): Promise<void> {
    const parts = this.#parts;
    if (parts === null) return;
    parts.alarm.forget();
    // Signed first: what it commits would plan another sweep.
    await parts.audit.signIfDue(Date.now());
    parts.sweeper.sweepIfDue(Date.now());
    await parts.outbox.flush();
    parts.alarm.arm();
  }

  #flushLater(): void {
    if (this.#parts !== null) this.ctx.waitUntil(this.#parts.outbox.flush());
  }
}

function viewOf({ id, createdAt }: { id: string; createdAt: number }): NamespaceView {
  return { id, createdAt: formatTime(createdAt) };
}

function notOpen(): Refusal {
  return refuse("not-found", "There is no such namespace.", { next: "Create it: POST /v1/namespaces." });
}
