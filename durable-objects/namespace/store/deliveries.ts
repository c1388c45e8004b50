import {
  type DeliveryView,
  type DeploymentId,
  formatTime,
  type JobId,
  type Millis,
  type Push,
} from "@plumule/protocol";
import { HISTORY_COUNT, type Move } from "../core/order.ts";
import { type CommitStatus, statusView } from "../core/status.ts";

/** What a rule made of a delivery. `pending`: the job was not handed over yet. */
export type DeliveryResult = {
  trigger: string;
  deployment: DeploymentId | null;
  job: JobId | null;
  detail: string;
  pending: boolean;
};

/** A webhook that was verified. `push` is null when it said nothing that a rule could match; `round` counts redeliveries. */
export type Delivery = {
  id: string;
  hook: string;
  signer: string;
  webhookId: string;
  bodySha256: string;
  receivedAt: Millis;
  type: string;
  push: Push | null;
  /** Repository and ref, by which pushes are ordered. */
  refKey: string | null;
  state: DeliveryView["state"];
  round: number;
  results: readonly DeliveryResult[];
  /** The answer that the sender waits for, or null. */
  status: CommitStatus | null;
};

type Row = {
  number: number;
  id: string;
  hook: string;
  signer: string;
  webhook_id: string;
  body_sha256: string;
  received_at: Millis;
  type: string;
  push: string | null;
  ref_key: string | null;
  state: DeliveryView["state"];
  round: number;
  results: string;
  status: string | null;
};

/** Reads one delivery, or null. */
export function findDelivery(sql: SqlStorage, id: string): Delivery | null {
  const [row] = sql.exec<Row>("SELECT * FROM deliveries WHERE id = ?", id).toArray();
  return row === undefined ? null : deliveryOf(row);
}

/** Deliveries with their numbers, newest first, before one of them. */
export function readDeliveries(
  sql: SqlStorage,
  before: number | null,
  limit: number,
): { number: number; delivery: Delivery }[] {
  return sql
    .exec<Row>(
      "SELECT * FROM deliveries WHERE number < ? ORDER BY number DESC LIMIT ?",
      before ?? Number.MAX_SAFE_INTEGER,
      limit,
    )
    .toArray()
    .map((row) => ({ number: row.number, delivery: deliveryOf(row) }));
}

/** The pushes of a ref that came since then, oldest first: the last `HISTORY_COUNT` of them. */
export function readMoves(sql: SqlStorage, refKey: string, since: Millis): Move[] {
  return sql
    .exec<Pick<Row, "id" | "signer" | "push" | "state">>(
      "SELECT id, signer, push, state FROM deliveries WHERE ref_key = ? AND received_at >= ? ORDER BY number DESC LIMIT ?",
      refKey,
      since,
      HISTORY_COUNT,
    )
    .toArray()
    .toReversed()
    .flatMap(({ id, signer, push, state }) =>
      push === null ? [] : [moveOf({ id, signer, state }, JSON.parse(push) as Push)],
    );
}

/** The copies of a delivery whose senders wait for an answer of their own. */
export function readCopies(sql: SqlStorage, { id, refKey }: Delivery): Delivery[] {
  return sql
    .exec<Row>("SELECT * FROM deliveries WHERE ref_key = ? AND json_extract(status, '$.as') = ?", refKey, id)
    .toArray()
    .map(deliveryOf);
}

/** A push as far as its place among others matters. */
export function moveOf({ id, signer, state }: Pick<Delivery, "id" | "signer" | "state">, push: Push): Move {
  const { before, after, number } = push;
  return { id, signer, before: before ?? null, after, number: number ?? null, failed: state === "failed" };
}

/** Stores a new delivery. */
export function insertDelivery(sql: SqlStorage, delivery: Delivery): void {
  sql.exec(
    `INSERT INTO deliveries (id, hook, signer, webhook_id, body_sha256, received_at, type, push, ref_key, state, round, results, status)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    delivery.id,
    delivery.hook,
    delivery.signer,
    delivery.webhookId,
    delivery.bodySha256,
    delivery.receivedAt,
    delivery.type,
    delivery.push === null ? null : JSON.stringify(delivery.push),
    delivery.refKey,
    delivery.state,
    delivery.round,
    JSON.stringify(delivery.results),
    textOf(delivery.status),
  );
}

/** Stores what became of a delivery. */
export function updateDelivery(sql: SqlStorage, { id, state, round, results, status }: Delivery): void {
  sql.exec(
    "UPDATE deliveries SET state = ?, round = ?, results = ?, status = ? WHERE id = ?",
    state,
    round,
    JSON.stringify(results),
    textOf(status),
    id,
  );
}

function textOf(status: CommitStatus | null): string | null {
  return status === null ? null : JSON.stringify(status);
}

/** Remembers that the answers about a delivery depend on a job. */
export function insertStatusJob(sql: SqlStorage, job: JobId, delivery: string): void {
  sql.exec("INSERT OR IGNORE INTO status_jobs (job, delivery) VALUES (?, ?)", job, delivery);
}

/** Forgets it, when nothing more is to be told. */
export function deleteStatusJobs(sql: SqlStorage, delivery: string): void {
  sql.exec("DELETE FROM status_jobs WHERE delivery = ?", delivery);
}

/** The deliveries whose answer depends on a job. */
export function readDeliveriesOfJob(sql: SqlStorage, job: JobId): string[] {
  return sql
    .exec<{ delivery: string }>("SELECT delivery FROM status_jobs WHERE job = ?", job)
    .toArray()
    .map(({ delivery }) => delivery);
}

/** A delivery as people see it. */
export function deliveryView(delivery: Delivery): DeliveryView {
  const { push } = delivery;
  return {
    id: delivery.id,
    webhookId: delivery.webhookId,
    hook: delivery.hook,
    signer: delivery.signer,
    receivedAt: formatTime(delivery.receivedAt),
    type: delivery.type,
    repository: push?.repository ?? null,
    ref: push?.ref ?? null,
    after: push?.after ?? null,
    state: delivery.state,
    results: delivery.results.map(({ trigger, deployment, job, detail }) => ({ trigger, deployment, job, detail })),
    ...(delivery.status === null ? {} : { status: statusView(delivery.status) }),
  };
}

function deliveryOf(row: Row): Delivery {
  return {
    id: row.id,
    hook: row.hook,
    signer: row.signer,
    webhookId: row.webhook_id,
    bodySha256: row.body_sha256,
    receivedAt: row.received_at,
    type: row.type,
    push: row.push === null ? null : (JSON.parse(row.push) as Push),
    refKey: row.ref_key,
    state: row.state,
    round: row.round,
    results: JSON.parse(row.results) as DeliveryResult[],
    status: row.status === null ? null : (JSON.parse(row.status) as CommitStatus),
  };
}
